"""One pass over the training data."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping

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


def train_epoch(
    program: Program,
    state: State,
    works: Iterator[Work],
    key: Array,
    progress: Progress,
    on_step: Callable[[State, Progress, dict[str, float]], None],
    go_on: Callable[[], bool],
) -> tuple[State, Progress]:
    """Does some work after the other, until it ends or is to stop.

    Args:
      program: the compiled functions.
      state: the state at the start.
      works: the steps to take.
      key: the key of the run's steps.
      progress: how far the epoch is at the start.
      on_step: called of each step with the state after its work, the progress and the
        share that each kernel's gradient lost. Its time is not counted.
      go_on: called after each work, whether to go on; its time neither.

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
            on_step(state, progress, removed)
        if not go_on():
            break
        start += time.perf_counter() - pause
    return state, progress


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
