"""What an array of a traced program is made of, and where in it are which axes.

A `Value` is data (it depends on the inputs), or constant, or made of parameters. Its
`Part`s say of every dimension which axes of which leaf it is: a dimension is a product
of `Atom`s, major first. Moving arrays about moves the atoms; the functions below do so.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

Shape: TypeAlias = tuple[int, ...]
BROADCAST = -1  # the axis of an atom along which a part repeats itself


class UnreadableError(LookupError):
    """A part that cannot be followed through an operation."""


class Atom(NamedTuple):
    """An axis of a leaf, or a piece of one, within a dimension of an array.

    Attributes:
      axis: The leaf's axis, or `BROADCAST`.
      size: The extent in the array.
      start: Where in this extent the entries of the leaf begin.
      entries: How many they are; the others are padding, or other leaves.
    """

    axis: int
    size: int
    start: int
    entries: int


Dim: TypeAlias = tuple[Atom, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """How one leaf is within an array that is made of parameters.

    Attributes:
      leaf: The leaf's number.
      dims: For each dimension of the array, the leaf's axes in it.
      stacked: Axes that were dropped one index at a time: layers, heads, experts.
      fixed: Axes that were contracted with a constant.
      inner: Axes that were contracted with another parameter, one of `partners`.
      partners: The leaves it was multiplied with so.
      adapter: Whether the product was added to a kernel, as LoRA's is.
      statistic: Whether it was reduced, to a norm for example.
      met: How it has met the data, if that is not settled yet: "multiplied", "added"
        or "looked up".
      origin: Which equation it met the data in.
      summed: Axes of which single indices, each times data, were added up.
      kernel: Whether it still is a kernel after that, rather than a scale or a shift
        of the data: the data it met has no dimension of its own, or lacks one.
      scaled_by: The uses (a bit each) that made the data it was scaled by.
    """

    leaf: int
    dims: tuple[Dim, ...]
    stacked: Dim = ()
    fixed: Dim = ()
    inner: Dim = ()
    partners: frozenset[int] = frozenset()
    adapter: bool = False
    statistic: bool = False
    met: str = ""
    origin: int = 0
    summed: Dim = ()
    kernel: bool = True
    scaled_by: int = 0

    def at(self, dimensions: Iterable[int]) -> Dim:
        """Returns the leaf's axes in these dimensions."""
        return tuple(
            atom for d in dimensions for atom in self.dims[d] if atom.axis != BROADCAST
        )

    def with_dims(self, dims: Iterable[Dim], dropped: Dim = ()) -> "Part":
        """Returns the part in another array; `dropped` axes count as stacked."""
        dims = tuple(dims)
        if dims == self.dims and not dropped:
            return self
        return dataclasses.replace(self, dims=dims, stacked=self.stacked + dropped)


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of one array of the program.

    Attributes:
      data: Whether it depends on the inputs.
      parts: The parameters in it whose use is not settled yet.
      uses: The settled uses of parameters (a bit each) that it depends on.
      same: Dimensions along which data is known to be constant.
      one_hot: Whether it is an index compared with all that it could be.
    """

    data: bool = False
    parts: tuple[Part, ...] = ()
    uses: int = 0
    same: frozenset[int] = frozenset()
    one_hot: bool = False

    def map(
        self, move: Callable[[Part], Part | None], same: frozenset[int] = frozenset()
    ) -> "Value":
        """Returns the value in another array, constant along its dimensions `same`.

        Parts for which `move` returns None are left out.
        """
        moved = (move(part) for part in self.parts)
        parts = merged(part for part in moved if part is not None)
        return dataclasses.replace(self, parts=parts, same=same)


CONSTANT = Value()


def of_leaf(leaf: int, shape: Shape) -> Value:
    """Returns the leaf itself."""
    dims = tuple((Atom(axis, n, 0, n),) for axis, n in enumerate(shape))
    return Value(parts=(Part(leaf, dims),))


def transposed(value: Value, order: Sequence[int]) -> Value:
    """Returns a value with its dimensions in another order."""
    same = frozenset(i for i, d in enumerate(order) if d in value.same)
    return value.map(lambda part: part.with_dims(part.dims[d] for d in order), same)


def repeated(size: int) -> Dim:
    """Returns a dimension along which a part repeats itself."""
    return () if size == 1 else (Atom(BROADCAST, size, 0, size),)


def merged(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Returns each part once, without the statistics of leaves that are there too."""
    parts = tuple(dict.fromkeys(parts))
    whole = {part.leaf for part in parts if not part.statistic}
    return tuple(p for p in parts if not p.statistic or p.leaf not in whole)


