"""The surface of a body as the camera sees it: heights, normals and colours.

Seen along the camera's axis, a capsule's nearest surface has a closed form, so a body
is a height field: capsules are merged by a smooth maximum, which rounds the joints.

Here and wherever pixels are made, the arithmetic uses only ``+ - * /``, ``sqrt``,
``min``, ``max``, ``floor`` and comparisons, which IEEE 754 fixes to the last bit. So
every machine draws the same bytes.
"""

from __future__ import annotations

import math

import numpy as np

from train.data.drawing.body import Body, Capsule

EMPTY = np.float32(-1e9)  # height of a pixel that no capsule covers
OVERSAMPLING = 2


class HeightField:
    """Heights, normals and colours of the nearest surface at each pixel.

    The camera looks along -z; ``y`` points up; one unit is one pixel of the final
    picture, whose lower left corner is the origin.

    Args:
      size: Side of the square picture, in pixels.
      pattern: Weight of each capsule's pattern colour, in [0, 1], of shape
        ``(2 * size, 2 * size)``.
    """

    def __init__(self, size: int, pattern: np.ndarray):
        side = size * OVERSAMPLING
        self.size = size
        self.pattern = pattern
        self.height = np.full((side, side), EMPTY, np.float32)
        self.normal = np.zeros((3, side, side), np.float32)
        self.colour = np.zeros((3, side, side), np.float32)

    def add(self, capsule: Capsule) -> None:
        """Merges a capsule into the field."""
        left, right, bottom, top = Body([capsule]).bounds()
        rows = self._span(self.size - top, self.size - bottom)
        columns = self._span(left, right)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        step = np.float32(1 / OVERSAMPLING)
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] * step
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] * step
        height, normal = _surface(capsule, x, np.float32(self.size) - y)
        self._merge((rows, columns), height, normal, capsule)

    def window(self) -> tuple[slice, slice]:
        """Returns the rows and columns around all covered pixels, with even bounds."""
        covered = self.height > EMPTY / 2
        return _around(covered.any(axis=1)), _around(covered.any(axis=0))

    def _span(self, low: float, high: float) -> slice:
        side = self.size * OVERSAMPLING
        first = max(0, math.floor(low * OVERSAMPLING))
        return slice(first, min(side, math.ceil(high * OVERSAMPLING) + 1))

    def _merge(self, window, height, normal, capsule: Capsule) -> None:
        old = self.height[window]
        reach = np.float32(0.9 * min(capsule.start_radius, capsule.end_radius) + 0.3)
        difference = (height - old) / reach
        weight = np.clip(0.5 + 0.5 * difference, 0, 1)
        bump = reach * 0.5 * weight * (1 - weight)
        self.height[window] = np.maximum(height, old) + bump
        sharp = np.clip(0.5 + 4 * difference, 0, 1)  # colours keep a crisp seam
        pattern = self.pattern[window]
        for i in range(3):
            self.normal[i][window] += weight * (normal[i] - self.normal[i][window])
            plain, second = capsule.colour[i], capsule.pattern_colour[i]
            paint = np.float32(plain) + pattern * np.float32(second - plain)
            self.colour[i][window] += sharp * (paint - self.colour[i][window])


def _around(covered: np.ndarray) -> slice:
    where = np.flatnonzero(covered)
    return slice(where[0] // 2 * 2, where[-1] // 2 * 2 + 2)


def _surface(capsule: Capsule, x: np.ndarray, y: np.ndarray):
    """Returns the height (EMPTY where missed) and the unit normal of the surface.

    The capsule is the union of the spheres at ``a + t d`` with radius ``r + t dr``.
    Their height over a pixel is ``a_z + t d_z + sqrt(C + 2 B t - A t^2)``, concave in
    ``t`` for ``A > 0``: its maximum, clamped to [0, 1], is the nearest surface.
    """
    f32 = np.float32
    dx, dy, dz = (e - s for s, e in zip(capsule.start, capsule.end, strict=True))
    dr = capsule.end_radius - capsule.start_radius
    px = x - f32(capsule.start[0])
    py = y - f32(capsule.start[1])
    a = dx * dx + dy * dy - dr * dr
    b = px * f32(dx) + py * f32(dy) + f32(capsule.start_radius * dr)
    c = f32(capsule.start_radius * capsule.start_radius) - (px * px + py * py)
    safe = max(a, 1e-2 * (dx * dx + dy * dy + dz * dz), 1e-6)
    peak = b / f32(safe)
    lean = f32(dz / math.sqrt(safe * (safe + dz * dz)))
    t = np.clip(peak + lean * np.sqrt(np.maximum(c + b * peak, 0)), 0, 1)
    depth = c + (b + b - f32(a) * t) * t
    nz = np.sqrt(np.maximum(depth, 0))
    height = np.where(depth > 0, f32(capsule.start[2]) + f32(dz) * t + nz, EMPTY)
    inverse = 1 / (f32(capsule.start_radius) + f32(dr) * t)
    normal = (px - f32(dx) * t, py - f32(dy) * t, nz)
    return height, [axis * inverse for axis in normal]
