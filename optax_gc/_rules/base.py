"""What all rules share: how they are found, and what the walk offers them."""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from optax_gc._parts import (
    Dim,
    Part,
    Product,
    Shape,
    Value,
    merged,
    repeated,
    spread,
)

Values: TypeAlias = Sequence[Value]


class Reader(Protocol):
    """What the walk over the program offers to a rule."""

    origin: int  # the number of the equation in hand
    leaves: Sequence[Shape]
    pieces: int  # the uses (a bit each) of pieces of a leaf
    unchanged: set[int]  # keys of what is the same in each turn of a loop
    cells: list[Value]  # what is in the mutable arrays

    def settle(self, part: Part, how: str = "") -> int:
        """Notes how a part was used, by default how it met the data."""

    def contract(
        self, part: Part, contracted: Dim, batch: Dim, kind: str, by: Value, key: int
    ) -> int:
        """Notes that a part was contracted with the data `by` over some axes.

        The `key` tells the data of one equation from that of another; 0 if not known.
        """

    def learn(self, part: Part, kernel: bool | None) -> int:
        """Notes what a factor of a product of parameters is: kernel, input, or None."""

    def join(self, bits: int) -> None:
        """Notes that one contraction was over these pieces together."""

    def widen(self, bits: int, atoms: Dim, by_hand: bool) -> None:
        """Notes that what was contracted was then summed over these axes too.

        Whole axes, as of experts, only if the sum is a contraction `by_hand` as well.
        """

    def mix(self, product: Product, over: Dim, left: Dim | None, chosen: bool) -> None:
        """Notes that what a kernel made was then contracted with other data.

        It was `over` some of the kernel's outputs, and some are `left`; None if it was
        the kernel of a convolution, which it is without outputs, too.
        """

    def contractions_of(self, leaf: int) -> int:
        """Returns the uses (a bit each) of a leaf as a kernel."""

    def link(self, some: int, others: int) -> None:
        """Notes that pieces of leaves were added up."""

    def walk(self, jaxpr: Any, values: Values, live: Sequence[int]) -> list[Value]:
        """Reads a program within the program."""

    def rehearsal(self) -> AbstractContextManager[None]:
        """Lets programs be read without noting the uses in them."""

    def loop(self, given: Values) -> AbstractContextManager[None]:
        """Reads an inner loop, which gets these values before its first turn."""

    def liveness(self, eqn: Any) -> list[int]:
        """Tells which results of an equation are needed."""


