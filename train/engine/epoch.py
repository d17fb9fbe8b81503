"""One pass over the training data."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax import Array

from train.engine.batches import Batch
from train.engine.checkpoint import Progress
from train.engine.program import Program
from train.engine.state import State
from train.faults import Failure


class Diverged(Failure):
    """A loss or parameters that are no longer finite."""


def train_epoch(
    program: Program,
    state: State,
    batches: Iterable[tuple[Batch, int]],
    key: Array,
    progress: Progress,
    on_step: Callable[[State, Progress, dict[str, float]], bool],
) -> tuple[State, Progress]:
    """Takes one step a batch, until they end or `on_step` says so.

    Args:
      program: the compiled functions.
      state: the state at the start.
      batches: each batch and the number of examples in it.
      key: the key of the run's steps.
      progress: how far the epoch is at the start.
      on_step: called after each step with the state, the progress and the share that
        each kernel's gradient lost; returns whether to go on. Its time is not counted.

    Raises:
      Diverged: if a step's loss is not finite.
    """
    start = time.perf_counter() - progress.seconds
    batches = iter(batches)
    batch = next(batches, None)
    while batch is not None:
        examples, count = batch
        state, *told = program.train_step(state, examples, np.int32(count), key)
        batch = next(batches, None)  # made ready while the devices work
        (loss, correct), removed = jax.tree.map(float, jax.device_get(told))
        progress = dataclasses.replace(
            progress,
            steps=progress.steps + 1,
            images=progress.images + count,
            loss=progress.loss + loss,
            correct=progress.correct + correct,
            seconds=time.perf_counter() - start,
            removed={
                path: progress.removed.get(path, 0.0) + share
                for path, share in removed.items()
            },
        )
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss / count} at epoch {progress.epoch}, "
                f"step {progress.steps}."
            )
        pause = time.perf_counter()
        go_on = on_step(state, progress, removed)
        start += time.perf_counter() - pause
        if not go_on:
            break
    return state, progress


def check_finite(state: State, progress: Progress) -> None:
    """Raises `Diverged` unless all parameters are finite."""
    params = jax.tree.leaves(jax.device_get(state.params))
    if not all(np.isfinite(leaf).all() for leaf in params):
        raise Diverged(
            f"parameters are not finite after epoch {progress.epoch}, "
            f"step {progress.steps}."
        )
