"""Rules for sums and products, where a parameter is contracted with the data."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from optax_gc._parts import (
    CONSTANT,
    Dim,
    Part,
    UnreadableError,
    Value,
    merged,
    repeated,
)
from optax_gc._rules.base import (
    Reader,
    Values,
    by_data,
    data,
    met,
    rule,
    settled,
    shapes,
    without,
)


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
            kept.append(without(part, axes))
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
            row = part.met == "looked up" and not rival.data
            if part.kernel and not row and (outputs or not rival.parts):
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
                if axes and part.fixed:  # interpolated between, along two axes
                    raise UnreadableError
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
                waiting.append(by_data(reader, row))
            elif any(p.at(contracted[i]) for p in value.parts):
                kernel = _is_kernel(part, value.parts, axes, contracted[i])
                if kernel:
                    uses |= reader.contract(part, axes, part.at(batch[i]), kind)
                else:
                    uses |= reader.settle(part, "multiplied")
            else:
                scale = met(reader, part, "multiplied", [other])
                own = part.at(d for d in range(len(part.dims)) if d not in batch[i])
                waiting.append(dataclasses.replace(scale, dims=dims, kernel=bool(own)))
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
