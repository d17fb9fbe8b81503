"""Rules for look-ups: what is chosen by an index, constant or data."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from optax_gc._parts import (
    Part,
    UnreadableError,
    Value,
    repeated,
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
)


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

    if any(indices[d].data for d in chosen):
        table = _looked_up(reader, table, chosen, indices)
    return table.map(take)


def _looked_up(
    reader: Reader, value: Value, chosen: Iterable[int], indices: Values
) -> Value:
    """Returns a table that data chooses from along some dimensions.

    A part that has no axis there is a kernel that the rows went through, or a scale.
    """
    uses, parts = data(value, *indices).uses, []
    for part in value.parts:
        if part.met or part.at(chosen):
            parts.append(by_data(reader, part))
        else:
            uses |= reader.settle(dataclasses.replace(part, adapter=True), "multiplied")
    return dataclasses.replace(value, parts=tuple(parts), data=True, uses=uses)


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
    if index.data:
        table = _looked_up(reader, table, numbers.start_index_map, [index])
    return table.map(take)


@rule("dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "scatter-mul")
def _update(reader: Reader, eqn: Any, values: Values) -> Value:
    if any(value.data for value in values):
        return data(*(settled(reader, value, "joined") for value in values))
    if any(value.parts for value in values[1:]):
        raise UnreadableError
    return values[0]
