"""Rules for elementwise operations, where a parameter scales or shifts the data."""

import math
from collections.abc import Iterable
from typing import Any

from optax_gc._parts import (
    BROADCAST,
    CONSTANT,
    MASKED,
    Atom,
    Part,
    Product,
    Value,
    image_of,
    merged,
)
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
    unfollowed,
)

_ADDS = ("add", "sub", "add_any")
_SQUARES = ("square", "integer_pow", "abs")
_LINEAR = ("neg", "convert_element_type", "reduce_precision", "real", "imag", "conj")
COMPARES = ("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "argmax", "argmin")
# What only a layer's result is given to; norms and penalties use others.
_ACTIVATIONS = (
    *("exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan", "tanh", "sinh"),
    *("cosh", "logistic", "max", "min", "erf", "erfc"),
)
_OTHERS = (
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "sqrt", "rsqrt"),
    *("cbrt", "square", "abs", "round", "clamp", "erf_inv", "lgamma", "digamma"),
    *("pow", "integer_pow", "rem", "sign", "floor", "ceil", "complex", "nextafter"),
    *("and", "or", "xor", "not", "shift_left", "shift_right_logical"),
    *("shift_right_arithmetic", "population_count"),
)


@rule(*_ADDS, "mul", "div", *_LINEAR, *_ACTIVATIONS, *_OTHERS)
def _elementwise(reader: Reader, eqn: Any, values: Values) -> Value:
    name = eqn.primitive.name
    values = spread_out(eqn, values)
    if name in _ADDS:
        return summed(reader, values)
    if any(value.data for value in values) and name in ("mul", "div"):
        result = _multiplied(reader, values, name)
        if name == "div" and values[1].total_of == id(eqn.invars[0]):
            return result._replace(weights=True)
        return result
    return _made(reader, name, values)


def summed(reader: Reader, values: Values) -> Value:
    """Returns a sum of arrays of one shape."""
    if any(value.data for value in values):
        return _added(reader, values)
    return _among_parameters(reader, "add", values)


def _made(reader: Reader, name: str, values: Values) -> Value:
    if not any(value.data for value in values):
        return _among_parameters(reader, name, values)
    known = [value for value in values if value.data or value.parts]
    keeps = name in _LINEAR or all(part.kernel for v in known for part in v.parts)
    if len(known) == 1 and keeps:
        if name in _LINEAR:
            return known[0]
        norm = name in _SQUARES  # of a kernel that the data scale, or a part of one
        parts = tuple(
            p._replace(scale=True, statistic=norm or p.statistic)
            for p in known[0].parts
        )
        return Value(
            True, parts, known[0].uses, known[0].same, known[0].one_hot,
            weights=name == "logistic",
        )  # fmt: skip
    result = data(*(settled(reader, value, "elementwise") for value in values))
    return result._replace(weights=name == "logistic")


def _among_parameters(reader: Reader, name: str, values: Values) -> Value:
    """Parameters and constants, unless what comes next shows that they are data."""
    parts = [part for value in values for part in value.parts]
    constant = any(value.full for value in values)
    full = constant and not parts
    if name == "mul":
        one, two = map(_varies, values)
        if one - two and two - one:
            pairs = zip(values, reversed(values), strict=True)
            parts = [_crossed(part, other) for v, other in pairs for part in v.parts]
    if name not in _ADDS and constant:
        parts = _filled(parts)
    if any(part.unread for part in parts):
        parts = [_beside_unread(part, parts) for part in parts]
    if name in _ADDS and any(map(_is_product, parts)):
        for i, value in enumerate(values):
            if kernels := _beside(value, values[1 - i]):
                return _as_data(reader, values, kernels)
        parts = _adapted(parts, constant)
    elif name in _ACTIVATIONS and any(map(_is_product, parts)):
        return _as_data(reader, values, _outermost(parts))
    return Value(parts=merged(parts), uses=data(*values).uses, full=full)


def _varies(value: Value) -> frozenset[int]:
    """Returns the dimensions along which the parameters in an array vary."""
    return frozenset().union(*(_own(p) for p in value.parts if not p.statistic))


