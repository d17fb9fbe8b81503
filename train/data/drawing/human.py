"""Humans of random pose, clothes, skin and hair."""

from __future__ import annotations

import dataclasses
import random

from train.data.drawing.body import Body, Vector, along, cos, sin
from train.data.drawing.looks import (
    BLACK,
    HAIRS,
    LIPS,
    SKINS,
    WHITE,
    cloth,
    jitter,
    pick,
)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Angles of the joints in degrees; pairs are left and right."""

    hips: tuple[float, float] = (4, -4)
    knees: tuple[float, float] = (4, 6)
    straddle: float = 5
    arms: tuple[float, float] = (4, -4)  # forwards
    aside: tuple[float, float] = (10, 10)  # out of the sagittal plane
    elbows: tuple[float, float] = (12, 12)
    lean: float = 2  # of the trunk, forwards
    fall: float = 0  # of the whole body, forwards


POSES = (
    Pose(),
    Pose(
        hips=(26, -20), knees=(8, 26), arms=(-28, 28), elbows=(22, 26), lean=4
    ),  # walk
    Pose((66, -22), (80, 70), 2, (-55, 50), (8, 8), (90, 90), lean=16),  # run
    Pose(arms=(165, 160), aside=(18, 18), straddle=8),  # arms up
    Pose(arms=(5, 120), aside=(10, 50), elbows=(12, 60)),  # wave
    Pose((2, -2), (4, 4), 30, (5, 5), (105, 105)),  # star
    Pose((82, -38), (84, 34), 4, (75, -40), lean=14),  # lunge
    Pose((92, -8), (8, 18), 4, (20, 40), (65, 50), (30, 40), lean=-18),  # kick
    Pose((112, 98), (128, 122), 10, (45, 50), elbows=(40, 35), lean=38),  # crouch
    Pose((98, 92), (55, 78), 8, (-32, -36), (20, 20), lean=-16),  # sit
    Pose((85, 2), (88, 98), 6, (30, 8), elbows=(60, 20)),  # kneel
    Pose((88, 68), (92, 84), 8, (92, 76), (6, 6), (8, 8), lean=0, fall=76),  # crawl
    Pose(arms=(95, 85), aside=(8, 8), straddle=8, lean=72),  # bow
    Pose((10, -12), (12, 30), 8, (165, 155), (14, 14), lean=-8, fall=86),  # prone
    Pose((48, 20), (75, 20), 8, (-40, 12), (25, 12), (30, 70), 18, -74),  # recline
)


@dataclasses.dataclass(frozen=True)
class _Look:
    skin: Vector
    hair: Vector
    style: str  # of the hair: short, long, bun, bald or cap
    cap: Vector
    shirt: Vector
    print: Vector  # the shirt's pattern
    trousers: Vector
    shoes: Vector
    sleeves: int  # bones of each arm that they cover
    legs: int  # bones of each leg that the trousers cover
    skirt: bool


def human(rng: random.Random) -> tuple[Body, str]:
    """Returns a human and the kind of pattern on the shirt."""
    pose, look = pick(rng, POSES), _look(rng)
    body = Body()
    lean = pose.lean + rng.uniform(-5, 5)
    chest = along((0.0, 1.0, 0.0), 0.36, 180 - lean)
    _torso(body, chest, look)
    if look.skirt and max(pose.hips) < 30:
        _skirt(body, look)
    for i, side in enumerate((1, -1)):
        hip, arm = pose.hips[i] + _slack(rng), pose.arms[i] + _slack(rng)
        knee = max(pose.knees[i] + _slack(rng), 0.0)
        elbow = max(pose.elbows[i] + _slack(rng), 0.0)
        _leg(body, side, hip, knee, side * (pose.straddle + rng.uniform(-3, 3)), look)
        out = side * (pose.aside[i] + rng.uniform(-5, 5))
        _arm(body, chest, side, arm, elbow, out, look)
    _head(body, chest, lean, rng.uniform(-10, 10), look)
    body = body.turned(-pose.fall, axis=2).grounded()
    return body, pick(rng, ("stripes", "stripes", "blotches", "mottle"))


def _slack(rng: random.Random) -> float:
    return rng.uniform(-9, 9)


def _look(rng: random.Random) -> _Look:
    shirt = cloth(rng)
    return _Look(
        skin=jitter(rng, pick(rng, SKINS)),
        hair=jitter(rng, pick(rng, HAIRS)),
        style=pick(rng, ("short", "long", "bun", "bald", "cap")),
        cap=cloth(rng),
        shirt=shirt,
        print=pick(rng, (shirt, cloth(rng), WHITE)),
        trousers=cloth(rng),
        shoes=cloth(rng),
        sleeves=pick(rng, (0, 1, 2, 2)),
        legs=pick(rng, (1, 2, 2, 2)),
        skirt=rng.random() < 0.3,
    )


def _torso(body: Body, chest: Vector, look: _Look) -> None:
    x, y, _ = chest
    shirt = (look.shirt, look.print)
    for side in (1, -1):
        hip = (0.0, 0.9, 0.08 * side)
        body.bone((0.0, 0.96, 0.075 * side), hip, (0.105, 0.1), look.trousers)
        for aside in (0.045, 0.09):
            low, high = (0.0, 1.02, 0.7 * aside * side), (x, y, aside * side)
            body.bone(low, high, (0.09, 0.115), *shirt)
        neck, shoulder = (x, y + 0.02, 0.08 * side), (x, y + 0.06, 0.16 * side)
        body.bone(neck, shoulder, (0.09, 0.065), *shirt)
    body.bone((0.0, 1.02, 0.0), chest, (0.09, 0.115), *shirt)


def _skirt(body: Body, look: _Look) -> None:
    for pleat in range(0, 360, 24):
        c, s = cos(pleat), sin(pleat)
        waist, hem = (0.05 * c, 1.02, 0.09 * s), (0.19 * c, 0.58, 0.22 * s)
        body.bone(waist, hem, (0.095, 0.06), look.shirt, look.print)


def _leg(body, side: int, hip: float, knee: float, out: float, look: _Look) -> None:
    cloths = [look.trousers] * look.legs + [look.skin] * 2
    root, shin = (0.0, 0.94, 0.1 * side), hip - knee
    joint = body.bone(root, along(root, 0.42, hip, out), (0.1, 0.063), cloths[0])
    ankle = along(joint, 0.42, shin, 0.6 * out)
    body.bone(joint, ankle, (0.063, 0.043), cloths[1])
    toe = along(ankle, 0.19, shin + 85, out)
    body.bone(along(ankle, 0.04, shin), toe, (0.05, 0.037), look.shoes)


def _arm(body, chest, side: int, swing: float, elbow: float, out: float, look) -> None:
    shirt, skin = (look.shirt, look.print), (look.skin, look.skin)
    cloths = [shirt] * look.sleeves + [skin] * 2
    shoulder = (chest[0], chest[1] + 0.06, 0.2 * side)
    joint = along(shoulder, 0.28, swing, out)
    body.bone(shoulder, joint, (0.062, 0.046), *cloths[0])
    wrist = along(joint, 0.25, swing + elbow, 0.8 * out)
    body.bone(joint, wrist, (0.046, 0.034), *cloths[1])
    body.bone(wrist, along(wrist, 0.09, swing + elbow, 0.8 * out), (0.035, 0.04), *skin)


def _head(body: Body, chest: Vector, lean: float, nod: float, look: _Look) -> None:
    neck = along(chest, 0.13, 180 - lean)
    nape = along(neck, 0.1, 180 - 0.6 * lean)
    body.bone(neck, nape, (0.058, 0.052), look.skin)
    up = 180 - 0.4 * lean + nod

    def on_head(height: float, front: float, side: float = 0.0) -> Vector:
        x, y, _ = along(along(nape, height, up), front, up - 90)
        return (x, y, side)

    body.bone(on_head(0.02, 0.035), on_head(0.13, 0.005), (0.068, 0.1), look.skin)
    body.ball(on_head(0.07, 0.105), 0.02, look.skin)  # nose
    body.bone(on_head(0.025, 0.083, -0.022), on_head(0.025, 0.083, 0.022),
              (0.011, 0.011), LIPS)  # fmt: skip
    for side in (1, -1):
        body.ball(on_head(0.1, 0.093, 0.038 * side), 0.014, BLACK)
        body.ball(on_head(0.11, 0.005, 0.098 * side), 0.024, look.skin)  # ear
    if look.style != "bald":
        _hair(body, on_head, look)


def _hair(body: Body, on_head, look: _Look) -> None:
    cap = look.style == "cap"
    body.ball(on_head(0.158, -0.017), 0.103, look.cap if cap else look.hair)
    nape = on_head(-0.01, -0.05)
    body.bone(on_head(0.13, -0.04), nape, (0.085, 0.06), look.hair)
    if cap:
        for side in (-0.045, 0.0, 0.045):
            brim = on_head(0.18, 0.105, side), on_head(0.17, 0.18, side)
            body.bone(*brim, (0.042, 0.03), look.cap)
    if look.style == "long":
        back = (nape[0], nape[1] - 0.22, nape[2])
        body.bone(on_head(0.13, -0.045), back, (0.09, 0.06), look.hair)
    if look.style == "bun":
        body.ball(on_head(0.16, -0.13), 0.06, look.hair)
