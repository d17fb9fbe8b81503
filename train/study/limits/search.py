"""Each arm's own best rate, and fresh seeds at it."""

import dataclasses
import math
import time
from typing import Any

import numpy as np

from train.study.limits import training
from train.study.limits.problems import Problem
from train.study.limits.store import Store

TUNING_SEEDS = (100, 101, 102)
FRESH_SEEDS = tuple(range(10))
FURTHEST = 12  # factors of two from the first rate: beyond it something is wrong


@dataclasses.dataclass(frozen=True)
class Entry:
    """An arm of a problem, with its optimizer and the steps of its runs."""

    problem: Problem
    optimizer: str
    arm: str
    steps: int

    def key(self, part: str, rate: float) -> dict[str, Any]:
        """Returns what its records are found by."""
        return {
            "part": part, "problem": self.problem.name, "optimizer": self.optimizer,
            "arm": self.arm, "steps": self.steps, "rate": rate,
        }  # fmt: skip

    def train(self, rates: list[float], seeds: tuple[int, ...]) -> training.Trained:
        """Trains each rate with each seed."""
        runs = [(rate, seed) for rate in rates for seed in seeds]
        return training.train(
            self.problem, self.optimizer, self.arm, *zip(*runs, strict=True), self.steps
        )


def best_rate(store: Store, entry: Entry, first: float) -> float:
    """Returns the rate of an arm with the least final training loss.

    By the mean of its logarithm over the tuning seeds, among rates a factor of two
    apart, of which the best is neither the first nor the last.

    Args:
      store: keeps what is trained.
      entry: the arm.
      first: where the search begins.
    """
    losses: dict[int, float] = {}
    ahead = [-1, 0, 1]
    while ahead:
        found = tune(store, entry, [first * 2.0**place for place in ahead])
        losses |= dict(zip(ahead, found, strict=True))
        ahead = beyond(losses)
    return first * 2.0 ** min(losses, key=losses.__getitem__)


def beyond(losses: dict[int, float]) -> list[int]:
    """Returns the next three places to look at; none if the best has two neighbours.

    Args:
      losses: by the place of their rate on the grid.

    Raises:
      ValueError: if the loss goes on falling far from where the search began.
    """
    best = min(losses, key=losses.__getitem__)
    if abs(best) > FURTHEST:
        raise ValueError(f"no best rate within {FURTHEST} factors of two of the first.")
    if best == max(losses):
        return [best + 1, best + 2, best + 3]
    if best == min(losses):
        return [best - 3, best - 2, best - 1]
    return []


def tune(store: Store, entry: Entry, rates: list[float]) -> list[float]:
    """Returns the mean logarithm of the final loss at each rate; infinite if diverged.

    What is not in the store is trained and put there.
    """
    keys = [entry.key("tune", rate) for rate in rates]
    if None in map(store.get, keys):
        out = entry.train(rates, TUNING_SEEDS)
        ends = training.final(out.curve).reshape(len(rates), -1)
        judged = out.judged.reshape(len(rates), -1)
        for key, *values in zip(keys, ends, judged, strict=True):
            store.add(key | results(TUNING_SEEDS, *values))
    means = [np.mean(np.log(store.get(key)["train"])) for key in keys]
    return [float(mean) if math.isfinite(mean) else math.inf for mean in means]


def results(
    seeds: tuple[int, ...], train: np.ndarray, judged: np.ndarray
) -> dict[str, Any]:
    """Returns what a record says of its runs, a value a seed."""
    return {"seeds": seeds, "train": train.tolist(), "judged": judged.tolist()}


def fresh(store: Store, entry: Entry, rate: float) -> dict[str, Any]:
    """Returns the record of an arm's fresh seeds at its best rate, with curves."""
    key = entry.key("fresh", rate)
    if store.get(key) is None:
        start = time.perf_counter()
        out = entry.train([rate], FRESH_SEEDS)
        seconds = time.perf_counter() - start
        curves = [[float(f"{loss:.6g}") for loss in curve] for curve in out.curve]
        ends = results(FRESH_SEEDS, training.final(out.curve), out.judged)
        store.add(key | ends | {"curves": curves, "seconds": seconds})
    return store.get(key)
