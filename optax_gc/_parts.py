"""What an array of a traced program consists of, and where each leaf's axes are in it.

A `Value` is data (it depends on the inputs), constant, or made of parameters. Its
`Part`s say, for every dimension, which axes of which leaf it is: a dimension is a
product of `Atom`s, major first. Moving an array moves the atoms; the functions below do
so.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

Shape: TypeAlias = tuple[int, ...]
BROADCAST = -1  # the axis of an atom along which a part repeats itself
SLOT = -2  # of one at a place of which a part is, as a leaf in a stack of leaves
MASKED = -3  # of one along which a part only varies by a constant it is multiplied with

SEVERAL = 2  # one-hot rows in a row: together they choose several rows, and sum them


class UnreadableError(LookupError):
    """A part that cannot be followed through an operation."""


class Atom(NamedTuple):
    """An axis of a leaf, or a piece of one, within a dimension of an array.

    A constant that is contracted with an axis leaves an image of it in its place, in
    which every entry depends on the whole axis.

    Attributes:
      axis: The leaf's axis, or `BROADCAST`, or `SLOT`.
      size: The extent in the array.
      start: Where in this extent the entries of the leaf begin; None if unknown.
      entries: How many entries there are; the others are padding, or other leaves.
      at: Which entry of the leaf's axis comes first; None if unknown.
      step: How far apart two neighbours are in the leaf's axis.
      image: What made it an image of the axis: "map" (a constant), "table" (a constant
        that chose rows), "entries" (one that chose single entries), "rows" (a constant
        in the place of inputs), "either" of map and rows, or "spectrum"; "" if it is
        none.
      others: The other axes of which it is an image.
    """

    axis: int
    size: int
    start: int | None
    entries: int
    at: int | None = 0
    step: int = 1
    image: str = ""
    others: Shape = ()

    @property
    def repeats(self) -> bool:
        """Whether the leaf's entries are the same along the whole extent."""
        return self.axis in (BROADCAST, MASKED)

    @property
    def mixes(self) -> bool:
        """Whether each entry is a sum over the axis, rather than one of its entries."""
        return self.image not in ("", "entries", "table")

    @property
    def axes(self) -> Shape:
        """The leaf's axes in it."""
        return (self.axis, *self.others) if self.axis >= 0 else ()


Dim: TypeAlias = tuple[Atom, ...]


class Part(NamedTuple):
    """How one leaf is within an array that is made of parameters.

    Attributes:
      leaf: The leaf's number.
      dims: For each dimension of the array, the leaf's axes in it.
      stacked: Axes that were dropped one index at a time: layers, heads, experts.
      fixed: Axes that were contracted with a constant and left no image.
      inner: Axes that were contracted with another parameter, one of `partners`.
      partners: The leaves with which it was multiplied in this way.
      adapter: Whether the product was added to a kernel, as in LoRA.
      statistic: Whether it was reduced, for example to a norm.
      met: How it has met the data, if that is not settled yet: "multiplied", "added"
        or "looked up".
      unread: The primitive in which it could no longer be followed, if any.
      origin: The equation in which it met the data.
      kernel: Whether it is still a kernel after that, rather than a scale or a shift of
        the data: the data that it met has no dimension of its own, or lacks one.
      scaled_by: The uses (a bit each) that made the data it was scaled by.
      scale: Whether it scales the data that another parameter was multiplied with.
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
    unread: str = ""
    origin: int = 0
    kernel: bool = True
    scaled_by: int = 0
    scale: bool = False

    @property
    def owned(self) -> int:
        """The number of dimensions along which the part varies, or has its place."""
        return sum(map(self.owns, range(len(self.dims))))

    def at(self, dimensions: Iterable[int]) -> Dim:
        """Returns the leaf's axes in these dimensions."""
        return tuple(
            atom for d in dimensions for atom in self.dims[d] if atom.axis >= 0
        )

    def owns(self, dimension: int) -> bool:
        """Tells whether the part varies, or has its place, along a dimension."""
        return any(not atom.repeats for atom in self.dims[dimension])

    def with_dims(self, dims: Iterable[Dim], dropped: Dim = ()) -> "Part":
        """Returns the part in another array; `dropped` axes count as stacked."""
        dims = tuple(dims)
        if dims == self.dims and not dropped:
            return self
        return self._replace(dims=dims, stacked=self.stacked + dropped)


class Product(NamedTuple):
    """A product of a kernel and data, of which an array is a linear function.

    Attributes:
      uses: The uses (a bit each) as which it was noted.
      part: Where the axes of the kernel that were not contracted are in the array.
      chosen: Whether the data were weights that sum to 1, such as those of experts.
    """

    uses: int
    part: Part
    chosen: bool = False


