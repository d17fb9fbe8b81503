"""Colours of coats, skin, hair and cloth, and random choices among them."""

from __future__ import annotations

import itertools
import random

from train.data.drawing.body import Vector

BLACK = (0.05, 0.045, 0.05)
WHITE = (0.9, 0.88, 0.85)
HOOF = (0.13, 0.11, 0.1)
LIPS = (0.5, 0.2, 0.18)
SKINS = (
    (0.95, 0.76, 0.65),
    (0.87, 0.64, 0.5),
    (0.74, 0.51, 0.37),
    (0.55, 0.36, 0.25),
    (0.36, 0.23, 0.17),
)
HAIRS = (
    BLACK,
    (0.2, 0.12, 0.07),
    (0.45, 0.26, 0.12),
    (0.8, 0.63, 0.32),
    (0.6, 0.58, 0.56),
)
COATS = {  # coat, pattern, lower legs, mane and tail
    "bay": ((0.5, 0.27, 0.13), (0.42, 0.21, 0.1), BLACK, BLACK),
    "black": ((0.15, 0.13, 0.14), (0.1, 0.09, 0.1), BLACK, BLACK),
    "grey": ((0.62, 0.62, 0.64), (0.46, 0.47, 0.5), (0.35, 0.35, 0.38), WHITE),
    "chestnut": ((0.6, 0.3, 0.14), (0.52, 0.25, 0.11), (0.55, 0.27, 0.12),
                 (0.62, 0.34, 0.17)),
    "white": ((0.9, 0.89, 0.87), (0.82, 0.8, 0.78), (0.85, 0.83, 0.8), WHITE),
    "palomino": ((0.83, 0.62, 0.33), (0.77, 0.55, 0.28), (0.8, 0.6, 0.35), WHITE),
    "buckskin": ((0.74, 0.58, 0.36), (0.68, 0.52, 0.31), BLACK, BLACK),
    "roan": ((0.5, 0.44, 0.46), (0.4, 0.33, 0.35), (0.2, 0.17, 0.18), BLACK),
    "piebald": ((0.12, 0.11, 0.12), WHITE, WHITE, BLACK),
    "skewbald": ((0.52, 0.28, 0.14), WHITE, WHITE, (0.5, 0.27, 0.14)),
}  # fmt: skip


def pick(rng: random.Random, options):
    """Returns a random option; uses ``random()``, whose stream never changes."""
    return options[int(rng.random() * len(options))]


def jitter(rng: random.Random, colour: Vector) -> Vector:
    """Returns a colour near ``colour``: lighter or darker, with much the same hue."""
    factor, shift = rng.uniform(0.85, 1.12), rng.uniform(-0.02, 0.02)
    red, green, blue = colour
    return (factor * red + shift, factor * green, factor * blue - shift)


def cloth(rng: random.Random) -> Vector:
    """Returns a colour for clothes: vivid, or sometimes like that of a coat."""
    if rng.random() < 0.15:
        return jitter(rng, pick(rng, [coat[0] for coat in COATS.values()]))
    high = rng.uniform(0.6, 0.92)
    low = high * rng.uniform(0.08, 0.35)
    middle = rng.uniform(low, high)
    hues = list(itertools.permutations((high, middle, low)))
    # Warm hues twice as often: on average, clothes are as warm as coats.
    return pick(rng, hues + hues[:2])
