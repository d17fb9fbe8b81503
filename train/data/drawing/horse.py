"""Horses of random pose and coat."""

from __future__ import annotations

import dataclasses
import random

from train.data.drawing.body import Body, Vector, along, cos, sin
from train.data.drawing.looks import BLACK, COATS, HOOF, WHITE, jitter, pick

GAITS = {  # swing in degrees; phases of the left and right fore, left and right hind
    "stand": (5, (0.0, 0.4, 0.3, 0.8)),
    "halt": (12, (0.2, 0.7, 0.0, 0.5)),
    "walk": (18, (0.25, 0.75, 0.0, 0.5)),
    "trot": (28, (0.0, 0.5, 0.5, 0.0)),
    "gallop": (44, (0.0, 0.12, 0.5, 0.62)),
    "graze": (9, (0.0, 0.5, 0.6, 0.1)),
    "rear": (12, (0.1, 0.45, 0.0, 0.1)),
}
TAIL_LIFT = {"gallop": 70, "trot": 45, "rear": -10}
TRUNK = (  # start, end, radii
    ((0.46, 1.17, 0.0), (0.0, 1.15, 0.0), (0.26, 0.285)),  # barrel
    ((0.0, 1.15, 0.0), (-0.45, 1.2, 0.0), (0.285, 0.26)),
    ((0.34, 1.42, 0.0), (-0.05, 1.33, 0.0), (0.1, 0.13)),  # withers and back
    ((-0.05, 1.33, 0.0), (-0.52, 1.36, 0.0), (0.13, 0.14)),
    ((-0.46, 1.24, 0.1), (-0.66, 1.2, 0.1), (0.2, 0.15)),  # croup
    ((-0.46, 1.24, -0.1), (-0.66, 1.2, -0.1), (0.2, 0.15)),
    ((0.5, 1.2, 0.07), (0.6, 1.08, 0.07), (0.19, 0.13)),  # chest
    ((0.5, 1.2, -0.07), (0.6, 1.08, -0.07), (0.19, 0.13)),
)


@dataclasses.dataclass(frozen=True)
class _Look:
    coat: Vector
    pattern: Vector
    legs: Vector
    hair: Vector
    blaze: bool


def horse(rng: random.Random) -> tuple[Body, str]:
    """Returns a horse and the kind of pattern on its coat."""
    name, gait = pick(rng, list(COATS)), pick(rng, list(GAITS))
    coat, pattern, legs, hair = (jitter(rng, colour) for colour in COATS[name])
    stockings = rng.random() < 0.3
    look = _Look(coat, pattern, WHITE if stockings else legs, hair, rng.random() < 0.4)
    body = Body()
    for start, end, radii in TRUNK:
        body.bone(start, end, radii, coat, pattern)
    _legs(body, rng, gait, look)
    _neck_and_head(body, rng, gait, look)
    _tail(body, rng, gait, hair)
    if gait == "rear":
        body = body.turned(rng.uniform(35, 60), axis=2)
    spotted = name in ("piebald", "skewbald")
    return body.grounded(), "blotches" if spotted else "mottle"


def _legs(body: Body, rng: random.Random, gait: str, look: _Look) -> None:
    swing, phases = GAITS[gait]
    swing *= rng.uniform(0.8, 1.15)
    start = rng.random()
    for i, side in enumerate((1, -1, 1, -1)):
        phase = 360 * (start + phases[i])
        move, lift = swing * sin(phase), swing * max(0.0, cos(phase))
        (_foreleg if i < 2 else _hind_leg)(body, side, move, lift, gait, look)


def _foreleg(body, side: int, move: float, lift: float, gait: str, look: _Look) -> None:
    forearm, cannon = move, move - 5 - 2 * lift
    if gait == "rear":
        forearm, cannon = 40 + 2 * move, -60 + 2 * (move - lift)
    shoulder, elbow = (0.48, 1.1, 0.15 * side), (0.45, 0.88, 0.16 * side)
    body.bone(shoulder, elbow, (0.17, 0.11), look.coat, look.pattern)
    knee = along(elbow, 0.4, forearm)
    body.bone(elbow, knee, (0.11, 0.062), look.coat, look.pattern)
    fetlock = body.bone(knee, along(knee, 0.32, cannon), (0.058, 0.043), look.legs)
    _hoof(body, fetlock, cannon, look)


