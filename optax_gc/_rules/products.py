"""Rules for sums and products, where a parameter is contracted with the data."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from optax_gc._parts import (
    CONSTANT,
    SEVERAL,
    Dim,
    Part,
    Product,
    Shape,
    UnreadableError,
    Value,
    image_of,
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
    shape,
    shapes,
    without,
)


@rule("reduce_sum")
def _reduce_sum(reader: Reader, eqn: Any, values: Values) -> Value:
    total = reduced(reader, values[0], eqn.params["axes"])
    return total._replace(total_of=id(eqn.invars[0]))


def reduced(reader: Reader, value: Value, axes: Iterable[int]) -> Value:
    """Returns the sum of an array over some of its dimensions."""
    if not value.data:
        return value.map(lambda part: _statistic(part, axes))
    return _summed(reader, value, axes)


def _statistic(part: Part, axes: Iterable[int]) -> Part:
    kept = [dim for d, dim in enumerate(part.dims) if d not in set(axes)]
    determinant = bool(part.unread) and not any(kept)
    reduced = determinant or bool(part.at(axes))
    return part._replace(dims=tuple(kept), statistic=part.statistic or reduced)


def _summed(reader: Reader, value: Value, axes: Iterable[int]) -> Value:
    """Parameters times data, summed: a contraction written by hand.

    If there is a kernel among the summed parts, the others are scales of the data.
    """
    kept, uses, pieces = [], value.uses, 0
    made = value.map(lambda part: without(part, axes)).products
    kernels = [] if _is_pooled(value, axes) else _kernels_by_hand(value, axes)
    for product in value.products:
        reader.widen(product.uses, product.part.at(axes), bool(kernels))
    for part in value.parts:
        contracted = part.at(axes)
        if not contracted:
            kept.append(without(part, axes))
        elif part in kernels:
            rest = [d for d in range(len(part.dims)) if d not in (*axes, *value.same)]
            images = tuple(atom for atom in part.at(rest) if atom.mixes)
            bits = reader.contract(part, contracted, images, "sum", CONSTANT, 0)
            uses |= bits
            pieces |= bits & reader.pieces
            made += (Product(bits, without(part, axes)),)
        else:
            uses |= reader.settle(part)
    reader.join(pieces)
    return Value(True, merged(kept), uses, terms=pieces, products=made)


def _is_pooled(value: Value, axes: Iterable[int]) -> bool:
    """Tells a loss, which also adds up all examples, from a contraction by hand."""
    return any(
        set(axes) == set(range(len(part.dims)))
        and any(dim and not part.owns(d) for d, dim in enumerate(part.dims))
        for part in value.parts
    )


def _kernels_by_hand(value: Value, axes: Iterable[int]) -> list[Part]:
    """Returns which parts are kernels in a sum of products that is written by hand.

    A part with fewer axes than another is a scale of that one, or of the data.
    """
    factors = [p for p in value.parts if p.met == "multiplied" and p.at(axes)]
    factors = [p for p in factors if not p.scale]
    factors = [p for p in factors if p.kernel] or factors
    most = max((part.owned for part in factors), default=0)
    return [part for part in factors if part.owned == most]


@rule(*("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"))
@rule("reduce_xor", "argsort", "sort", "top_k")
def _reduce(reader: Reader, eqn: Any, values: Values) -> Value | list[Value]:
    axes = eqn.params.get("axes")
    if axes is None or len(values) != 1:
        if any(value.data for value in values):
            found = data(*(settled(reader, value, "elementwise") for value in values))
            return [found] * len(eqn.outvars)
        raise UnreadableError
    (value,) = values
    if not value.data:
        return value.map(lambda part: _statistic(part, axes))
    return data(settled(reader, value))


@rule("reduce_window_sum", "reduce_window_max", "reduce_window_min", "fft")
def _windows(reader: Reader, eqn: Any, values: Values) -> Value:
    """Sums over windows and transforms: each entry is made of a whole axis."""
    value, new = values[0], shape(eqn.outvars[0])
    if value.data:
        return data(settled(reader, value, "elementwise"))
    kind, changed = "map", list(range(len(new)))
    if eqn.primitive.name == "fft":
        kind, changed = "spectrum", changed[-len(eqn.params["fft_lengths"]) :]
    else:
        window = eqn.params["window_dimensions"]
        changed = [d for d in changed if window[d] > 1]

    def mix(part: Part) -> Part:
        atoms = part.at(changed)
        return part.with_dims(
            image_of(atoms if len(changed) > 1 else part.at([d]), new[d], kind)
            if d in changed
            else dim
            for d, dim in enumerate(part.dims)
        )

    return value.map(mix)


@rule("dot_general")
def _dot_general(reader: Reader, eqn: Any, values: Values) -> Value:
    contracted, batch = eqn.params["dimension_numbers"]
    values = _as_inputs(reader, eqn, values, contracted, batch)
    if not any(value.data for value in values):
        return _among_parameters(eqn, values, contracted, batch)
    _mix(reader, eqn, values, contracted, batch)
    if any(value.parts for value in values):
        return _with_the_data(reader, eqn, values, contracted, batch)
    weights = all(value.weights or value.one_hot for value in values)
    return data(*values)._replace(weights=weights)


def _mix(reader: Reader, eqn: Any, values: Values, contracted: Any, batch: Any) -> None:
    """Notes the products of kernels that are contracted with other data in turn."""
    for i, other in enumerate(reversed(values)):
        free = _free(eqn, i, contracted, batch)
        for product in values[i].products:
            part = product.part
            alone = not _free(eqn, 1 - i, contracted, batch)  # else keys of attention
            if other.data and alone and all(map(part.owns, contracted[i])):
                over, left = part.at(contracted[i]), part.at(free)
                reader.mix(product, over, left, other.weights)


def _as_inputs(
    reader: Reader, eqn: Any, values: Values, contracted: Any, batch: Any
) -> list[Value]:
    """Settles the parts that go into a product as its input, not as its kernel.

    A row of a table, or data that was scaled or shifted, is an input if the other
    operand is a parameter; a scale or a shift always is. A chosen expert, or a kernel
    scaled by data, is a kernel if the other operand is data. Of two such operands, the
    one with outputs is the kernel. A scale that a constant sums over may be either.
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
        summed = [] if rival.data else _kernels_by_hand(value, contracted[i])
        given = len(shapes(eqn)[other]) > len(contracted[other]) + len(batch[other])
        kept, uses = [], value.uses
        for part in value.parts:
            outputs = part.at(d for d in range(len(part.dims)) if d not in used)
            row = part.met == "looked up" and not rival.data
            kernel = part.kernel or (
                rival.data and _of_an_example(part, contracted[i], used, given)
            )
            if kernel and not row and (outputs or not rival.parts):
                kept.append(part)
                continue
            uses |= reader.settle(part)
            if part in summed and outputs:
                uses |= reader.contract(
                    part, part.at(contracted[i]), (), eqn.primitive.name, CONSTANT, 0
                )
        results[i] = value._replace(parts=tuple(kept), uses=uses)
    return results


