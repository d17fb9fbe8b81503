"""What each primitive of JAX does to the axes of the parameters in its operands.

`RULES` has a small function for each kind of primitive, from the `Value`s of its
operands to those of its results. It reads as few of the primitive's parameters as it
can, because those change between versions of JAX. To teach the reader a primitive, add
a function with ``@rule("its_name")``; what has no rule is told as opaque.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from optax_gc._parts import (
    BROADCAST,
    CONSTANT,
    Dim,
    Part,
    Shape,
    UnreadableError,
    Value,
    merged,
    padded,
    repeated,
    reshaped,
    reverse,
    sliced,
    some,
    spread,
)

Values: TypeAlias = Sequence[Value]


class Reader(Protocol):
    """What a rule may ask of the walk over the program."""

    origin: int  # the number of the equation in hand

    def settle(self, part: Part, how: str = "") -> int:
        """Notes how a part was used, by default how it met the data."""

    def contract(self, part: Part, contracted: Dim, batch: Dim, kind: str) -> int:
        """Notes that a part was contracted with the data over some axes."""

    def walk(self, jaxpr: Any, values: Values, live: Sequence[int]) -> list[Value]:
        """Reads a program within the program."""

    def rehearsal(self) -> AbstractContextManager[None]:
        """Lets programs be read without noting the uses in them."""

    def liveness(self, eqn: Any) -> list[int]:
        """Tells which results of an equation are needed."""


Rule: TypeAlias = Callable[[Reader, Any, Values], Value | list[Value]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers the rule of the primitives called `names`."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def shape(var: Any) -> Shape:
    """Returns the shape of a variable of a jaxpr."""
    return tuple(var.aval.shape)


def shapes(eqn: Any) -> list[Shape]:
    return [shape(var) for var in eqn.invars]


def data(*values: Value, uses: int = 0) -> Value:
    """Returns data that was computed from `values`."""
    for value in values:
        uses |= value.uses
    return Value(data=True, uses=uses)


def settled(reader: Reader, value: Value, how: str = "") -> Value:
    """Returns `value` as mere data, with the uses of its parameters noted."""
    uses = value.uses
    for part in value.parts:
        uses |= reader.settle(part, how)
    return dataclasses.replace(value, data=True, parts=(), uses=uses)


def joined(reader: Reader, values: Values) -> Value:
    """Returns what is true of an array that may be any of `values`."""
    first, *others = values
    if all(value == first for value in others):
        return first
    if any(value.data for value in values):
        return data(*(settled(reader, value, "mixed") for value in values))
    uses = 0
    for value in values:
        uses |= value.uses
    return Value(parts=merged(p for value in values for p in value.parts), uses=uses)


# Arrays moved about.


@rule("transpose")
def _transpose(reader: Reader, eqn: Any, values: Values) -> Value:
    order = eqn.params["permutation"]
    (value,) = values
    same = frozenset(i for i, d in enumerate(order) if d in value.same)
    return value.map(lambda part: part.with_dims(part.dims[d] for d in order), same)


@rule("reshape", "expand_dims")
def _reshape(reader: Reader, eqn: Any, values: Values) -> Value:
    (value,), old, new = values, shape(eqn.invars[0]), shape(eqn.outvars[0])
    same: frozenset[int] = frozenset()
    if [n for n in old if n != 1] == [n for n in new if n != 1]:
        places = zip(_long(old), _long(new), strict=True)
        same = frozenset(to for d, to in places if d in value.same)
    return value.map(lambda part: reshaped(part, new), same)


def _long(dims: Shape) -> list[int]:
    return [d for d, n in enumerate(dims) if n != 1]


@rule("squeeze")
def _squeeze(reader: Reader, eqn: Any, values: Values) -> Value:
    rank = len(shape(eqn.invars[0]))
    dropped = {d % rank for d in eqn.params["dimensions"]}
    kept = [d for d in range(rank) if d not in dropped]
    same = frozenset(i for i, d in enumerate(kept) if d in values[0].same)
    return values[0].map(lambda part: _without(part, dropped), same)


def _without(part: Part, dropped: Iterable[int]) -> Part:
    kept = [dim for d, dim in enumerate(part.dims) if d not in set(dropped)]
    return part.with_dims(kept, part.at(dropped))


@rule("broadcast_in_dim")
def _broadcast_in_dim(reader: Reader, eqn: Any, values: Values) -> Value:
    old, new = shape(eqn.invars[0]), shape(eqn.outvars[0])
    return spread(values[0], old, new, eqn.params["broadcast_dimensions"])


@rule("rev")
def _rev(reader: Reader, eqn: Any, values: Values) -> Value:
    turned = eqn.params["dimensions"]

    def turn(part: Part) -> Part:
        return part.with_dims(
            reverse(dim) if d in turned else dim for d, dim in enumerate(part.dims)
        )

    return values[0].map(turn, values[0].same)


@rule("optimization_barrier", "sharding_constraint", "pvary", "pcast", "copy", "copy_p")
def _as_they_are(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    return list(values)


@rule("slice")
def _slice(reader: Reader, eqn: Any, values: Values) -> Value:
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or [1] * len(starts)
    ranges = list(zip(starts, stops, steps, strict=True))
    return _cut(values[0], shape(eqn.invars[0]), ranges)


def _cut(value: Value, old: Shape, ranges: Sequence[tuple[int, int, int]]) -> Value:
    def cut(part: Part) -> Part | None:
        dims = [
            sliced(dim, n, *where)
            for dim, n, where in zip(part.dims, old, ranges, strict=True)
        ]
        kept = [dim for dim in dims if dim is not None]
        return part.with_dims(kept) if len(kept) == len(dims) else None

    return value.map(cut)


@rule("split")
def _split(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    (old,), axis = shapes(eqn), eqn.params["axis"]
    results, start = [], 0
    for var in eqn.outvars:
        ranges = [(0, n, 1) for n in old]
        stop = start + shape(var)[axis]
        ranges[axis] = (start, stop, 1)
        results.append(_cut(values[0], old, ranges))
        start = stop
    return results


@rule("unstack")
def _unstack(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    value = values[0].map(lambda part: _without(part, [eqn.params["axis"]]))
    return [value] * len(eqn.outvars)


@rule("concatenate")
def _concatenate(reader: Reader, eqn: Any, values: Values) -> Value:
    return _put_together(reader, eqn, values, eqn.params["dimension"])


@rule("stack")
def _stack(reader: Reader, eqn: Any, values: Values) -> Value:
    axis = eqn.params["axis"]
    layers = [
        value.map(
            lambda part: part.with_dims([*part.dims[:axis], (), *part.dims[axis:]])
        )
        for value in values
    ]
    return _put_together(reader, eqn, layers, axis)


def _put_together(reader: Reader, eqn: Any, values: Values, axis: int) -> Value:
    if any(value.data for value in values):
        return data(*(settled(reader, value, "joined") for value in values))
    new, parts, before = shape(eqn.outvars[0])[axis], [], 0
    for value, old in zip(values, shapes(eqn), strict=True):
        size = old[axis] if len(old) == len(shape(eqn.outvars[0])) else 1
        for part in value.parts:
            dims = list(part.dims)
            dims[axis] = padded(dims[axis], size, before, new)
            parts.append(part.with_dims(dims))
        before += size
    return Value(parts=merged(parts))


@rule("pad")
def _pad(reader: Reader, eqn: Any, values: Values) -> Value:
    (old, _), new = shapes(eqn), shape(eqn.outvars[0])
    config = eqn.params["padding_config"]

    def pad(part: Part) -> Part:
        if any(inner for _, _, inner in config):
            raise UnreadableError
        return part.with_dims(
            padded(dim, n, before, m)
            for dim, n, (before, _, _), m in zip(
                part.dims, old, config, new, strict=True
            )
        )

    return _with_data(values[0].map(pad), values[1:])


@rule("tile")
def _tile(reader: Reader, eqn: Any, values: Values) -> Value:
    (old,), new = shapes(eqn), shape(eqn.outvars[0])

    def tile(part: Part) -> Part:
        return part.with_dims(
            dim if n == m else (*repeated(m // n), *dim)
            for dim, n, m in zip(part.dims, old, new, strict=True)
        )

    return values[0].map(tile)


def _with_data(value: Value, indices: Values) -> Value:
    if not any(index.data for index in indices):
        return value
    return dataclasses.replace(value, data=True, uses=data(value, *indices).uses)


# Looked up, with an index that may be data.


@rule("dynamic_slice")
def _dynamic_slice(reader: Reader, eqn: Any, values: Values) -> Value:
    table, *indices = values
    old, new = shape(eqn.invars[0]), shape(eqn.outvars[0])
    chosen = [d for d, (n, m) in enumerate(zip(old, new, strict=True)) if n != m]

    def take(part: Part) -> Part:
        dims = list(part.dims)
        for d in chosen:
            dims[d] = some(part.dims[d], new[d])
        return part.with_dims(dims)

    taken = table.map(take)
    by_data = any(indices[d].data for d in chosen)
    return _looked_up(reader, taken, indices) if by_data else taken


def _looked_up(reader: Reader, value: Value, indices: Values) -> Value:
    """Returns what data has chosen: an expert still, or a row of a table."""

    return _with_data(value.map(lambda part: _by_data(reader, part)), indices)


def _by_data(reader: Reader, part: Part) -> Part:
    if part.met:
        return part
    return dataclasses.replace(part, met="looked up", origin=reader.origin)


@rule("gather")
def _gather(reader: Reader, eqn: Any, values: Values) -> Value:
    numbers = eqn.params["dimension_numbers"]
    old, new = shape(eqn.invars[0]), shape(eqn.outvars[0])
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [d for d in range(len(old)) if d not in dropped]
    indexed = [d for d in range(len(new)) if d not in numbers.offset_dims]

    def take(part: Part) -> Part:
        dims = [repeated(n) for n in new]
        for d, to in zip(kept, numbers.offset_dims, strict=True):
            whole = old[d] == new[to]
            dims[to] = part.dims[d] if whole else some(part.dims[d], new[to])
        # What is indexed may still be an axis: a permutation, positions.
        long = [d for d in indexed if new[d] != 1]
        by_index = len(dropped) == len(long) == 1 and not values[1].data
        if by_index:
            dims[long[0]] = some(part.dims[min(dropped)], new[long[0]])
        return part.with_dims(dims, () if by_index else part.at(sorted(dropped)))

    table, index = values
    taken = table.map(take)
    chosen = bool(numbers.start_index_map)
    return _looked_up(reader, taken, [index]) if index.data and chosen else taken


@rule("dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "scatter-mul")
def _update(reader: Reader, eqn: Any, values: Values) -> Value:
    if any(value.data for value in values):
        return data(*(settled(reader, value, "joined") for value in values))
    if any(value.parts for value in values[1:]):
        raise UnreadableError
    return values[0]


# Elementwise.

_LINEAR = ("neg", "convert_element_type", "reduce_precision", "real", "conj")
_COMPARES = ("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "sign", "floor", "ceil")
_OTHERS = (
    *("exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan", "tanh", "sinh"),
    *("cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "logistic"),
    *("sqrt", "rsqrt", "cbrt", "square", "abs", "round", "clamp", "erf", "erfc"),
    *("erf_inv", "lgamma", "digamma", "pow", "integer_pow", "max", "min", "rem"),
    *("imag", "complex", "nextafter", "cumsum", "cumprod", "cummax", "cummin"),
    *("cumlogsumexp", "and", "or", "xor", "not", "shift_left"),
    *("shift_right_logical", "shift_right_arithmetic", "population_count"),
)


@rule("add", "sub", "add_any", "mul", "div", *_LINEAR, *_OTHERS)
def _elementwise(reader: Reader, eqn: Any, values: Values) -> Value:
    name, rank = eqn.primitive.name, len(shape(eqn.outvars[0]))
    values = _spread(eqn, values)
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


def _spread(eqn: Any, values: Values) -> list[Value]:
    """Returns the operands in the shape of the result: scalars and 1s are repeated."""
    new = shape(eqn.outvars[0])
    return [
        spread(value, old, new, range(len(new) - len(old), len(new)))
        for value, old in zip(values, shapes(eqn), strict=True)
    ]


@rule(*_COMPARES, "argmax", "argmin")
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
    plain = any(
        not part.inner and not part.statistic and part.met == "" for part in parts
    )
    products = [part for part in parts if part.inner]
    if not plain or not products:
        return parts
    return [dataclasses.replace(p, adapter=True) if p.inner else p for p in parts]


def _same(values: Values) -> frozenset[int]:
    known = [value.same for value in values if value.data]
    return frozenset.intersection(*known) if known else frozenset()


def _multiplied(reader: Reader, values: Values) -> Value:
    """Parameters times data: a scale of the data, or a kernel scaled by it."""
    parts: list[Part] = []
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        parts += (_met(reader, part, "multiplied", others) for part in value.parts)
    result = Value(True, merged(parts), data(*values).uses, _same(values))
    one_hot = any(value.one_hot for value in values) and not parts
    return dataclasses.replace(result, one_hot=one_hot)


def _met(reader: Reader, part: Part, how: str, others: Values) -> Part:
    """Returns a part that has met the data `others`, if they are data."""
    if not any(other.data for other in others):
        return part
    kernel = part.kernel and _stays_kernel(part, _same(others))
    scaled_by = part.scaled_by | data(*others).uses
    if part.met:
        return dataclasses.replace(part, kernel=kernel, scaled_by=scaled_by)
    return dataclasses.replace(
        part, met=how, kernel=kernel, scaled_by=scaled_by, origin=reader.origin
    )


def _stays_kernel(part: Part, same: frozenset[int]) -> bool:
    """Tells whether data that is constant along `same` modulates a kernel.

    It does if it is constant along one of the kernel's axes, or if it has none that the
    kernel lacks. A scale of the data is repeated along the batch, and has no axis of
    its own.
    """
    own = [any(atom.axis != BROADCAST for atom in dim) for dim in part.dims]
    lacks = any(
        dim and not mine and d not in same
        for d, (dim, mine) in enumerate(zip(part.dims, own, strict=True))
    )
    return not lacks or any(mine and d in same for d, mine in enumerate(own))


def _added(reader: Reader, values: Values, rank: int) -> Value:
    """Parameters plus data: a shift of the data, or a kernel with noise."""
    parts: list[Part] = []
    uses = data(*values).uses
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        for part in value.parts:
            beside_kernel = all(
                (other.parts or not other.data) and all(p.kernel for p in other.parts)
                for other in others
            )
            met = _met(reader, part, "added", others)
            lacks = any(
                dim and all(atom.axis == BROADCAST for atom in dim) for dim in part.dims
            )
            if met.kernel and not lacks and (not part.met or beside_kernel):
                parts.append(met)
            else:
                uses |= reader.settle(met)
    return Value(True, merged(parts), uses, _same(values))


@rule("select_n")
def _select(reader: Reader, eqn: Any, values: Values) -> Value:
    """A mask is like a factor of 0 or 1; other data than a mask is mixed in."""
    chooser, *cases = _spread(eqn, values)
    chooser = dataclasses.replace(chooser, parts=())
    if not chooser.data and not any(case.data for case in cases):
        return Value(parts=merged(p for case in cases for p in case.parts))
    if any(case.data and not case.parts for case in cases):
        return data(chooser, *(settled(reader, case, "joined") for case in cases))
    parts = [
        _met(reader, part, "multiplied", [chooser])
        for case in cases
        for part in case.parts
    ]
    return Value(True, merged(parts), data(*values).uses, _same([chooser]))


# Reduced and contracted.


@rule("reduce_sum")
def _reduce_sum(reader: Reader, eqn: Any, values: Values) -> Value:
    (value,), axes = values, eqn.params["axes"]
    if not value.data:
        return value.map(lambda part: _statistic(part, axes))
    return _summed(reader, value, axes)


def _statistic(part: Part, axes: Iterable[int]) -> Part:
    kept = [dim for d, dim in enumerate(part.dims) if d not in set(axes)]
    reduced = bool(part.at(axes))
    return dataclasses.replace(
        part, dims=tuple(kept), statistic=part.statistic or reduced
    )


def _summed(reader: Reader, value: Value, axes: Iterable[int]) -> Value:
    """Parameters times data, summed: a contraction written by hand."""
    kept, uses = [], value.uses
    for part in value.parts:
        contracted = part.at(axes)
        if not contracted:
            kept.append(_without(part, axes))
        elif part.met == "multiplied":
            uses |= reader.contract(part, contracted, (), "sum")
        else:
            uses |= reader.settle(part)
    return Value(True, merged(kept), uses)


@rule(
    *("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
    *("reduce_xor", "reduce_window_sum", "reduce_window_max", "reduce_window_min"),
)
def _reduce(reader: Reader, eqn: Any, values: Values) -> Value:
    (value,) = values
    if not value.data:
        return value.map(lambda part: _statistic(part, eqn.params["axes"]))
    return settled(reader, value)


@rule("dot_general")
def _dot_general(reader: Reader, eqn: Any, values: Values) -> Value:
    contracted, batch = eqn.params["dimension_numbers"]
    return _product(reader, eqn, values, contracted, batch)


def _product(
    reader: Reader, eqn: Any, values: Values, contracted: Any, batch: Any
) -> Value:
    values = _as_inputs(reader, values, contracted, batch)
    if not any(value.data for value in values):
        return _among_parameters(reader, eqn, values, contracted, batch)
    if any(value.parts for value in values):
        return _with_the_data(reader, eqn, values, contracted, batch)
    return data(*values)


def _as_inputs(
    reader: Reader, values: Values, contracted: Any, batch: Any
) -> list[Value]:
    """Settles the parts that go into a product as its input, not as its kernel.

    A row of a table, or data that was scaled or shifted, is an input if the other
    operand is a parameter; a scale or a shift always is. A chosen expert, or a kernel
    scaled by data, is a kernel if the other operand is data. Of two it is the one that
    has outputs.
    """
    results = list(values)
    for i, other in ((0, 1), (1, 0)):
        value = results[i]
        if not (value.data and value.parts):
            continue
        rival = results[other]
        if rival.parts and not rival.data:
            results[i] = settled(reader, value)
            continue
        used = {*contracted[i], *batch[i]}
        kept, uses = [], value.uses
        for part in value.parts:
            outputs = part.at(d for d in range(len(part.dims)) if d not in used)
            if part.kernel and (outputs or not rival.parts):
                kept.append(part)
            else:
                uses |= reader.settle(part)
        results[i] = dataclasses.replace(value, parts=tuple(kept), uses=uses)
    return results


def _layout(part: Part, i: int, eqn: Any, contracted: Any, batch: Any) -> Iterator[Dim]:
    """Yields the dimensions of operand `i`'s part in a product's result."""
    ranks = [len(s) for s in shapes(eqn)[:2]]
    free = [
        [d for d in range(rank) if d not in (*contracted[k], *batch[k])]
        for k, rank in enumerate(ranks)
    ]
    yield from (part.dims[d] for d in batch[i])
    for k in (0, 1):
        for d in free[k]:
            yield part.dims[d] if k == i else repeated(shapes(eqn)[k][d])


def _among_parameters(
    reader: Reader, eqn: Any, values: Values, contracted: Any, batch: Any
) -> Value:
    """A product of parameters with a constant, or with other parameters."""
    parts = []
    for i, value in enumerate(values):
        others = values[1 - i].parts
        leaves = frozenset(part.leaf for part in others)
        for part in value.parts:
            axes = part.at(contracted[i])
            dims = tuple(_layout(part, i, eqn, contracted, batch))
            if not others:
                fixed = part.fixed + axes
                parts.append(dataclasses.replace(part, dims=dims, fixed=fixed))
            elif part.leaf in leaves or part.statistic:
                parts.append(dataclasses.replace(part, dims=dims, statistic=True))
            else:
                whole = [p for p in others if not p.statistic]
                inner = part.inner + axes if whole else part.inner
                partners = part.partners | leaves if inner else part.partners
                parts.append(
                    dataclasses.replace(part, dims=dims, inner=inner, partners=partners)
                )
    return Value(parts=merged(parts), uses=data(*values).uses)


def _with_the_data(
    reader: Reader, eqn: Any, values: Values, contracted: Any, batch: Any
) -> Value:
    """A product of parameters with the data."""
    uses = data(*values).uses
    kind = eqn.primitive.name
    waiting: list[Part] = []
    for i, value in enumerate(values):
        other = values[1 - i]
        for part in value.parts:
            axes = part.at(contracted[i])
            dims = tuple(_layout(part, i, eqn, contracted, batch))
            if other.one_hot and axes and not part.met:
                row = dataclasses.replace(part, dims=dims, stacked=part.stacked + axes)
                waiting.append(_by_data(reader, row))
            elif any(p.at(contracted[i]) for p in value.parts):
                kernel = _is_kernel(part, value.parts, axes, contracted[i])
                if kernel:
                    uses |= reader.contract(part, axes, part.at(batch[i]), kind)
                else:
                    uses |= reader.settle(part, "multiplied")
            else:
                met = _met(reader, part, "multiplied", [other])
                own = part.at(d for d in range(len(part.dims)) if d not in batch[i])
                waiting.append(dataclasses.replace(met, dims=dims, kernel=bool(own)))
    return Value(True, merged(waiting), uses)


def _is_kernel(part: Part, parts: Iterable[Part], axes: Dim, contracted: Any) -> bool:
    """Tells a kernel from what scales its inputs or its outputs."""
    if part.inner or part.fixed:
        return True
    if not axes or (_short(axes) and not all(_short(p.at(contracted)) for p in parts)):
        return False

    def outputs(p: Part) -> bool:
        return bool(p.at(d for d in range(len(p.dims)) if d not in contracted))

    return outputs(part) or not any(outputs(p) for p in parts)


def _short(dim: Dim) -> bool:
    return all(atom.size == 1 for atom in dim)


@rule("ragged_dot_general")
def _ragged_dot_general(reader: Reader, eqn: Any, values: Values) -> Value:
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    contracted, batch = numbers.dot_dimension_numbers
    groups = numbers.rhs_group_dimensions
    inputs, kernel, sizes = values
    if inputs.parts and not inputs.data:
        raise UnreadableError  # parameters as inputs: their groups are not followed
    inputs = settled(reader, inputs)
    uses = data(inputs, kernel, sizes).uses
    for part in kernel.parts:
        axes, stacked = part.at(contracted[1]), part.at([*batch[1], *groups])
        uses |= reader.contract(part, axes, stacked, "ragged_dot_general")
    return data(uses=uses)


@rule("conv_general_dilated")
def _conv_general_dilated(reader: Reader, eqn: Any, values: Values) -> Value:
    images, kernel = values
    _, inputs, *window = eqn.params["dimension_numbers"].rhs_spec
    if not images.data:
        if not kernel.parts and not images.parts:
            return data(kernel) if kernel.data else CONSTANT
        raise UnreadableError  # parameters or constants as images
    images = settled(reader, images)
    axes = [inputs, *window]
    uses = data(images, kernel).uses
    for part in kernel.parts:
        if _is_kernel(part, kernel.parts, part.at(axes), axes):
            kind = "conv_general_dilated"
            uses |= reader.contract(part, part.at(axes), (), kind)
        else:
            uses |= reader.settle(part, "multiplied")
    return data(uses=uses)


# Programs within the program.


@rule("stop_gradient")
def _stop_gradient(reader: Reader, eqn: Any, values: Values) -> Value:
    value = values[0]
    return dataclasses.replace(value, parts=(), uses=value.uses)


@rule("cond")
def _cond(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    index, *operands = values
    live = reader.liveness(eqn)
    branches = [reader.walk(b, operands, live) for b in eqn.params["branches"]]
    results = [joined(reader, same) for same in zip(*branches, strict=True)]
    if not index.data:
        return results
    return [
        _chosen(reader, result, index, len(shape(var)))
        for result, var in zip(results, eqn.outvars, strict=True)
    ]


def _chosen(reader: Reader, value: Value, index: Value, rank: int) -> Value:
    """Returns what data has chosen among kernels: a kernel still."""
    choice = dataclasses.replace(index, parts=(), same=frozenset(range(rank)))
    return dataclasses.replace(
        value.map(lambda part: _met(reader, part, "multiplied", [choice])),
        data=True,
        uses=data(value, index).uses,
    )


@rule("while")
def _while(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    before, count = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    consts, carry = values[before : before + count], values[before + count :]
    body = eqn.params["body_jaxpr"]
    carry = _steady(reader, body, consts, carry, [])
    results = reader.walk(body, [*consts, *carry], _all(reader, eqn))
    return [joined(reader, pair) for pair in zip(carry, results, strict=True)]


@rule("scan")
def _scan(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    body = eqn.params["jaxpr"]
    inner = getattr(body, "jaxpr", body)
    # Outside, what is scanned over has one axis more than inside.
    xs = sum(
        len(shape(outer)) != len(shape(var))
        for outer, var in zip(eqn.invars, inner.invars, strict=True)
    )
    ys = sum(
        len(shape(outer)) != len(shape(var))
        for outer, var in zip(eqn.outvars, inner.outvars, strict=True)
    )
    carried = len(eqn.outvars) - ys
    fixed = len(values) - carried - xs
    consts, carry = list(values[:fixed]), list(values[fixed : fixed + carried])
    scanned = [
        v.map(lambda part: _without(part, [0])) for v in values[fixed + carried :]
    ]
    carry = _steady(reader, body, consts, carry, scanned)
    results = reader.walk(body, [*consts, *carry, *scanned], _all(reader, eqn))
    after = [joined(reader, p) for p in zip(carry, results[:carried], strict=True)]
    stacks = [
        _stacked_again(value, shape(var)[0])
        for value, var in zip(results[carried:], eqn.outvars[carried:], strict=True)
    ]
    return [*after, *stacks]


def _stacked_again(value: Value, length: int) -> Value:
    """Returns what a scan has put in a row; a layer's axis is the last that fell."""

    def stack(part: Part) -> Part:
        layers = part.stacked[-1:]
        if not layers or layers[0].size != length:
            return part.with_dims([repeated(length), *part.dims])
        dims, others = (layers, *part.dims), part.stacked[:-1]
        return dataclasses.replace(part, dims=dims, stacked=others)

    return value.map(stack)


def _all(reader: Reader, eqn: Any) -> list[int]:
    """What a loop's next turn needs is needed as much as its results."""
    return [max(reader.liveness(eqn), default=0)] * len(eqn.outvars)


def _steady(
    reader: Reader, body: Any, consts: Values, carry: Values, scanned: Values
) -> list[Value]:
    """Returns what is true of a loop's carry in each of its turns."""
    carry = list(carry)
    with reader.rehearsal():
        for _ in range(8):
            after = reader.walk(body, [*consts, *carry, *scanned], [])[: len(carry)]
            joint = [joined(reader, p) for p in zip(carry, after, strict=True)]
            if joint == carry:
                return carry
            carry = joint
    raise UnreadableError
