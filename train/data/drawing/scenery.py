"""Backgrounds: a sky with clouds, far hills and a textured ground."""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from train.data.drawing.body import Vector
from train.data.drawing.resample import enlarge

LATTICE = 64  # a power of two


@dataclasses.dataclass(frozen=True)
class Palette:
    """The colours of a place: its air, its hills and its ground."""

    zenith: Vector
    haze: Vector
    hills: Vector
    near: Vector
    far: Vector
    speckle: float


PALETTES = (
    Palette((0.32, 0.45, 0.66), (0.78, 0.83, 0.88), (0.36, 0.41, 0.35),
            (0.34, 0.42, 0.25), (0.51, 0.56, 0.39), 0.35),  # meadow
    Palette((0.38, 0.51, 0.72), (0.82, 0.87, 0.9), (0.57, 0.5, 0.43),
            (0.78, 0.7, 0.58), (0.85, 0.8, 0.71), 0.18),  # beach
    Palette((0.46, 0.47, 0.5), (0.72, 0.72, 0.72), (0.35, 0.33, 0.33),
            (0.41, 0.38, 0.36), (0.54, 0.52, 0.51), 0.5),  # rock
    Palette((0.13, 0.14, 0.23), (0.75, 0.53, 0.44), (0.15, 0.14, 0.17),
            (0.21, 0.17, 0.16), (0.35, 0.28, 0.25), 0.35),  # dusk
    Palette((0.4, 0.5, 0.65), (0.87, 0.8, 0.73), (0.48, 0.34, 0.28),
            (0.58, 0.42, 0.33), (0.69, 0.56, 0.47), 0.3),  # desert
    Palette((0.39, 0.42, 0.44), (0.65, 0.67, 0.67), (0.25, 0.27, 0.22),
            (0.29, 0.28, 0.21), (0.41, 0.41, 0.34), 0.5),  # moor
    Palette((0.58, 0.65, 0.73), (0.86, 0.88, 0.9), (0.62, 0.65, 0.69),
            (0.73, 0.74, 0.78), (0.77, 0.8, 0.84), 0.14),  # snow
    Palette((0.44, 0.52, 0.62), (0.9, 0.84, 0.77), (0.48, 0.46, 0.49),
            (0.53, 0.5, 0.47), (0.66, 0.62, 0.58), 0.25),  # dawn
)  # fmt: skip


def noise_lattice(rng: random.Random) -> np.ndarray:
    """Returns independent numbers in [0, 1] on a square lattice."""
    data = np.frombuffer(rng.randbytes(LATTICE * LATTICE), np.uint8)
    return data.reshape(LATTICE, LATTICE).astype(np.float32) / np.float32(255)