def _of_an_example(
    part: Part, contracted: Iterable[int], used: set[int], given: bool
) -> bool:
    """Tells a kernel of which each example has its own copy from a shift or a scale.

    It is contracted along one axis and has outputs along another. So are positions, if
    queries are compared with keys; then the features come last, and there are several
    queries (`given`).
    """
    outputs = [d for d in range(len(part.dims)) if d not in used and part.at([d])]
    inputs = [d for d in contracted if not _short(part.at([d]))]
    if not outputs or not inputs:
        return False
    return not given or max(inputs) < min(outputs)


def _layout(part: Part, i: int, eqn: Any, contracted: Any, batch: Any) -> Iterator[Dim]:
    """Yields the dimensions of operand `i`'s part in a product's result."""
    yield from (part.dims[d] for d in batch[i])
    for k in (0, 1):
        for d in _free(eqn, k, contracted, batch):
            yield part.dims[d] if k == i else repeated(shapes(eqn)[k][d])


def _free(eqn: Any, k: int, contracted: Any, batch: Any) -> list[int]:
    used = {*contracted[k], *batch[k]}
    return [d for d in range(len(shapes(eqn)[k])) if d not in used]


def _among_parameters(eqn: Any, values: Values, contracted: Any, batch: Any) -> Value:
    """A product of parameters with a constant, or with other parameters."""
    parts = []
    for i, value in enumerate(values):
        others = values[1 - i].parts
        leaves = frozenset(part.leaf for part in others)
        for part in value.parts:
            axes = part.at(contracted[i])
            dims = tuple(_layout(part, i, eqn, contracted, batch))
            if not others:
                parts.append(_mapped(part, i, eqn, contracted, batch))
            elif part.leaf in leaves or part.statistic:
                parts.append(part._replace(dims=dims, statistic=True))
            else:
                whole = [p for p in others if not p.statistic]
                inner = part.inner + axes if whole else part.inner
                partners = part.partners | leaves if whole else part.partners
                parts.append(part._replace(dims=dims, inner=inner, partners=partners))
    full = not parts and len(shape(eqn.outvars[0])) > 1
    return Value(parts=merged(parts), uses=data(*values).uses, full=full)


def _mapped(part: Part, i: int, eqn: Any, contracted: Any, batch: Any) -> Part:
    """Returns a part after a product with a constant, where its axes have images."""
    axes = part.at(contracted[i])
    dims = list(_layout(part, i, eqn, contracted, batch))
    constant, free = 1 - i, _free(eqn, 1 - i, contracted, batch)
    sizes = shapes(eqn)[constant]
    long = [d for d in free if sizes[d] > 1]
    if not axes:
        return part.with_dims(dims)
    if not long:
        return part._replace(dims=tuple(dims), fixed=part.fixed + axes)
    first = len(batch[i]) + (
        0 if constant == 0 else len(_free(eqn, 0, contracted, batch))
    )
    kind = _stands_like(sizes, contracted[constant], long)
    for place, d in enumerate(free, first):
        if d in long:
            dims[place] = image_of(axes, sizes[d], kind)
    return part.with_dims(dims)