def spread(value: Value, old: Shape, new: Shape, where: Sequence[int]) -> Value:
    """Returns a value whose dimensions became `where` of an array, repeated in it."""
    if old == new:
        return value
    kept = {d: i for i, d in enumerate(where) if old[i] == new[d]}

    def repeat(part: Part) -> Part:
        return part.with_dims(
            part.dims[kept[d]] if d in kept else repeated(n) for d, n in enumerate(new)
        )

    vary = {d for d, i in kept.items() if i not in value.same}
    return value.map(repeat, frozenset(range(len(new))) - vary)


def some(dim: Dim, size: int) -> Dim:
    """Returns a dimension of which `size` entries are left, wherever."""
    axes = [atom.axis for atom in dim if atom.axis != BROADCAST]
    if not axes:
        return repeated(size)
    return tuple(
        Atom(axis, size if i == 0 else 1, 0, size if len(axes) == 1 else 0)
        for i, axis in enumerate(axes)
    )


def sliced(dim: Dim, size: int, start: int, stop: int, step: int = 1) -> Dim | None:
    """Returns a dimension of `size` after slicing; None where no entry is left."""
    if (start, stop, step) == (0, size, 1):
        return dim
    length = len(range(start, stop, step))
    if len(dim) != 1:  # several axes in one: which entries are left is not followed
        if any(atom.axis != BROADCAST for atom in dim):
            return some(dim, length)
        return repeated(length)
    (atom,) = dim
    if atom.axis == BROADCAST:
        return repeated(length)
    inside = range(max(start, atom.start), min(stop, atom.start + atom.entries), step)
    if not inside:
        return None
    first = max(0, atom.start - start) // step
    return (Atom(atom.axis, length, first, len(inside)),)


def reverse(dim: Dim) -> Dim:
    """Returns a dimension with its entries in reverse order."""
    return tuple(a._replace(start=a.size - a.start - a.entries) for a in dim)


def padded(dim: Dim, size: int, before: int, new: int) -> Dim:
    """Returns a dimension of `size` within one of `new`, after `before` others."""
    if size == new:
        return dim
    if len(dim) == 1:
        (atom,) = dim
        return (Atom(atom.axis, new, before + atom.start, atom.entries),)
    axes = [atom for atom in dim if atom.axis != BROADCAST]
    if not axes:
        return repeated(new)
    if len(axes) == 1:
        return (Atom(axes[0].axis, new, before, axes[0].entries),)
    raise UnreadableError


def reshaped(part: Part, new: Shape) -> Part:
    """Returns the part after a reshape, which splits and joins its atoms."""
    atoms = [atom for dim in part.dims for atom in dim if atom.size != 1]
    dims: list[Dim] = []
    for n in new:
        dim: list[Atom] = []
        while (left := n // math.prod(atom.size for atom in dim)) > 1:
            major, minor = _split(atoms.pop(0), left)
            dim.append(major)
            if minor:
                atoms.insert(0, minor)
        dims.append(tuple(dim))
    return part.with_dims(dims)


def _split(atom: Atom, size: int) -> tuple[Atom, Atom | None]:
    """Returns the major part of an atom, of at most `size`, and what is left of it."""
    if size % atom.size == 0:
        return atom, None
    axis, whole, start, count = atom
    if whole % size or (axis != BROADCAST and (start or count != whole)):
        raise UnreadableError
    rest = whole // size
    return Atom(axis, size, 0, size), Atom(axis, rest, 0, rest)


def whole_axes(atoms: Dim, shape: Shape) -> tuple[Shape, Shape]:
    """Returns the axes of a leaf that `atoms` cover wholly, and those in part."""
    covered: dict[int, int] = {}
    for atom in dict.fromkeys(atoms):
        covered[atom.axis] = covered.get(atom.axis, 1) * atom.entries
    whole = tuple(sorted(a for a, count in covered.items() if count >= shape[a]))
    return whole, tuple(sorted(covered.keys() - set(whole)))