class Value(NamedTuple):
    """What is known about one array of the program.

    Attributes:
      data: Whether it depends on the inputs.
      parts: The parameters in it whose use is not settled yet.
      uses: The settled uses of parameters (a bit each) that it depends on.
      same: Dimensions along which data is known to be constant.
      one_hot: Whether it is an index compared with all its possible values, or
        `SEVERAL` of these side by side.
      terms: The uses (a bit each) of pieces of leaves of which it is the plain sum.
      past: The uses among them that were added in an earlier turn of a loop.
      products: The products of which it is a linear function.
      weights: Whether it weights things against each other: a softmax or a sigmoid.
      total_of: The variable (its key) of which it is a sum; 0 if it is not a sum.
      full: Whether it is a constant array, rather than a repeated number.
      cell: The mutable array to which it refers.
    """

    data: bool = False
    parts: tuple[Part, ...] = ()
    uses: int = 0
    same: frozenset[int] = frozenset()
    one_hot: int = 0
    terms: int = 0
    past: int = 0
    products: tuple[Product, ...] = ()
    weights: bool = False
    total_of: int = 0
    full: bool = False
    cell: int | None = None

    def map(
        self, move: Callable[[Part], Part | None], same: frozenset[int] = frozenset()
    ) -> "Value":
        """Returns the value in another array, constant along its dimensions `same`.

        Parts for which `move` returns None are left out.
        """
        if not (self.parts or self.products) and self.same == same:
            return self
        moved = (move(part) for part in self.parts)
        parts = merged(part for part in moved if part is not None)
        products = tuple(_moved(self.products, move))
        return self._replace(parts=parts, same=same, products=products)


CONSTANT = Value()


def _moved(
    products: Iterable[Product], move: Callable[[Part], Part | None]
) -> Iterator[Product]:
    for product in products:
        with contextlib.suppress(UnreadableError):
            if (part := move(product.part)) is not None:
                yield product._replace(part=part)


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
    """Returns each part once, without statistics of leaves that are present, too."""
    parts = tuple(parts)
    if len(parts) < 2:
        return parts
    parts = tuple(dict.fromkeys(parts))
    whole = {part.leaf for part in parts if not part.statistic}
    return tuple(p for p in parts if not p.statistic or p.leaf not in whole)


def fused(parts: Iterable[Part], axis: int) -> list[Part]:
    """Returns parts of an array, joining those that lie together as in their leaf."""
    found: list[Part] = []
    for part in parts:
        whole = _fused(found[-1], part, axis) if found else None
        found[-1:] = [*found[-1:], part] if whole is None else [whole]
    return found


def _fused(one: Part, two: Part, axis: int) -> Part | None:
    if one.leaf != two.leaf or len(one.dims[axis]) != 1 != len(two.dims[axis]):
        return None
    (a,), (b,) = one.dims[axis], two.dims[axis]
    if a.axis < 0 or a.image or None in (a.start, a.at):
        return None
    after = a._replace(
        start=(a.start or 0) + a.entries,
        at=(a.at or 0) + a.step * a.entries,
        entries=b.entries,
        step=b.step if b.entries == 1 else a.step,
    )
    dims = [*two.dims[:axis], one.dims[axis], *two.dims[axis + 1 :]]
    if b != after or two.with_dims(dims) != one:
        return None
    dims[axis] = (a._replace(entries=a.entries + b.entries),)
    return one.with_dims(dims)


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
    spread = value.map(repeat, frozenset(range(len(new))) - vary)
    if value.full and any(n > 1 and d not in kept for d, n in enumerate(new)):
        return spread._replace(full=False)
    return spread


def some(dim: Dim, size: int) -> Dim:
    """Returns a dimension of which `size` entries are left, at unknown places."""
    atoms = [atom for atom in dim if not atom.repeats]
    if not atoms:
        return repeated(size)
    left = size if len(atoms) == 1 else 0
    return tuple(
        atom._replace(size=1 if i else size, start=0, entries=left, at=None)
        for i, atom in enumerate(atoms)
    )


