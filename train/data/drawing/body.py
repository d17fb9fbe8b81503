"""Bodies made of capsules: points, bones and how to move them.

A body stands on ``y = 0``, heads towards +x and has its left side at +z. Lengths are
metres, angles degrees.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

Vector = tuple[float, float, float]


def sin(degrees: float) -> float:
    """Returns the sine, rounded so that no two C libraries disagree."""
    return round(math.sin(math.radians(degrees)), 9)


def cos(degrees: float) -> float:
    """Returns the cosine, rounded so that no two C libraries disagree."""
    return round(math.cos(math.radians(degrees)), 9)


def turn(point: Vector, degrees: float, axis: int) -> Vector:
    """Returns the point turned about coordinate axis 0, 1 or 2."""
    turned = list(point)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    c, s = cos(degrees), sin(degrees)
    turned[first] = c * point[first] - s * point[second]
    turned[second] = s * point[first] + c * point[second]
    return (turned[0], turned[1], turned[2])


def along(point: Vector, length: float, forward: float, aside: float = 0.0) -> Vector:
    """Returns the end of a bone that hangs from ``point``.

    Args:
      point: The start of the bone.
      length: Its length.
      forward: Its angle from straight down, positive forwards.
      aside: Its angle out of that plane, positive to the left.
    """
    x, y, z = point
    reach = length * cos(aside)
    return (x + reach * sin(forward), y - reach * cos(forward), z + length * sin(aside))


@dataclasses.dataclass(frozen=True)
class Capsule:
    """The hull of two spheres, with its colour and the colour of its pattern."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float
    colour: Vector
    pattern_colour: Vector


class Body(list[Capsule]):
    """The capsules of one figure."""

    def bone(
        self,
        start: Vector,
        end: Vector,
        radii: tuple[float, float],
        colour: Vector,
        pattern_colour: Vector | None = None,
    ) -> Vector:
        """Adds a capsule and returns its end, where the next bone may start."""
        self.append(Capsule(start, end, *radii, colour, pattern_colour or colour))
        return end

    def ball(self, centre: Vector, radius: float, colour: Vector) -> None:
        """Adds a sphere."""
        self.bone(centre, centre, (radius, radius), colour)

    def moved(self, move: Callable[[Vector], Vector]) -> Body:
        """Returns the body with ``move``, a rigid motion, applied to each point."""
        return Body(
            dataclasses.replace(c, start=move(c.start), end=move(c.end)) for c in self
        )

    def turned(self, degrees: float, axis: int) -> Body:
        """Returns the body turned about coordinate axis 0, 1 or 2."""
        return self.moved(lambda point: turn(point, degrees, axis))

    def shifted(self, x: float, y: float, z: float) -> Body:
        """Returns the body shifted."""
        return self.moved(lambda p: (p[0] + x, p[1] + y, p[2] + z))

    def scaled(self, factor: float) -> Body:
        """Returns the body scaled by ``factor`` about the origin."""

        def stretch(point: Vector) -> Vector:
            return (factor * point[0], factor * point[1], factor * point[2])

        return Body(
            dataclasses.replace(
                c,
                start=stretch(c.start),
                end=stretch(c.end),
                start_radius=factor * c.start_radius,
                end_radius=factor * c.end_radius,
            )
            for c in self
        )

    def bounds(self) -> tuple[float, float, float, float]:
        """Returns the least and greatest x, then the least and greatest y."""
        ends = [(c.start, c.start_radius) for c in self]
        ends += [(c.end, c.end_radius) for c in self]
        return (
            min(p[0] - r for p, r in ends),
            max(p[0] + r for p, r in ends),
            min(p[1] - r for p, r in ends),
            max(p[1] + r for p, r in ends),
        )

    def grounded(self) -> Body:
        """Returns the body lifted or lowered until it just touches ``y = 0``."""
        return self.shifted(0, -self.bounds()[2], 0)