def _stands_like(sizes: Shape, contracted: Iterable[int], free: Iterable[int]) -> str:
    """Tells a constant in the place of inputs, a row per example, from a map."""
    contracted, free = list(contracted), list(free)
    if max(free) > min(contracted):
        return "map"
    alike = math.prod(sizes[d] for d in free) == math.prod(sizes[d] for d in contracted)
    return "either" if alike else "rows"


def _with_the_data(
    reader: Reader, eqn: Any, values: Values, contracted: Any, batch: Any
) -> Value:
    """A product of parameters with the data."""
    uses, pieces = data(*values).uses, 0
    kind = eqn.primitive.name
    waiting: list[Part] = []
    made: list[Product] = []
    for i, value in enumerate(values):
        other, key = values[1 - i], id(eqn.invars[1 - i])
        for part in value.parts:
            axes = part.at(contracted[i])
            dims = tuple(_layout(part, i, eqn, contracted, batch))
            if part.met == "added" and not (other.data or other.parts):
                waiting.append(_mapped(part, i, eqn, contracted, batch))
            elif other.one_hot not in (0, SEVERAL) and axes and not part.met:
                row = part._replace(dims=dims, stacked=part.stacked + axes)
                waiting.append(by_data(reader, row))
            elif any(p.at(contracted[i]) for p in value.parts):
                if _is_kernel(part, value.parts, axes, contracted[i]):
                    shared = part.at(batch[i])
                    if other.weights:  # a use of its own, which may choose experts
                        part = part._replace(origin=reader.origin)
                    bits = reader.contract(part, axes, shared, kind, other, key)
                    pieces |= bits & reader.pieces
                    left = part._replace(dims=dims)
                    made.append(Product(bits, left, other.weights))
                else:
                    bits = reader.settle(part, "multiplied")
                uses |= bits
            else:
                scale = met(reader, part, "multiplied", [other])
                own = part.at(d for d in range(len(part.dims)) if d not in batch[i])
                waiting.append(scale._replace(dims=dims, kernel=bool(own)))
    reader.join(pieces)
    return Value(True, merged(waiting), uses, terms=pieces, products=tuple(made))


def _is_kernel(
    part: Part, parts: Iterable[Part], axes: Dim, contracted: Iterable[int]
) -> bool:
    """Tells a kernel from what scales its inputs or its outputs."""
    if part.partners or part.fixed or part.unread:
        return True
    if not axes or (_short(axes) and not all(_short(p.at(contracted)) for p in parts)):
        return False

    def outputs(p: Part) -> bool:
        return any(p.owns(d) for d in range(len(p.dims)) if d not in contracted)

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
        kind = "ragged_dot_general"
        uses |= reader.contract(part, axes, stacked, kind, inputs, 0)
    return data(uses=uses)


@rule("conv_general_dilated")
def _conv_general_dilated(reader: Reader, eqn: Any, values: Values) -> Value:
    images, kernel = values
    numbers = eqn.params["dimension_numbers"]
    _, inputs, *window = numbers.rhs_spec
    if not images.data:
        return _without_data(eqn, images, kernel)
    images = settled(reader, images)
    axes, kind, key = [inputs, *window], "conv_general_dilated", id(eqn.invars[0])
    for product in kernel.products:
        # A filter for each channel is data's own, as in dynamic convolutions.
        alone = eqn.params["feature_group_count"] > 1
        left = product.part.at(numbers.rhs_spec[:1]) if alone else None
        reader.mix(product, product.part.at(axes), left, False)
    uses, pieces = data(images, kernel).uses, 0
    for part in kernel.parts:
        if _is_kernel(part, kernel.parts, part.at(axes), axes):
            bits = reader.contract(part, part.at(axes), (), kind, images, key)
            pieces |= bits & reader.pieces
            uses |= bits
        else:
            uses |= reader.settle(part, "multiplied")
    reader.join(pieces)
    return data(uses=uses, terms=pieces)


def _without_data(eqn: Any, images: Value, kernel: Value) -> Value:
    """A convolution of parameters with a constant mixes all but the batch."""
    if kernel.data or (kernel.parts and images.parts):
        raise UnreadableError
    if not images.parts and not kernel.parts:
        return CONSTANT
    numbers, new = eqn.params["dimension_numbers"], shape(eqn.outvars[0])
    spec = numbers.lhs_spec if images.parts else numbers.rhs_spec
    kept = numbers.out_spec[0 if images.parts else 1]
    alone = eqn.params["feature_group_count"] == shapes(eqn)[0][numbers.lhs_spec[1]]

    def mix(part: Part) -> Part:
        _, *mixed = spec
        dims = [image_of(part.at(mixed), n, "map") for n in new]
        if images.parts and alone:  # a filter for each channel mixes none
            dims = [image_of(part.at(mixed[1:]), n, "map") for n in new]
            dims[numbers.out_spec[1]] = part.dims[spec[1]]
        if not images.parts:
            dims[numbers.out_spec[0]] = repeated(new[numbers.out_spec[0]])
        dims[kept] = part.dims[spec[0]]
        return part.with_dims(dims)

    return (images if images.parts else kernel).map(mix)
