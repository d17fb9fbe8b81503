"""One pass over the training data, as a stream of steps."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from train.engine.checkpoint import Progress
from train.engine.feed import Work
from train.engine.program import Program
from train.engine.state import State
from train.engine.step import Totals
from train.faults import Failure


class Diverged(Failure):
    """A loss or parameters that are no longer finite."""


class Step(NamedTuple):
    """The report of a step.

    Attributes:
      progress: how far the run is after the step.
      removed: the share that each kernel's gradient lost, by path.
      state: the state after the step, if the devices have stopped there; None inside a
        dispatch. It is no longer valid once the next step is requested.
    """

    progress: Progress
    removed: dict[str, float]
    state: State | None


def train_epoch(
    program: Program,
    state: State,
    works: Iterator[Work],
    key: Array,
    progress: Progress,
) -> Iterator[Step]:
    """Runs one piece of work after another and yields each step.

    The time until the next step is requested is not counted.

    Args:
      program: the compiled functions.
      state: the state at the start.
      works: the steps to take.
      key: the key of the run's steps.
      progress: how far the epoch is at the start.

    Raises:
      Diverged: if a step's loss is not finite.
    """
    start = time.perf_counter() - progress.seconds
    work = next(works, None)
    while work is not None:
        state, *told = program.train_steps(state, *work.inputs, key)
        counts, work = work.counts, next(works, None)  # while the devices work
        told = jax.tree.map(np.atleast_1d, jax.device_get(told))
        pause = time.perf_counter()
        for i, count in enumerate(counts):
            totals, removed = jax.tree.map(lambda x, i=i: float(x[i]), told)
            progress = advanced(progress, count, totals, removed, pause - start)
            yield Step(progress, removed, state if i + 1 == len(counts) else None)
        start += time.perf_counter() - pause


def advanced(
    progress: Progress,
    count: int,
    totals: Totals,
    removed: Mapping[str, float],
    seconds: float,
) -> Progress:
    """Returns the progress after a step on `count` examples.

    Raises:
      Diverged: if its loss is not finite.
    """
    loss, score = totals
    step = progress.steps + 1
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss is {loss / count} at epoch {progress.epoch}, step {step}."
        )
    return dataclasses.replace(
        progress,
        steps=step,
        images=progress.images + count,
        loss=progress.loss + loss,
        score=progress.score + score,
        seconds=seconds,
        removed={
            path: progress.removed.get(path, 0.0) + share
            for path, share in removed.items()
        },
    )


def check_finite(state: State, progress: Progress) -> None:
    """Raises `Diverged` unless all parameters are finite."""
    params = jax.tree.leaves(jax.device_get(state.params))
    if not all(np.isfinite(leaf).all() for leaf in params):
        raise Diverged(
            f"parameters are not finite after epoch {progress.epoch}, "
            f"step {progress.steps}."
        )
