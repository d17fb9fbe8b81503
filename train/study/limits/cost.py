"""What a step of each arm costs, in turn on one machine."""

import time
from typing import Any

import jax
import numpy as np

from train.study.limits import training
from train.study.limits.problems import Problem
from train.study.limits.store import Store

PART = "cost"
ARMS = ("none", "gradient", "update", "muon", "muon-gradient")
STEPS = 50  # that are timed
ROUNDS = 5
RATE = 1e-4


def key(problem: Problem, arm: str) -> dict[str, Any]:
    """Returns what the record of an arm's cost is found by."""
    return {
        "part": PART, "problem": problem.name, "optimizer": "adam", "arm": arm,
        "steps": STEPS, "rate": RATE,
    }  # fmt: skip


def measure(store: Store, problem: Problem) -> None:
    """Times the steps of all arms that use Adam, once; nothing else should run."""
    if None not in [store.get(key(problem, arm)) for arm in ARMS]:
        return
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(ROUNDS + 1):  # the first of which compiles
        for arm in ARMS:
            start = time.perf_counter()
            run(problem, arm)
            seconds[arm].append((time.perf_counter() - start) / STEPS)
    for arm in ARMS:
        store.add(key(problem, arm) | {"seconds": seconds[arm][1:]})


def run(problem: Problem, arm: str) -> None:
    """Trains as many runs as fit side by side for a while."""
    count = training.SIDE_BY_SIDE
    out = training.train(
        problem, "adam", arm, [RATE] * count, range(count), problem.steps, STEPS
    )
    jax.block_until_ready(out)


def ratio(store: Store, problem: Problem, optimizer: str, arm: str) -> float | None:
    """Returns the time of an arm's step over that of `none`; None if not measured.

    The median over the rounds, in each of which the arms took turns.
    """
    records = [store.get(key(problem, name)) for name in (arm, "none")]
    if optimizer != "adam" or None in records:
        return None
    ours, theirs = (np.array(record["seconds"]) for record in records)
    return float(np.median(ours / theirs))