def sample(lattice: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns the lattice at ``(v, u)``, smoothly interpolated and repeated."""
    fu, fv = np.floor(u), np.floor(v)
    u, v = u - fu, v - fv
    j, k = fu.astype(np.int32) & LATTICE - 1, fv.astype(np.int32) & LATTICE - 1
    right, here, below = (j + 1) & LATTICE - 1, k * LATTICE, (k + 1) & LATTICE - 1
    below = below * LATTICE
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    values = lattice.ravel()
    upper, lower = values.take(here + j), values.take(below + j)
    upper += u * (values.take(here + right) - upper)
    lower += u * (values.take(below + right) - lower)
    return upper + v * (lower - upper)


def fractal(lattice, u, v, octaves: int, persistence: float = 0.55) -> np.ndarray:
    """Returns noise in [0, 1] with detail at ``octaves`` scales, each half the last."""
    total, weight, norm = np.float32(0), 1.0, 0.0
    for i in range(octaves):
        scale, shift = np.float32(1 << i), np.float32(7.3 * i)
        layer = sample(lattice, u * scale + shift, v * scale + shift)
        total = total + np.float32(weight) * layer
        norm += weight
        weight *= persistence
    return total / np.float32(norm)


def mix(first, second, weight: np.ndarray) -> np.ndarray:
    """Returns the blend of two pictures of shape ``(3, rows, columns)`` or colours."""
    first, second = _picture(first), _picture(second)
    return first + weight * (second - first)


def _picture(colour) -> np.ndarray:
    picture = np.asarray(colour, np.float32)
    return picture.reshape(3, 1, 1) if picture.ndim == 1 else picture


def background(rng: random.Random, palette: Palette, horizon: int, size: int):
    """Returns a picture of the place without a figure, of shape ``(3, size, size)``.

    Args:
      rng: Source of the place's details.
      palette: The place's colours.
      horizon: The row where ground and sky meet.
      size: Side of the square picture, in pixels.
    """
    lattice = noise_lattice(rng)
    rows = np.arange(size, dtype=np.float32)[:, None]
    columns = np.arange(size, dtype=np.float32)[None]
    sky = _sky(rng, lattice, palette, rows[:horizon], columns, horizon)
    earth = _earth(rng, lattice, palette, rows[horizon:] - horizon, columns)
    picture = np.concatenate([sky, earth], 1)
    _hills(rng, lattice, palette, picture, horizon)
    return picture


def _sky(rng, lattice, palette, rows, columns, horizon):
    height = rows / np.float32(horizon) + 0 * columns
    sky = mix(palette.zenith, palette.haze, height)
    scale = np.float32(rng.uniform(0.012, 0.03))
    u, v = columns[:, ::2] * scale, rows[::2] * scale * np.float32(2.2)
    cloud = enlarge(fractal(lattice, u, v, 4))[:horizon]
    cover = np.float32(rng.uniform(0.4, 0.7))
    cloud = np.clip((cloud - cover) * 5, 0, 1) * np.float32(rng.uniform(0.3, 0.9))
    white = tuple(min(1.0, 0.25 + 0.8 * c) for c in palette.haze)
    return mix(sky, white, cloud)


def _earth(rng, lattice, palette, rows, columns):
    distance = 60 / (rows + 12)
    u = (columns - 150) * distance * np.float32(0.05) + np.float32(rng.uniform(0, 50))
    v = distance * np.float32(8) + np.float32(rng.uniform(0, 50)) + 0 * columns
    grain = fractal(lattice, u, v, 5, persistence=0.85) - np.float32(0.5)
    broad = sample(lattice, u * 0.3, v * 0.3) - np.float32(0.5)
    earth = mix(palette.near, palette.far, np.clip(distance / 3, 0, 1) + 0 * columns)
    amount = np.float32(palette.speckle) * np.clip(1.6 - 0.3 * distance, 0.2, 1.6)
    return earth * (1 + amount * (2.2 * grain + broad))


def _hills(rng, lattice, palette, picture, horizon):
    size = picture.shape[-1]
    x = np.arange(size, dtype=np.float32)
    rows = np.arange(horizon + 1, dtype=np.float32)[:, None]
    for layer in range(int(rng.random() * 3)):
        scale = np.float32(rng.uniform(0.008, 0.03) * (1 + 6 * (rng.random() < 0.3)))
        tall = np.float32(horizon * rng.uniform(0.1, 0.6) / (1 + layer))
        line = fractal(lattice, x * scale, 0 * x + np.float32(rng.uniform(0, 50)), 4)
        ridge = np.float32(horizon) - tall * line
        inside = np.clip(rows - ridge[None] + np.float32(0.5), 0, 1)
        colour = mix(palette.haze, palette.hills, np.float32(0.55 + 0.35 * layer))
        relief = sample(lattice, x[None] * 0.1 + 0 * rows, rows * 0.2 + 0 * x[None])
        hill = colour * (np.float32(0.85) + np.float32(0.3) * relief)
        picture[:, : horizon + 1] = mix(picture[:, : horizon + 1], hill, inside)