def _crossed(part: Part, other: Value) -> Part:
    """Returns a part of an outer product of parameters: each may be the kernel."""
    own = _own(part)
    partners = [
        p.leaf
        for p in other.parts
        if p.leaf != part.leaf and not p.statistic and own - _own(p) and _own(p) - own
    ]
    if not partners or part.statistic:
        return part
    single = tuple(atom for atom in part.stacked[-1:] if atom.entries == 1)
    return part._replace(
        inner=part.inner + single, partners=part.partners.union(partners)
    )


def _beside_unread(part: Part, parts: list[Part]) -> Part:
    """Returns a part that is in doubt, too: it may be the bias of an unread one."""
    unread = next(p.unread for p in parts if p.unread)
    return part if part.unread or _is_plain_kernel(part) else unfollowed(part, unread)


def _filled(parts: Iterable[Part]) -> list[Part]:
    """Returns parts that a constant is multiplied with, which varies everywhere."""

    def fill(atom: Atom) -> Atom:
        return atom._replace(axis=MASKED) if atom.axis == BROADCAST else atom

    return [
        part.with_dims(tuple(map(fill, dim)) for dim in part.dims) for part in parts
    ]


def _is_product(part: Part) -> bool:
    """Tells a product of parameters, or of one with inputs that are constant."""
    if part.statistic or part.adapter:
        return False
    own = _own(part)
    constant = (_rows(part) and own) or (part.fixed and len(own) == 1)
    return bool(part.partners or constant)


def _rows(part: Part) -> bool:
    return any(_is_row(atom) for dim in part.dims for atom in dim)


def _is_row(atom: Atom) -> bool:
    return atom.image in ("rows", "either")


def _own(part: Part) -> frozenset[int]:
    """Returns the dimensions, longer than 1, along which a part itself varies."""
    return frozenset(
        d
        for d, dim in enumerate(part.dims)
        if any(a.size > 1 and a.axis != BROADCAST and not _is_row(a) for a in dim)
    )


def _beside(value: Value, other: Value) -> frozenset[int]:
    """Returns which leaves of a product its bias, or a residual, shows to be kernels.

    A bias varies only along the outputs, which are those of the kernel. An input that
    is added again is not a kernel. A vector, which leaves no axis, is an input.
    """
    products = {part.leaf: _own(part) for part in value.parts if _is_product(part)}
    plain = [p for p in other.parts if not p.statistic and not p.partners]
    everything = frozenset().union(*products.values())
    if not products or not plain or len(plain) != len(other.parts):
        return frozenset()
    again = {part.leaf for part in plain} & set(products)
    if again:
        return frozenset(products) - again
    if (alone := _outermost(value.parts)) and len(products) > 1:
        return alone
    added = frozenset().union(*map(_own, plain))
    images = any(_rows(part) for part in value.parts)
    if added == everything and not images:
        return frozenset()
    return frozenset(leaf for leaf, own in products.items() if own == added)


def _outermost(parts: Iterable[Part]) -> frozenset[int]:
    """Returns the leaf in a product that has an axis left, if it is the only one."""
    parts = [part for part in parts if _is_product(part)]
    left = frozenset(part.leaf for part in parts if _own(part))
    return left if len(left) == 1 else frozenset()


def _as_data(reader: Reader, values: Values, kernels: frozenset[int]) -> Value:
    """Returns what was computed from parameters alone, as data."""
    uses = data(*values).uses
    products = {p.leaf for v in values for p in v.parts if _is_product(p)}
    for value in values:
        product = any(map(_is_product, value.parts))
        for part in _in_one(value.parts):
            if _is_product(part):
                uses |= reader.learn(part, part.leaf in kernels if kernels else None)
            elif part.leaf not in products:
                uses |= reader.settle(part, "multiplied" if product else "added")
    return data(uses=uses)


def _in_one(parts: Iterable[Part]) -> list[Part]:
    """Returns parts, with those of one leaf in a sum of products joined."""
    found: dict[int, Part] = {}
    others = []
    for part in parts:
        if not _is_product(part):
            others.append(part)
        elif (one := found.setdefault(part.leaf, part)) is not part:
            inner = tuple(dict.fromkeys((*one.inner, *part.inner)))
            stacked = tuple(atom for atom in one.stacked if atom in part.stacked)
            found[part.leaf] = one._replace(inner=inner, stacked=stacked)
    return [*found.values(), *others]