Rule: TypeAlias = Callable[[Reader, Any, Values], Value | list[Value]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers the rule for the primitives called `names`."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def shape(var: Any) -> Shape:
    """Returns the shape of a variable of a jaxpr."""
    return tuple(var.aval.shape)


def is_long(var: Any) -> bool:
    """Tells whether a variable is more than one number."""
    return any(n > 1 for n in getattr(var.aval, "shape", ()))


def shapes(eqn: Any) -> list[Shape]:
    """Returns the shapes of an equation's operands."""
    return [shape(var) for var in eqn.invars]


def data(*values: Value, uses: int = 0, terms: int = 0) -> Value:
    """Returns data that was computed from `values`."""
    for value in values:
        uses |= value.uses
    return Value(data=True, uses=uses, terms=terms)


def settled(reader: Reader, value: Value, how: str = "") -> Value:
    """Returns `value` as plain data, after noting the uses of its parameters."""
    uses = value.uses
    for part in value.parts:
        uses |= reader.settle(part, how)
    return value._replace(data=True, parts=(), uses=uses)


def joined(reader: Reader, values: Values) -> Value:
    """Returns what is true of an array that may be any of `values`."""
    first, *others = values
    if all(value == first for value in others):
        return first
    if any(value.data for value in values):
        return _mixed(reader, values)
    uses = 0
    for value in values:
        uses |= value.uses
    return Value(parts=merged(p for value in values for p in value.parts), uses=uses)


def _mixed(reader: Reader, values: Values) -> Value:
    """Returns data that may be any of `values`: a kernel if it is one in each.

    So a carry that begins as a kernel, and has data added in each turn, is a kernel.
    """
    changed = [(part, v.data) for v in values for part in v.parts if part.kernel]
    kept = []
    for part, is_data in changed:
        alike = [{p.leaf: p.dims for p in v.parts}.get(part.leaf) for v in values]
        if is_data and all(dims == part.dims for dims in alike):
            kept.append(part._replace(origin=0, scaled_by=0))
    leaves = {part.leaf for part in kept}
    uses = 0
    for value in values:
        uses |= value.uses
        for part in value.parts:
            if part.leaf not in leaves:
                uses |= reader.settle(part, "mixed")
    terms = functools.reduce(operator.or_, (value.terms for value in values))
    past = functools.reduce(operator.or_, (value.past for value in values))
    return Value(True, merged(kept), uses, terms=terms, past=past)


def nowhere(part: Part, shape: Shape, primitive: str) -> Part:
    """Returns a part in an array in which it cannot be followed."""
    dims = tuple(repeated(n) for n in shape)
    return Part(part.leaf, dims, unread=part.unread or primitive)


def unfollowed(part: Part, primitive: str) -> Part:
    """Returns a part of the same array that cannot be followed any further."""
    sizes = tuple(math.prod(atom.size for atom in dim) for dim in part.dims)
    return nowhere(part, sizes, primitive)


def without(part: Part, dropped: Iterable[int]) -> Part:
    """Returns a part of which one index was taken along the dimensions `dropped`."""
    kept = [dim for d, dim in enumerate(part.dims) if d not in set(dropped)]
    return part.with_dims(kept, part.at(dropped))


def with_data(value: Value, indices: Values) -> Value:
    """Returns `value`, as data if one of `indices` is."""
    if not any(index.data for index in indices):
        return value
    return value._replace(data=True, uses=data(value, *indices).uses)


def by_data(reader: Reader, part: Part) -> Part:
    """Returns a part from which data has chosen: still an expert, or a row."""
    if part.met:
        return part
    return part._replace(met="looked up", origin=reader.origin)


def spread_out(eqn: Any, values: Values) -> list[Value]:
    """Returns the operands in the result's shape, with scalars and 1s repeated."""
    new = shape(eqn.outvars[0])
    return [
        spread(value, old, new, range(len(new) - len(old), len(new)))
        for value, old in zip(values, shapes(eqn), strict=True)
    ]


def known_same(values: Values) -> frozenset[int]:
    """Returns the dimensions along which all data among `values` is constant."""
    known = [value.same for value in values if value.data]
    return frozenset.intersection(*known) if known else frozenset()


def met(reader: Reader, part: Part, how: str, others: Values) -> Part:
    """Returns a part that has met the data `others`, if they are data."""
    if not any(other.data for other in others):
        return part
    kernel = part.kernel and _stays_kernel(part, known_same(others))
    scaled_by = part.scaled_by
    if how != "added":
        scaled_by |= data(*others).uses
    if part.met:
        return part._replace(kernel=kernel, scaled_by=scaled_by)
    return part._replace(
        met=how, kernel=kernel, scaled_by=scaled_by, origin=reader.origin
    )


def _stays_kernel(part: Part, same: frozenset[int]) -> bool:
    """Tells whether data that is constant along `same` modulates a kernel.

    It does if it is constant along one of the kernel's axes, or if it has no axis that
    the kernel lacks. A scale of the data is repeated along the batch, and has no axis
    of its own.
    """
    own = [any(not atom.repeats for atom in dim) for dim in part.dims]
    lacks = any(
        dim and not mine and d not in same
        for d, (dim, mine) in enumerate(zip(part.dims, own, strict=True))
    )
    return not lacks or any(mine and d in same for d, mine in enumerate(own))
