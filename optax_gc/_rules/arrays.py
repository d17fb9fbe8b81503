"""Rules for operations that move arrays: each axis ends up somewhere else."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from optax_gc._parts import (
    SEVERAL,
    Part,
    Shape,
    UnreadableError,
    Value,
    fused,
    image_of,
    merged,
    padded,
    placed,
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
from optax_gc._rules.elementwise import summed
from optax_gc._rules.lookups import Places, known, taken, written
from optax_gc._rules.products import reduced


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
    ends = [[dims[d] for d in _long(dims)[-1:]] for dims in (old, new)]
    if value.one_hot and ends[0] != ends[1]:
        value = value._replace(one_hot=SEVERAL)
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
    *("copy_p", "device_put", "name", "reshard", "layout_constraint", "mesh_cast"),
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
    (old,), axis = shapes(eqn), eqn.params["axis"]
    results = []
    for i in range(len(eqn.outvars)):
        ranges = [(0, n, 1) for n in old]
        ranges[axis] = (i, i + 1, 1)
        one = _cut(values[0], old, ranges)
        results.append(one.map(lambda part: without(part, [axis])))
    return results


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
    parts: list[Part] = []
    new, before = shape(eqn.outvars[0])[axis], 0
    for value, old in zip(values, shapes(eqn), strict=True):
        size = old[axis] if len(old) == len(shape(eqn.outvars[0])) else 1
        parts += (_placed(part, axis, size, before, new) for part in value.parts)
        before += size
    return Value(parts=merged(fused(parts, axis)))


def _placed(part: Part, axis: int, size: int, before: int, new: int) -> Part:
    """Returns a part within an array that is longer along one dimension.

    A part without an axis there gets a place, and what was one index of an axis becomes
    one again.
    """
    dims = list(part.dims)
    if size == 1 < new and all(atom.repeats for atom in dims[axis]):
        part, place = placed(part)
        dims[axis] = (place._replace(size=new, start=before),)
        return part.with_dims(dims)
    dims[axis] = padded(dims[axis], size, before, new)
    return part.with_dims(dims)


@rule("pad")
def _pad(reader: Reader, eqn: Any, values: Values) -> Value:
    (old, _), new = shapes(eqn), shape(eqn.outvars[0])
    config = eqn.params["padding_config"]

    def pad(part: Part) -> Part:
        return part.with_dims(
            padded(dim, n, None if apart else before, m)
            for dim, n, (before, _, apart), m in zip(
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


@rule(*("all_gather", "all_gather_invariant", "reduce_scatter", "psum_scatter"))
@rule(*("all_to_all", "ppermute", "pbroadcast", "psum", "psum_invariant", "pmean"))
def _among_devices(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    """A shard's axes stand for the array's, whatever part of them is on a device."""
    outs = [shape(var) for var in eqn.outvars]
    where = eqn.params.get("all_gather_dimension")
    mapped = [a for a in eqn.params.get("axes", ()) if isinstance(a, int)]
    if mapped:  # over an axis of `jax.vmap`
        return [reduced(reader, value, mapped) for value in values]
    return [
        value.map(functools.partial(_regathered, new=new, where=where))
        for value, new in zip(values, outs, strict=True)
    ]


def _regathered(part: Part, new: Shape, where: int | None) -> Part:
    dims = list(part.dims)
    if where is not None and len(new) > len(dims):
        sharded = [a for dim in dims for a in dim if a.axis >= 0 and a.entries > a.size]
        atoms = tuple(atom._replace(size=new[where]) for atom in sharded[:1])
        dims.insert(where, atoms or repeated(new[where]))
    if len(dims) != len(new):
        raise UnreadableError
    return part.with_dims(
        (dim[0]._replace(size=n),) if len(dim) == 1 and dim[0].size != n else dim
        for dim, n in zip(dims, new, strict=True)
    )


@rule("new_ref", "mutable_array", "get", "swap", "addupdate", "freeze")
def _mutable(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    """A mutable array, in which what was written is found again."""
    name, value = eqn.primitive.name, values[0]
    if name in ("new_ref", "mutable_array"):
        reader.cells.append(value)
        return [Value(cell=len(reader.cells) - 1)]
    if value.cell is None:
        raise UnreadableError
    kept = reader.cells[value.cell]
    if name == "freeze":
        return [kept]
    where = _places(eqn, values)
    if name == "get":
        return [taken(kept, shape(eqn.invars[0]), where)]
    old, new = shape(eqn.invars[0]), values[1]
    whole = all(size == n for size, n in zip(where.sizes, old, strict=True))
    if not whole or where.dropped:
        new = _within(reader, new, shape(eqn.invars[1]), old, where)
    if name == "addupdate":
        new = summed(reader, [kept, new])
    elif not whole and (kept.data or kept.parts):
        new = _beside(reader, kept, new)
    reader.cells[value.cell] = new
    return [taken(kept, old, where)] * len(eqn.outvars)


def _places(eqn: Any, values: Values) -> Places:
    """Returns which places of a mutable array an equation reads or writes."""
    first = 1 if eqn.primitive.name == "get" else 2
    old = shape(eqn.invars[0])
    starts: list[int | None] = [0] * len(old)
    sizes, dropped = list(old), []
    if any(value.data for value in values[first:]):
        raise UnreadableError
    indexers = jax.tree.unflatten(eqn.params["tree"], eqn.invars[first:])
    if len(indexers) > 1:
        raise UnreadableError
    for d, index in enumerate(indexers[0].indices if indexers else ()):
        if not hasattr(index, "size"):
            starts[d], sizes[d] = known(index), 1
            dropped.append(d)
        elif (getattr(index, "stride", 1) or 1) != 1:
            raise UnreadableError
        else:
            starts[d] = index.start if isinstance(index.start, int) else None
            sizes[d] = index.size
    return Places(tuple(starts), tuple(sizes), tuple(dropped))


def _within(
    reader: Reader, value: Value, new: Shape, old: Shape, where: Places
) -> Value:
    """Returns what was written into some places of an array, as one of its shape."""
    if value.data:
        return settled(reader, value, "joined")
    kept = [d for d in range(len(old)) if d not in where.dropped]
    starts = list(where.starts)
    return value.map(lambda p: written(reader, p, old, new, kept, starts))


def _beside(reader: Reader, kept: Value, new: Value) -> Value:
    """Returns an array whose other places still hold what was there."""
    if kept.data or new.data:
        return data(*(settled(reader, value, "joined") for value in (kept, new)))
    return Value(parts=merged([*kept.parts, *new.parts]))


@rule("triangular_solve")
def _solve(reader: Reader, eqn: Any, values: Values) -> Value:
    """A solution is linear in the right-hand side, and mixes one axis of it."""
    matrix, side = values
    if matrix.parts or any(value.data for value in values):
        raise UnreadableError
    mixed = len(shape(eqn.outvars[0])) - (2 if eqn.params["left_side"] else 1)

    def mix(part: Part) -> Part:
        dims = list(part.dims)
        dims[mixed] = image_of(part.at([mixed]), shape(eqn.outvars[0])[mixed], "map")
        return part.with_dims(dims)

    return side.map(mix)
