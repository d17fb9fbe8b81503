"""Pictures of a horse or a human somewhere, each fixed by its split and index."""

from __future__ import annotations

import dataclasses
import io
import math
import random

import numpy as np
from PIL import Image

from train.data.drawing import scenery
from train.data.drawing.body import Body, cos, sin, turn
from train.data.drawing.horse import horse
from train.data.drawing.human import human
from train.data.drawing.light import Light, composite, shadow
from train.data.drawing.looks import pick
from train.data.drawing.resample import enlarge
from train.data.drawing.surface import HeightField

VERSION = "1.0.0"
SIZE = 300
NAMES = ("horses", "humans")
SPLITS = {"train": (500, 527), "test": (128, 128)}  # horses, humans


def draw(split: str, index: int) -> tuple[np.ndarray, int]:
    """Returns one picture of the dataset, the same on every machine.

    Args:
      split: ``"train"`` or ``"test"``.
      index: Which picture of the split; its horses come first.

    Returns:
      The picture, uint8 of shape ``(300, 300, 3)``, and its label: 0 horse, 1 human.

    Example:
      >>> picture, label = draw("train", 0)
      >>> picture.shape, NAMES[label]
      ((300, 300, 3), 'horses')
    """
    rng = random.Random(f"{VERSION}/{split}/{index}")
    label = int(index >= SPLITS[split][0])
    body, pattern = (horse, human)[label](rng)
    return _picture(rng, body, pattern), label


def draw_png(split: str, index: int) -> tuple[bytes, int]:
    """Returns the same as ``draw``, with the picture as a PNG file."""
    picture, label = draw(split, index)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue(), label


def _picture(rng: random.Random, body: Body, pattern: str) -> np.ndarray:
    pitch = rng.uniform(7, 22)
    palette = pick(rng, scenery.PALETTES)
    horizon = int(rng.uniform(60, 180))
    sun = _sun(rng, palette)
    body = _place(rng, body, pitch)
    picture = scenery.background(rng, palette, horizon, SIZE)
    overhead = dataclasses.replace(sun, direction=(0.0, 1.0, 0.0))
    for light, strength in ((sun, rng.uniform(0.45, 0.65)), (overhead, 0.35)):
        dark = shadow(body, light, pitch, SIZE)
        dark[:horizon] = 0
        picture *= 1 - np.float32(strength) * dark
    field = HeightField(SIZE, _pattern(rng, pattern))
    for capsule in body.turned(pitch, axis=0):
        field.add(capsule)
    seen = dataclasses.replace(sun, direction=turn(sun.direction, pitch, axis=0))
    composite(picture, field, seen)
    return _develop(rng, picture)


def _sun(rng: random.Random, palette: scenery.Palette) -> Light:
    azimuth, rise = rng.uniform(-25, 205), rng.uniform(28, 62)
    power = rng.uniform(0.75, 1.05)
    haze, near = palette.haze, palette.near
    return Light(
        direction=(cos(rise) * cos(azimuth), sin(rise), cos(rise) * sin(azimuth)),
        sun=(power, power * rng.uniform(0.86, 1), power * rng.uniform(0.74, 1)),
        sky=(0.22 + 0.35 * haze[0], 0.22 + 0.35 * haze[1], 0.22 + 0.35 * haze[2]),
        ground=(0.1 + 0.3 * near[0], 0.1 + 0.3 * near[1], 0.1 + 0.3 * near[2]),
        gloss=rng.uniform(0.0, 0.18),
    )


def _place(rng: random.Random, body: Body, pitch: float) -> Body:
    """Returns the body heading anywhere, in pixels, somewhere on the ground."""
    body = body.turned(rng.uniform(0, 360), axis=1)
    left, right, bottom, top = body.turned(pitch, axis=0).bounds()
    width, height = right - left, top - bottom
    scale = SIZE * rng.uniform(0.7, 1.0) / math.sqrt(width * height)
    scale = min(scale, SIZE * rng.uniform(0.9, 1.15) / max(width, height))
    width, height = scale * width, scale * height
    x = rng.uniform(-0.15 * width, SIZE - 0.85 * width)
    y = rng.uniform(-0.08, 0.6) * max(SIZE - height, 12)
    y -= scale * bottom
    return body.scaled(scale).shifted(x - scale * left, 0, -y / sin(pitch))


def _pattern(rng: random.Random, kind: str) -> np.ndarray:
    """Returns blotches, stripes or a soft mottle, of shape ``(600, 600)``."""
    lattice = scenery.noise_lattice(rng)
    grid = np.arange(SIZE // 2, dtype=np.float32) * np.float32(rng.uniform(0.03, 0.07))
    u, v = grid[None] + 0 * grid[:, None], grid[:, None] + 0 * grid[None]
    noise = scenery.fractal(lattice, u, v, 3)
    if kind == "stripes":
        across = (u * np.float32(rng.uniform(-0.6, 0.6)) + v) * np.float32(3) + noise
        noise = np.float32(2) * np.abs(across - np.floor(across) - np.float32(0.5))
    noise = enlarge(enlarge(noise))
    contrast = np.float32({"blotches": 18, "stripes": 6, "mottle": 2.5}[kind])
    return np.clip((noise - np.float32(0.5)) * contrast + np.float32(0.5), 0, 1)


def _develop(rng: random.Random, picture: np.ndarray) -> np.ndarray:
    """Returns the picture in 8 bits, with grain, exposed half way to mid grey."""
    levels = (picture * np.float32(255)).astype(np.int32)
    brightness = int(levels.sum(dtype=np.int64)) / levels.size  # exact, in any order
    exposure = math.sqrt(115 / brightness) * rng.uniform(0.94, 1.06)
    grain = np.frombuffer(rng.randbytes(SIZE * SIZE), np.uint8).reshape(1, SIZE, SIZE)
    grain = (grain.astype(np.float32) - np.float32(127.5)) * np.float32(0.04)
    levels = np.floor(picture * np.float32(255 * exposure) + grain + np.float32(0.5))
    return np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0)
