"""Rules for arrays that are moved about: each axis ends somewhere else."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from optax_gc._parts import (
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
    spread,
    transposed,
)
from optax_gc._rules.base import (
    Reader,
    Values,
    data,
    rule,
    settled,
    shape,
    shapes,
    with_data,
    without,
)


@rule("transpose")
def _transpose(reader: Reader, eqn: Any, values: Values) -> Value:
    return transposed(values[0], eqn.params["permutation"])


@rule("reshape", "expand_dims")
def _reshape(reader: Reader, eqn: Any, values: Values) -> Value:
    (value,), old, new = values, shape(eqn.invars[0]), shape(eqn.outvars[0])
    order = eqn.params.get("dimensions")
    if eqn.primitive.name == "reshape" and order is not None:
        value, old = transposed(value, order), tuple(old[d] for d in order)
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
    return values[0].map(lambda part: without(part, dropped), same)


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


@rule(
    *("optimization_barrier", "sharding_constraint", "pvary", "pcast", "copy"),
    *("copy_p", "device_put"),
)
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
    def take_one(part: Part) -> Part:
        one = without(part, [axis])
        atoms = (atom._replace(size=1, entries=1) for atom in part.at([axis]))
        return dataclasses.replace(one, stacked=(*part.stacked, *atoms))

    axis = eqn.params["axis"]
    return [values[0].map(take_one)] * len(eqn.outvars)


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

    return with_data(values[0].map(pad), values[1:])


@rule("tile")
def _tile(reader: Reader, eqn: Any, values: Values) -> Value:
    (old,), new = shapes(eqn), shape(eqn.outvars[0])

    def tile(part: Part) -> Part:
        return part.with_dims(
            dim if n == m else (*repeated(m // n), *dim)
            for dim, n, m in zip(part.dims, old, new, strict=True)
        )

    return values[0].map(tile)
