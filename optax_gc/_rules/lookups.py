"""Rules for look-ups by an index, which is constant or data."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from jax.extend import core

from optax_gc._parts import (
    SLOT,
    Atom,
    Dim,
    Part,
    Shape,
    Value,
    image_of,
    merged,
    padded,
    placed,
    repeated,
    sliced,
    some,
)
from optax_gc._rules.base import (
    Reader,
    Values,
    by_data,
    data,
    rule,
    settled,
    shape,
    without,
)


@rule("dynamic_slice")
def _dynamic_slice(reader: Reader, eqn: Any, values: Values) -> Value:
    table, *indices = values
    old, new = shape(eqn.invars[0]), shape(eqn.outvars[0])
    chosen = [d for d, (n, m) in enumerate(zip(old, new, strict=True)) if n != m]
    starts = [known(var) for var in eqn.invars[1:]]

    if any(indices[d].data for d in chosen):
        table = _looked_up(reader, table, chosen, indices)
    return taken(table, old, Places(tuple(starts), new))


class Places(NamedTuple):
    """A block of an array: its starts, if known, its sizes, and what is dropped."""

    starts: tuple[int | None, ...]
    sizes: Shape
    dropped: Shape = ()


def taken(value: Value, old: Shape, where: Places) -> Value:
    """Returns a block of an array."""

    def take(part: Part) -> Part | None:
        dims: list[Dim | None] = list(part.dims)
        for d, (n, m) in enumerate(zip(old, where.sizes, strict=True)):
            start = where.starts[d]
            if n != m and start is None:
                dims[d] = some(part.dims[d], m)
            elif n != m and start is not None:
                start = min(max(start, 0), n - m)
                dims[d] = sliced(part.dims[d], n, start, start + m)
        kept = [dim for dim in dims if dim is not None]
        if len(kept) < len(dims):
            return None
        return without(part.with_dims(kept), where.dropped)

    return value.map(take)


def known(var: Any) -> int | None:
    """Returns an index that is a number in the program."""
    return int(var.val) if isinstance(var, core.Literal) else None


def _looked_up(
    reader: Reader, value: Value, chosen: Iterable[int], indices: Values
) -> Value:
    """Returns a table from which data chooses along some dimensions.

    A part without an axis there is a kernel that the rows went through, or a scale.
    """
    chosen = list(chosen)
    uses, parts = data(value, *indices).uses, []
    for part in value.parts:
        if part.met or any(part.owns(d) for d in chosen):
            parts.append(by_data(reader, part))
        else:
            uses |= reader.settle(part._replace(adapter=True), "multiplied")
    return value._replace(parts=tuple(parts), data=True, uses=uses)


@rule("gather")
def _gather(reader: Reader, eqn: Any, values: Values) -> Value:
    numbers = eqn.params["dimension_numbers"]
    old, new = shape(eqn.invars[0]), shape(eqn.outvars[0])
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [d for d in range(len(old)) if d not in dropped]
    indexed = [d for d in range(len(new)) if d not in numbers.offset_dims]
    long = [d for d in indexed if new[d] != 1]

    def take(part: Part) -> Part:
        dims = [repeated(n) for n in new]
        for d, to in zip(kept, numbers.offset_dims, strict=True):
            whole = old[d] == new[to]
            dims[to] = part.dims[d] if whole else some(part.dims[d], new[to])
        if not long or values[1].data or numbers.operand_batching_dims:
            return part.with_dims(dims, part.at(sorted(dropped)))
        if len(dropped) != 1:  # single entries, such as a diagonal
            for d in long:
                dims[d] = image_of(part.at(sorted(dropped)), new[d], "entries")
            return part.with_dims(dims)
        # What is indexed by a constant may still be an axis: a permutation, a table.
        (axis,) = dropped
        for d in long:
            dims[d] = _tabled(part.dims[axis], old[axis], new[d], len(long))
        return part.with_dims(dims)

    table, index = values
    if index.data:
        table = _looked_up(reader, table, numbers.start_index_map, [index])
    return table.map(take)


def _tabled(dim: Dim, old: int, new: int, rank: int) -> Dim:
    """Returns a dimension of a constant table of indices into another."""
    if rank == 1 and new <= old:
        return dim if new == old else some(dim, new)
    return image_of((atom for atom in dim if atom.axis >= 0), new, "table")


@rule("dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "scatter-mul")
def _update(reader: Reader, eqn: Any, values: Values) -> Value:
    """What is written into an array of constants or of parameters has places there."""
    if eqn.primitive.name == "dynamic_update_slice":
        array, update, *indices = values
        shapes = [shape(var) for var in eqn.invars[:2]]
        where = list(range(len(shapes[0])))
        strewn: list[int] = []
        starts = [known(var) for var in eqn.invars[2:]]
    else:
        array, index, update = values
        indices, shapes = [index], [shape(eqn.invars[0]), shape(eqn.invars[2])]
        where, strewn = _window(eqn.params["dimension_numbers"], shapes)
        starts = [None] * len(shapes[0])
    if any(value.data for value in values):
        found = (settled(reader, value, "joined") for value in (array, update))
        return data(*found, *indices)
    parts = [
        _strewn(reader, part, shapes[0], strewn, where)
        if strewn
        else written(reader, part, shapes[0], shapes[1], where, starts)
        for part in update.parts
    ]
    return Value(parts=merged([*array.parts, *parts]), uses=data(*values).uses)


def _window(numbers: Any, shapes: list[Shape]) -> tuple[list[int], list[int]]:
    """Returns which dimensions of an array those of an update are, and the others.

    Along the update's other dimensions, each entry has a place of its own.
    """
    left_out = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [d for d in range(len(shapes[0])) if d not in left_out]
    window = numbers.update_window_dims
    return kept, [d for d in range(len(shapes[1])) if d not in window]


def _strewn(
    reader: Reader, part: Part, old: Shape, strewn: list[int], where: list[int]
) -> Part:
    """Returns a part whose entries went to places that a constant table gives.

    Single entries that were taken out of a matrix, as its diagonal, are so put back.
    """
    kept = [dim for d, dim in enumerate(part.dims) if d not in strewn]
    dims = [image_of(part.at(strewn), n, "map") for n in old]
    places = [d for d in range(len(old)) if d not in where]
    for atom in part.at(strewn):
        lengths = [reader.leaves[part.leaf][axis] for axis in atom.axes]
        if atom.image == "entries" and lengths == [old[d] for d in places]:
            for axis, d in zip(atom.axes, places, strict=True):
                dims[d] = (Atom(axis, old[d], 0, old[d]),)
    for dim, d in zip(kept, where, strict=True):
        dims[d] = dim
    return part.with_dims(dims)


def written(
    reader: Reader,
    part: Part,
    old: Shape,
    new: Shape,
    where: list[int],
    starts: list[int | None],
) -> Part:
    """Returns a part that was written into a larger array, at some place.

    This puts back a row that was taken out by its number, or by a loop's number.
    """
    dims: list[Dim] = [()] * len(old)
    single = set(range(len(old))) - set(where)
    for dim, size, d in zip(part.dims, new, where, strict=True):
        if size > 1 or old[d] == 1 or any(a.at is not None for a in dim):
            dims[d] = padded(dim, size, starts[d], old[d])
        else:
            single.add(d)
    for d in sorted(single):
        if old[d] > 1:
            part, place = placed(part)
            dims[d] = (place._replace(size=old[d], start=starts[d]),)
    stacked = list(part.stacked)
    taken_out = [*(a for dim in part.dims for a in dim), *stacked[::-1]]
    rows = [atom for atom in taken_out if _is_turn(reader, part, atom)]
    for d, dim in enumerate(dims):
        if rows and dim and dim[0].axis == SLOT and dim[0].start is None:
            length = reader.leaves[part.leaf][rows[0].axis]
            if length == old[d]:
                atom = rows.pop(0)
                dims[d] = (Atom(atom.axis, length, 0, length),)
                stacked = [a for a in stacked if a is not atom]
    return part._replace(dims=tuple(dims), stacked=tuple(stacked))


def _is_turn(reader: Reader, part: Part, atom: Atom) -> bool:
    """Tells an index that a loop's number has taken, or the loop itself."""
    if atom.axis < 0 or atom.image:
        return False
    length = reader.leaves[part.leaf][atom.axis]
    return (atom.entries == 1 and atom.at is None) or (
        atom.entries == length > 1 and atom in part.stacked
    )
