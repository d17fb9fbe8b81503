"""The uses of parameters that were found in a program, and what they amount to."""

from collections.abc import Sequence
from typing import NamedTuple

from optax_gc._parts import Shape

WEAK = ("statistic", "updated", "alone")  # ways that say nothing if there are others


class Use(NamedTuple):
    """One way in which the program uses a leaf.

    Attributes:
      leaf: The leaf's number.
      how: "contracted", "looked up", "added", "multiplied", "opaque", "statistic"...
      axes: The axes that are contracted, wholly.
      partly: The axes of which only a part is contracted.
      stacked: The axes along which layers, heads or experts are stacked.
      by: The primitive.
      pieces: The entries, a bit each, of the axes that are contracted in part, or of
        which one index was taken, as far as known.
      other: The fan-in axes if, in a product of parameters, the leaf is not the kernel
        but what the kernel is applied to.
      partners: The leaves in that product; none if there is no doubt.
      origin: The equation in which the leaf met the data.
      turns: The axes of which each turn of a loop takes another index.
      unsure: Whether it is one of two readings of the same equation.
      derived: Whether it is part of a backward pass.
      dead: Whether no result depends on it with its gradient.
    """

    leaf: int
    how: str
    axes: Shape = ()
    partly: Shape = ()
    stacked: Shape = ()
    by: str = ""
    other: Shape = ()
    partners: frozenset[int] = frozenset()
    origin: int = 0
    pieces: tuple[tuple[int, int], ...] = ()
    turns: Shape = ()
    unsure: bool = False
    derived: bool = False
    dead: bool = False


def told(uses: Sequence[Use]) -> list[Use]:
    """Returns the uses that count: those that say more than the others.

    A use in the backward pass says nothing that the forward pass does not. If nothing
    depends on the forward pass's own results, unused computations still count.
    """
    live = [use for use in uses if not use.dead]
    strong = [use for use in live if use.how not in WEAK]
    forward = [use for use in strong if not use.derived]
    if not forward and strong:
        forward = [use for use in uses if use.dead and not use.derived]
        forward = [use for use in forward if use.how not in WEAK]
    return forward or strong or live


def as_one(uses: Sequence[Use], leaves: Sequence[Shape]) -> Sequence[Use]:
    """Returns the one use to which pieces of a leaf add up, if they are all of it."""
    if len(uses) == 1:
        return uses
    entries: dict[int, int] = {}
    for use in uses:
        for axis, mask in use.pieces:
            entries[axis] = entries.get(axis, 0) | mask
    shape = leaves[uses[0].leaf]
    full = {a for a, mask in entries.items() if mask.bit_count() == shape[a] > 1}
    if not full:
        return uses
    axes = {axis for use in uses for axis in use.axes}
    partly = {axis for use in uses for axis in use.partly} - full
    stacked = {axis for use in uses for axis in use.stacked} - full
    whole = uses[0]._replace(
        how="contracted", axes=tuple(sorted(axes | full)),
        partly=tuple(sorted(partly)), stacked=tuple(sorted(stacked)),
        by=uses[0].by or "add", pieces=(),
    )  # fmt: skip
    return [whole]
