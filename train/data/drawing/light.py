"""Light on a body, and the shadow it casts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from train.data.drawing.body import Body, Capsule, Vector, sin
from train.data.drawing.resample import box_blur, enlarge, shrink
from train.data.drawing.surface import EMPTY, HeightField


@dataclasses.dataclass(frozen=True)
class Light:
    """A sun, as a unit vector towards it, and the light of sky and ground."""

    direction: Vector
    sun: Vector
    sky: Vector
    ground: Vector
    gloss: float


def composite(picture: np.ndarray, field: HeightField, light: Light) -> None:
    """Paints the lit field over a picture of shape ``(3, size, size)``, in place."""
    rows, columns = field.window()
    target = (
        slice(None),
        slice(rows.start // 2, rows.stop // 2),
        slice(columns.start // 2, columns.stop // 2),
    )
    height = field.height[rows, columns]
    covered = height > EMPTY / 2
    normal, colour = (
        np.stack([plane[rows, columns][covered] for plane in planes])
        for planes in (field.normal, field.colour)
    )
    shades = _shade(normal, colour, _openness(height, covered)[covered], light)
    lit = np.zeros((3, *height.shape), np.float32)
    for plane, shade in zip(lit, shades, strict=True):
        plane[covered] = shade
    picture[target] *= 1 - shrink(covered.astype(np.float32))
    picture[target] += shrink(lit)


def _shade(normal, colour, openness, light: Light) -> np.ndarray:
    """Returns the colours under the sun, the sky and the light off the ground.

    Args:
      normal: the normal of each covered pixel, `(3, pixels)`.
      colour: its own colour, `(3, pixels)`.
      openness: how little stands in front of it, `(pixels,)`.
      light: the light.
    """
    nx, ny, nz = normal
    length = np.sqrt(nx * nx + ny * ny + nz * nz)  # blended normals are shorter than 1
    nx, ny, nz = normal / np.maximum(length, np.float32(1e-6))
    lx, ly, lz = (np.float32(v) for v in light.direction)
    facing = nx * lx + ny * ly + nz * lz
    sun = np.clip((facing + np.float32(0.15)) / np.float32(1.15), 0, 1)
    sun *= np.float32(0.4) + np.float32(0.6) * openness
    half = np.float32(math.sqrt(2 + 2 * light.direction[2]))  # |sun + camera|
    shine = np.clip((facing + nz) / half, 0, 1)
    for _ in range(4):
        shine = shine * shine
    shine *= np.float32(light.gloss)
    upward = np.float32(0.5) + np.float32(0.5) * ny
    lit = np.empty_like(colour)
    for i in range(3):
        low, rise = np.float32(light.ground[i]), light.sky[i] - light.ground[i]
        ambient = (low + upward * np.float32(rise)) * openness
        lit[i] = colour[i] * (ambient + sun * np.float32(light.sun[i])) + shine
    return np.clip(lit, 0, 1)


def _openness(height: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Returns how little stands in front of each pixel nearby, in [0.35, 1]."""
    farthest = np.min(height, initial=0, where=covered)
    height = shrink(np.where(covered, height, farthest))
    hidden = box_blur(box_blur(height, 4), 4) - height
    return enlarge(np.clip(1 - np.maximum(hidden, 0) / 18, 0.35, 1))


def shadow(body: Body, light: Light, pitch: float, size: int) -> np.ndarray:
    """Returns how dark the shadow on the ground ``y = 0`` is, per pixel in [0, 1].

    Args:
      body: Capsules in the camera's coordinates before its pitch.
      light: The light, with its direction before the pitch.
      pitch: How far the camera looks down, in degrees.
      size: Side of the square picture, in pixels.
    """
    half = size // 2
    dark = np.zeros((half, half), np.float32)
    y = size - (np.arange(half, dtype=np.float32) * 2 + 1)[:, None]
    z = y / np.float32(-sin(pitch))
    for capsule in body:
        _darken(dark, _flatten(capsule, light.direction), z)
    return enlarge(dark)


def _flatten(capsule: Capsule, direction: Vector) -> Capsule:
    """Returns the capsule moved along the light to the ground, its heights kept."""

    def drop(point: Vector) -> Vector:
        slide = point[1] / direction[1]
        x, z = point[0] - slide * direction[0], point[2] - slide * direction[2]
        return (x, point[1], z)

    return dataclasses.replace(
        capsule, start=drop(capsule.start), end=drop(capsule.end)
    )


def _darken(dark: np.ndarray, capsule: Capsule, z: np.ndarray) -> None:
    """Adds a shadow at every other pixel, softer for a higher caster."""
    f32 = np.float32
    (ax, ah, az), (bx, bh, bz) = capsule.start, capsule.end
    margin = max(capsule.start_radius, capsule.end_radius) + 3 + 0.12 * max(ah, bh)
    first = max(0, math.floor((min(ax, bx) - margin) / 2))
    last = min(len(dark), math.ceil((max(ax, bx) + margin) / 2) + 1)
    if first >= last:
        return
    x = (np.arange(first, last, dtype=f32) * 2 + 1)[None] - f32(ax)
    z = z - f32(az)
    dx, dz = bx - ax, bz - az
    t = (x * f32(dx) + z * f32(dz)) / f32(max(dx * dx + dz * dz, 1e-6))
    t = np.clip(t, 0, 1)
    x, z = x - t * f32(dx), z - t * f32(dz)
    radius = f32(capsule.start_radius)
    radius = radius + t * f32(capsule.end_radius - capsule.start_radius)
    soft = f32(3 + 0.12 * ah) + t * f32(0.12 * (bh - ah))
    inside = (radius - np.sqrt(x * x + z * z)) / soft + f32(0.5)
    part = dark[:, first:last]
    np.maximum(part, np.clip(inside, 0, 1), out=part)