def _adapted(parts: list[Part], full: bool) -> list[Part]:
    """Marks products of parameters that are added to a plain kernel, as in LoRA.

    The kernel may be frozen: a constant.
    """
    if not (full or any(_is_plain_kernel(part) for part in parts)):
        return parts
    if not _is_of_low_rank([part for part in parts if part.partners]):
        return parts
    return [p._replace(adapter=True) if p.partners else p for p in parts]


def _is_of_low_rank(products: Iterable[Part]) -> bool:
    """Tells the product of two thin matrices from inputs that a kernel was given."""
    return all(
        math.prod(atom.size for atom in part.inner)
        < math.prod(a.size for d in _own(part) for a in part.dims[d])
        for part in products
    )


def _is_plain_kernel(part: Part) -> bool:
    """Tells a kernel of the size of the whole array from a bias, or a product."""
    long = {d for d, dim in enumerate(part.dims) if any(a.size > 1 for a in dim)}
    whole = long <= _own(part)
    return len(long) > 1 and whole and not (part.partners or part.statistic)


@rule(*COMPARES)
def _compare(reader: Reader, eqn: Any, values: Values) -> Value:
    """A comparison has no gradient. An index compared with all is one-hot."""
    if not any(value.data for value in values):
        return Value(full=any(value.full for value in values))
    wide = any(
        not value.data and not value.parts and max(shape(var), default=1) > 1
        for value, var in zip(values, eqn.invars, strict=True)
    )
    uses = data(*values).uses
    return Value(data=True, uses=uses, one_hot=eqn.primitive.name == "eq" and wide)


def _multiplied(reader: Reader, values: Values, name: str) -> Value:
    """Parameters times data: a scale of the data, or a kernel scaled by it."""
    parts: list[Part] = []
    uses = data(*values).uses
    for i, value in enumerate(values):
        if not value.data and (kernels := _outermost(value.parts)):
            uses |= _as_data(reader, [value], kernels).uses
            continue
        others = [v for j, v in enumerate(values) if j != i]
        how = "looked up" if any(v.one_hot for v in others) else "multiplied"
        here = (met(reader, part, how, others) for part in value.parts)
        parts += (_scaling(part, others) if value.data else part for part in here)
    known = [value for value in values if value.data or value.parts]
    (one,) = moved if len(moved := [v for v in values if v.data]) == 1 else (CONSTANT,)
    return Value(
        True, merged(parts), uses, known_same(values),
        terms=one.terms,
        past=one.past,
        products=one.products,
        one_hot=0 if parts else max(value.one_hot for value in values),
        weights=not parts and all(v.weights or v.one_hot for v in known),
    )  # fmt: skip


def _scaling(part: Part, others: Values) -> Part:
    """Returns a part that has scaled the data, which another parameter now meets.

    A piece of a kernel is no scale for that unless the other is a piece, too.
    """
    met_by = [
        p.owned
        for v in others
        if not v.data
        for p in v.parts
        if p.stacked or not part.stacked
    ]
    if part.met != "multiplied" or max(met_by, default=0) < max(part.owned, 1):
        return part
    return part._replace(scale=True)


def _added(reader: Reader, values: Values) -> Value:
    """Parameters plus data: a shift of the data, or a kernel with noise."""
    known = [value for value in values if value.data or value.parts]
    if len(known) == 1:
        return known[0]
    parts: list[Part] = []
    uses, terms, past = data(*values).uses, 0, 0
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        noted = value.terms
        learned = not value.data and _in_data(value, others)
        for part in value.parts:
            here = met(reader, part, "added", others)
            if learned and _is_product(part):
                kernels = _outermost(value.parts)
                noted |= reader.learn(part, part.leaf in kernels if kernels else None)
            elif part.partners and not part.adapter and not value.data:
                parts.append(here._replace(adapter=True, kernel=True))
            elif _stays(reader, here, part, others):
                parts.append(here)
            else:
                noted |= reader.settle(here)
        uses |= noted
        noted &= reader.pieces
        reader.link(terms, noted & ~terms)
        reader.link(past, noted)
        reader.link(terms, value.past)
        terms |= noted
        past |= value.past
    products = _of_a_sum(values)
    same = known_same(values)
    return Value(
        True, merged(parts), uses, same, terms=terms, past=past, products=products
    )


