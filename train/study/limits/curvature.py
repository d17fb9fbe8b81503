"""How much farther a step could go with GC, measured before the gain is known."""

from typing import Any

import jax
import numpy as np

import optax_gc
from train.study.limits import training
from train.study.limits.arms import WARMUP, axes_of
from train.study.limits.order import chosen
from train.study.limits.problems import Problem
from train.study.limits.search import FRESH_SEEDS, Entry
from train.study.limits.store import Store

SEEDS = FRESH_SEEDS[:5]
EARLY = "sharpness"  # after `WARMUP` of the steps of `none`: the primary one
FIGURES = ("plain", "centralized", "ratio", "products")
START = "sharpness-start"  # at fresh params, where negative curvature may hide it


def measure(store: Store, problem: Problem, optimizer: str, part: str) -> dict:
    """Returns the record of a problem's sharpness along `none`, measured once."""
    entry = Entry(problem, optimizer, "none", problem.steps)
    key = entry.key(part, chosen(store, entry))
    if store.get(key) is None:
        found = [
            optax_gc.sharpness(
                problem.loss, params, problem.probe, axes=axes_of(problem, params)
            )
            for params in points(entry, key["rate"], part)
        ]
        store.add(
            key
            | {"seeds": SEEDS}
            | {name: [getattr(one, name) for one in found] for name in FIGURES}
        )
    return store.get(key)


def points(entry: Entry, rate: float, part: str) -> list[Any]:
    """Returns the params at which the sharpness is measured, of each seed."""
    problem = entry.problem
    if part == START:
        keys = [jax.random.split(jax.random.key(seed))[0] for seed in SEEDS]
        return [problem.init(key) for key in keys]
    stop = round(WARMUP * entry.steps)
    out = training.train(
        problem, entry.optimizer, entry.arm, [rate] * len(SEEDS), SEEDS, entry.steps,
        stop,
    )  # fmt: skip
    return [jax.tree.map(lambda x, i=i: x[i], out.params) for i in range(len(SEEDS))]


def ratio(record: dict[str, Any]) -> float:
    """Returns the geometric mean of a record's ratios over its seeds."""
    return float(np.exp(np.log(record["ratio"]).mean()))