def _hind_leg(
    body, side: int, move: float, lift: float, gait: str, look: _Look
) -> None:
    thigh, cannon = 22 + move + 0.9 * lift, 4 + 0.8 * move
    gaskin = -38 + 0.8 * move - 0.9 * lift
    if gait == "rear":
        thigh, gaskin, cannon = 5 + move, -70 + move, -25 + move
    hip = (-0.52, 1.2, 0.14 * side)
    stifle = along(hip, 0.36, thigh, 6 * side)
    body.bone(hip, stifle, (0.22, 0.14), look.coat, look.pattern)
    hock = along(stifle, 0.42, gaskin)
    body.bone(stifle, hock, (0.13, 0.065), look.coat, look.pattern)
    fetlock = body.bone(hock, along(hock, 0.38, cannon), (0.062, 0.045), look.legs)
    _hoof(body, fetlock, cannon, look)


def _hoof(body: Body, fetlock: Vector, angle: float, look: _Look) -> None:
    coronet = along(fetlock, 0.1, angle + 30)
    body.bone(fetlock, coronet, (0.045, 0.045), look.legs)
    body.bone(coronet, along(coronet, 0.05, angle + 20), (0.05, 0.062), HOOF)


def _neck_and_head(body: Body, rng: random.Random, gait: str, look: _Look) -> None:
    rise, nod = rng.uniform(122, 152), -rng.uniform(88, 108)
    if gait == "gallop":
        rise = rng.uniform(115, 130)
    if gait == "graze":
        rise, nod = rng.uniform(55, 75), -rng.uniform(50, 60)
    aside = rng.uniform(-28, 28)
    base = (0.5, 1.3, 0.0)
    middle = along(base, 0.36, rise - 12, 0.5 * aside)
    poll = along(middle, 0.42, rise + 8, aside)
    body.bone((0.42, 1.22, 0.0), middle, (0.25, 0.165), look.coat, look.pattern)
    body.bone(middle, poll, (0.165, 0.105), look.coat, look.pattern)
    _head(body, poll, rise + nod, aside, look)
    _ears(body, poll, rise, rise + nod, look)
    _mane(body, rng, (base, middle, poll), rise, look.hair)


def _head(body: Body, poll: Vector, nod: float, aside: float, look: _Look) -> None:
    def on_face(down: float, out: float) -> Vector:
        return along(along(poll, down, nod, 1.3 * aside), out, nod + 90)

    body.bone(poll, on_face(0.5, 0), (0.115, 0.07), look.coat, look.pattern)
    body.ball(on_face(0.17, -0.07), 0.1, look.coat)  # cheek
    red, green, blue = look.coat
    muzzle = (0.55 * red, 0.55 * green, 0.55 * blue)
    body.bone(on_face(0.48, 0), on_face(0.54, 0), (0.073, 0.066), muzzle)
    blaze = WHITE if look.blaze else look.coat
    body.bone(on_face(0.14, 0.075), on_face(0.44, 0.035), (0.045, 0.04), blaze)
    for side in (1, -1):
        x, y, z = on_face(0.17, 0.055)
        body.ball((x, y, z + 0.082 * side), 0.027, BLACK)
        x, y, z = on_face(0.53, 0.03)
        body.ball((x, y, z + 0.05 * side), 0.02, BLACK)


def _ears(body: Body, poll: Vector, rise: float, nod: float, look: _Look) -> None:
    for side in (1, -1):
        x, y, z = along(poll, 0.04, nod + 120)
        root = (x, y, z + 0.06 * side)
        tip = along(root, 0.19, rise + 10, 12 * side)
        body.bone(root, tip, (0.045, 0.015), look.coat)


def _mane(body: Body, rng: random.Random, neck, rise: float, hair: Vector) -> None:
    base, middle, poll = neck
    side = pick(rng, (-1, 1))
    for i in range(13):
        low, high = (base, middle) if i < 6 else (middle, poll)
        share = (i % 6) / 6 if i < 12 else 1.0
        x, y, z = (a + share * (b - a) for a, b in zip(low, high, strict=True))
        crest = along((x, y, z), 0.2 - 0.009 * i, rise + 90)
        drop = rng.uniform(0.14, 0.26)
        fall = (crest[0] - 0.04, crest[1] - drop, crest[2] + 0.15 * side)
        body.bone(crest, fall, (0.06, 0.03), hair)
    top = along(poll, 0.1, rise)
    body.bone(top, along(along(poll, 0.12, rise - 95), 0.09, rise), (0.05, 0.025), hair)


def _tail(body: Body, rng: random.Random, gait: str, hair: Vector) -> None:
    lift = TAIL_LIFT.get(gait, 12) + rng.uniform(-10, 15)
    sway = rng.uniform(-25, 25)
    point, radius = (-0.72, 1.32, 0.0), 0.05
    for length, share, end_radius in (
        (0.16, 1.5, 0.075),
        (0.22, 1.1, 0.085),
        (0.24, 0.6, 0.07),
        (0.22, 0.35, 0.02),
    ):
        end = along(point, length, -lift * share, sway)
        point = body.bone(point, end, (radius, end_radius), hair)
        radius = end_radius