def _of_a_sum(values: Values) -> tuple[Product, ...]:
    """Returns the products that a sum is a linear function of, if of one leaf."""
    made = [v.products for v in values if v.data and (v.products or not v.parts)]
    leaves = {frozenset(p.part.leaf for p in products) for products in made}
    if len(leaves) != 1:
        return ()
    return tuple(dict.fromkeys(p for products in made for p in products))


def _in_data(value: Value, others: Values) -> bool:
    """Tells a product of parameters that is added to data as data from an adapter.

    An adapter is added to a frozen kernel, along whose axes its own two factors vary.
    """
    products = [part for part in value.parts if _is_product(part)]
    if not products or _outermost(products):
        return bool(products)
    own = frozenset().union(*map(_own, products))
    same = known_same(others)
    rank = len(products[0].dims)
    return any(d not in same and d not in own for d in range(rank) if _long(value, d))


def _long(value: Value, dimension: int) -> bool:
    return any(a.size > 1 for part in value.parts for a in part.dims[dimension])


def _stays(reader: Reader, here: Part, before: Part, others: Values) -> bool:
    """Tells whether a part that data was added to may still be a kernel.

    If the data was computed with the kernel itself, this is a step of its training.
    """
    lacks = any(dim and all(atom.repeats for atom in dim) for dim in here.dims)
    product = before.met == "multiplied" and not (before.scale or before.stacked)
    if product and all(map(_is_linear, others)):
        return True
    if before.met and len(_own(here)) < 2 and _are_pieces(before, others):
        return False
    if before.met:
        beside_kernels = all(
            (other.parts or not other.data) and all(p.kernel for p in other.parts)
            for other in others
        )
        step = data(*others).uses & reader.contractions_of(before.leaf)
        if not (beside_kernels or step):
            return False
    if len(_own(here)) > 1:
        return True
    if lacks or not here.kernel:
        return False
    made = any(other.products for other in others)  # by a kernel, whose bias it is
    return not made or bool(data(*others).uses & reader.contractions_of(before.leaf))


def _are_pieces(part: Part, others: Values) -> bool:
    """Tells whether other pieces of the same leaf are added to a part."""
    found = [p for other in others for p in other.parts if p.leaf == part.leaf]
    return any(p.stacked != part.stacked for p in found)


def _is_linear(value: Value) -> bool:
    """Tells data that kernels were multiplied with, and that may yet be summed."""
    waiting = any(part.met == "multiplied" for part in value.parts)
    return value.data and (bool(value.products) or waiting)


@rule("select_n")
def _select(reader: Reader, eqn: Any, values: Values) -> Value:
    """A mask is like a factor of 0 or 1; other data than a mask is mixed in."""
    chooser, *cases = spread_out(eqn, values)
    chooser = chooser._replace(parts=())
    if not chooser.data and not any(case.data for case in cases):
        parts = [part for case in cases for part in case.parts]
        return Value(parts=merged(_filled(parts) if chooser.full else parts))
    if any(case.data and not case.parts for case in cases):
        return data(chooser, *(settled(reader, case, "joined") for case in cases))
    parts = [
        met(reader, part, "multiplied", [chooser])
        for case in cases
        for part in case.parts
    ]
    return Value(True, merged(parts), data(*values).uses, known_same([chooser]))


@rule("cumsum", "cumlogsumexp", "cumprod", "cummax", "cummin")
def _cumulated(reader: Reader, eqn: Any, values: Values) -> Value:
    """A sum up to each place is a contraction with a constant triangle."""
    (value,), axis = values, eqn.params["axis"]
    if value.data:
        return data(settled(reader, value, "elementwise"))
    if eqn.primitive.name != "cumsum":
        return value

    def sum_up(part: Part) -> Part:
        dims = list(part.dims)
        if part.at([axis]):
            dims[axis] = image_of(part.at([axis]), shape(eqn.outvars[0])[axis], "map")
        return part.with_dims(dims)

    return value.map(sum_up)
