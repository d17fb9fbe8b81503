"""Halves, doubles and blurs pictures, to the same bits on every machine."""

from __future__ import annotations

import numpy as np


def shrink(image: np.ndarray) -> np.ndarray:
    """Returns the last two axes halved, each pixel the mean of four."""
    rows = image[..., ::2, :] + image[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)


def enlarge(image: np.ndarray) -> np.ndarray:
    """Returns the last two axes doubled, bilinearly."""
    for axis in (-1, -2):
        last = np.moveaxis(image, axis, -1)
        left = np.concatenate([last[..., :1], last[..., :-1]], -1)
        right = np.concatenate([last[..., 1:], last[..., -1:]], -1)
        near, far = np.float32(0.75), np.float32(0.25)
        pair = np.stack([near * last + far * left, near * last + far * right], -1)
        image = np.moveaxis(pair.reshape(*last.shape[:-1], -1), -1, axis)
    return image


def box_blur(image: np.ndarray, radius: int) -> np.ndarray:
    """Returns the mean over a ``(2 radius + 1)``-square, edges extended."""
    width = 2 * radius + 1
    for axis in (0, 1):
        pad = [(radius + 1, radius) if i == axis else (0, 0) for i in (0, 1)]
        total = np.cumsum(np.pad(image, pad, "edge"), axis, dtype=np.float64)
        upper = total[width:] if axis == 0 else total[:, width:]
        lower = total[:-width] if axis == 0 else total[:, :-width]
        image = ((upper - lower) / width).astype(np.float32)
    return image
