"""Rules for elementwise operations, where a parameter scales or shifts the data."""

import dataclasses
from typing import Any

from optax_gc._parts import BROADCAST, CONSTANT, Part, Value, merged
from optax_gc._rules.base import (
    Reader,
    Values,
    data,
    known_same,
    met,
    rule,
    settled,
    shape,
    spread_out,
)

_LINEAR = ("neg", "convert_element_type", "reduce_precision", "real", "conj")
COMPARES = ("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "argmax", "argmin")
_OTHERS = (
    *("exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan", "tanh", "sinh"),
    *("cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "logistic"),
    *("sqrt", "rsqrt", "cbrt", "square", "abs", "round", "clamp", "erf", "erfc"),
    *("erf_inv", "lgamma", "digamma", "pow", "integer_pow", "max", "min", "rem"),
    *("sign", "floor", "ceil", "imag", "complex", "nextafter", "cumlogsumexp"),
    *("cumsum", "cumprod", "cummax", "cummin", "and", "or", "xor", "not", "shift_left"),
    *("shift_right_logical", "shift_right_arithmetic", "population_count"),
)


@rule("add", "sub", "add_any", "mul", "div", *_LINEAR, *_OTHERS)
def _elementwise(reader: Reader, eqn: Any, values: Values) -> Value:
    name, rank = eqn.primitive.name, len(shape(eqn.outvars[0]))
    values = spread_out(eqn, values)
    if not any(value.data for value in values):
        parts = [part for value in values for part in value.parts]
        if name in ("add", "sub", "add_any"):
            parts = _adapted(parts)
        return Value(parts=merged(parts), uses=data(*values).uses)
    if name in ("mul", "div"):
        return _multiplied(reader, values)
    if name in ("add", "sub", "add_any"):
        return _added(reader, values, rank)
    known = [value for value in values if value.data or value.parts]
    keeps = name in _LINEAR or all(part.kernel for v in known for part in v.parts)
    if len(known) == 1 and keeps:
        return known[0]
    return data(*(settled(reader, value, "elementwise") for value in values))


@rule(*COMPARES)
def _compare(reader: Reader, eqn: Any, values: Values) -> Value:
    """A comparison has no gradient. An index compared with all is one-hot."""
    if not any(value.data for value in values):
        return CONSTANT
    wide = any(
        not value.data and not value.parts and max(shape(var), default=1) > 1
        for value, var in zip(values, eqn.invars, strict=True)
    )
    uses = data(*values).uses
    return Value(data=True, uses=uses, one_hot=eqn.primitive.name == "eq" and wide)


def _adapted(parts: list[Part]) -> list[Part]:
    """Marks products of parameters that are added to a plain kernel, as by LoRA."""
    if not any(_is_plain_kernel(part) for part in parts):
        return parts
    return [dataclasses.replace(p, adapter=True) if p.inner else p for p in parts]


def _is_plain_kernel(part: Part) -> bool:
    """Tells a kernel of the size of the whole array from a bias, or a product."""
    long = [dim for dim in part.dims if any(atom.size > 1 for atom in dim)]
    repeats = any(atom.axis == BROADCAST for dim in long for atom in dim)
    return len(long) > 1 and not (repeats or part.inner or part.statistic)


def _multiplied(reader: Reader, values: Values) -> Value:
    """Parameters times data: a scale of the data, or a kernel scaled by it."""
    parts: list[Part] = []
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        how = "looked up" if any(v.one_hot for v in others) else "multiplied"
        parts += (met(reader, part, how, others) for part in value.parts)
    result = Value(True, merged(parts), data(*values).uses, known_same(values))
    one_hot = any(value.one_hot for value in values) and not parts
    return dataclasses.replace(result, one_hot=one_hot)


def _added(reader: Reader, values: Values, rank: int) -> Value:
    """Parameters plus data: a shift of the data, or a kernel with noise."""
    known = [value for value in values if value.data or value.parts]
    if len(known) == 1:
        return known[0]
    if term := _same_terms(known):
        return Value(True, (term,), data(*values).uses, known_same(values))
    parts: list[Part] = []
    uses = data(*values).uses
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        for part in value.parts:
            beside_kernel = all(
                (other.parts or not other.data) and all(p.kernel for p in other.parts)
                for other in others
            )
            here = met(reader, part, "added", others)
            lacks = any(
                dim and all(atom.axis == BROADCAST for atom in dim) for dim in part.dims
            )
            if here.kernel and not lacks and (not part.met or beside_kernel):
                parts.append(here)
            else:
                uses |= reader.settle(here)
    return Value(True, merged(parts), uses, known_same(values))


def _same_terms(values: Values) -> Part | None:
    """Returns what stands for a sum over single indices of a leaf, each times data."""
    if any(len(value.parts) != 1 for value in values):
        return None
    terms = [_as_term(value.parts[0]) for value in values]
    alike = all(term == terms[0] and term.summed for term in terms)
    return terms[0] if alike and terms[0].met == "multiplied" else None


def _as_term(part: Part) -> Part:
    single = tuple(atom for atom in part.stacked if atom.entries == 1)
    return dataclasses.replace(part, origin=0, scaled_by=0, summed=single)


@rule("select_n")
def _select(reader: Reader, eqn: Any, values: Values) -> Value:
    """A mask is like a factor of 0 or 1; other data than a mask is mixed in."""
    chooser, *cases = spread_out(eqn, values)
    chooser = dataclasses.replace(chooser, parts=())
    if not chooser.data and not any(case.data for case in cases):
        return Value(parts=merged(p for case in cases for p in case.parts))
    if any(case.data and not case.parts for case in cases):
        return data(chooser, *(settled(reader, case, "joined") for case in cases))
    parts = [
        met(reader, part, "multiplied", [chooser])
        for case in cases
        for part in case.parts
    ]
    return Value(True, merged(parts), data(*values).uses, known_same([chooser]))