def sliced(dim: Dim, size: int, start: int, stop: int, step: int = 1) -> Dim | None:
    """Returns a dimension of `size` after slicing; None where no entry is left."""
    if (start, stop, step) == (0, size, 1):
        return dim
    length = len(range(start, stop, step))
    if all(atom.repeats for atom in dim):
        return repeated(length)
    if len(dim) > 1:
        return _sliced_in_two(dim, start, stop, step) or some(dim, length)
    if dim[0].start is None:  # which are left is not followed
        return some(dim, length)
    (atom,) = dim
    if atom.image:
        return (atom._replace(size=length, entries=length),)
    # The first entry at or after the start that the steps meet.
    ahead = dim[0].start - start
    begin = start + max(0, math.ceil(ahead / step)) * step
    inside = range(begin, min(stop, start + ahead + atom.entries), step)
    if not inside:
        return None
    skipped = begin - start - ahead
    at = None if atom.at is None else atom.at + atom.step * skipped
    first = (begin - start) // step
    return (
        atom._replace(
            size=length, start=first, entries=len(inside), at=at, step=atom.step * step
        ),
    )


def _sliced_in_two(dim: Dim, start: int, stop: int, step: int) -> Dim | None:
    """Returns a slice of several axes in one, if it is one along each of them."""
    (major, *minor), rest = dim, math.prod(atom.size for atom in dim[1:])
    (first, before), (last, after) = divmod(start, rest), divmod(stop - 1, rest)
    if step != 1 or major.start is None:
        return None
    if (before, after) == (0, rest - 1):
        inner: Dim | None = tuple(minor)
    elif first == last:
        inner = sliced(tuple(minor), rest, before, after + 1)
    else:
        return None
    outer = sliced((major,), major.size, first, last + 1)
    return None if outer is None or inner is None else (*outer, *inner)


def reverse(dim: Dim) -> Dim:
    """Returns a dimension with its entries in reverse order."""
    return tuple(_reversed(atom) for atom in dim)


def _reversed(atom: Atom) -> Atom:
    start, at = atom.start, atom.at
    start = None if start is None else atom.size - start - atom.entries
    at = None if at is None else at + atom.step * (atom.entries - 1)
    return atom._replace(start=start, at=at, step=-atom.step)


def placed(part: Part) -> tuple[Part, Atom]:
    """Returns a part that is put at a place, and what it is there.

    What was one index of an axis becomes one again.
    """
    one = part.stacked[-1] if part.stacked else None
    if one is None or one.entries != 1 or one.at is None or one.image:
        return part, Atom(SLOT, 1, 0, 1)
    return part._replace(stacked=part.stacked[:-1]), one


def padded(dim: Dim, size: int, before: int | None, new: int) -> Dim:
    """Returns a dimension of `size` within one of `new`, after `before` others."""
    if size == new:
        return dim
    atoms = [atom for atom in dim if not atom.repeats]
    if not atoms:
        return repeated(new)
    if len(atoms) > 1:
        raise UnreadableError
    (atom,) = atoms
    start = before
    if before is not None and len(dim) == 1:
        start = None if atom.start is None else before + atom.start
    return (atom._replace(size=new, start=start),)


def image_of(atoms: Iterable[Atom], size: int, kind: str) -> Dim:
    """Returns a dimension in which each entry depends on all of some axes."""
    axes = tuple(dict.fromkeys(axis for atom in atoms for axis in atom.axes))
    if not axes:
        return repeated(size)
    return (Atom(axes[0], size, 0, size, image=kind, others=axes[1:]),)


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
    if atom.size % size:
        raise UnreadableError
    rest = atom.size // size
    if atom.axis >= 0 and not atom.image and (atom.start or atom.entries != atom.size):
        raise UnreadableError
    if atom.axis == SLOT:
        raise UnreadableError
    major = atom._replace(size=size, start=0, entries=size, step=atom.step * rest)
    minor = atom._replace(size=rest, start=0, entries=rest)
    return major, minor if minor.at is None else minor._replace(at=0)


def covered(atoms: Iterable[Atom], shape: Shape) -> tuple[Shape, dict[int, int | None]]:
    """Returns the axes of a leaf that `atoms` cover wholly, and those covered in part.

    The latter come with their entries: a bit each, or None if unknown.
    """
    of_axis: dict[int, list[Atom]] = {}
    for atom in dict.fromkeys(atoms):
        for axis in atom.axes:
            of_axis.setdefault(axis, []).append(atom)
    whole, partly = [], {}
    for axis, pieces in sorted(of_axis.items()):
        count = math.prod(atom.entries for atom in pieces)
        if count >= shape[axis] or any(atom.image for atom in pieces):
            whole.append(axis)
        else:
            partly[axis] = _entries(pieces)
    return tuple(whole), partly


def _entries(pieces: Iterable[Atom]) -> int | None:
    """Returns which entries of an axis its pieces are, a bit each; None if unknown."""
    places = {0}
    for atom in pieces:
        if atom.at is None:
            return None
        steps = range(atom.at, atom.at + atom.step * atom.entries, atom.step)
        places = {place + step for place in places for step in steps}
    return sum(1 << place for place in places if place >= 0)
