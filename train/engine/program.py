"""The compiled functions of a run, and the data that they work on."""

import time
from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from train.engine import feed
from train.engine.evaluation import HeldOut, held_out
from train.engine.run import Run
from train.engine.state import State
from train.engine.step import Totals
from train.engine.task import watched_split


class Program(NamedTuple):
    """The compiled functions of a run, and the data that they work on.

    Attributes:
      feed: brings the training examples to the steps.
      train_steps: the result of `Feed.compile`.
      held_out: the split that is evaluated while training.
      compile_seconds: the time that compiling took.
    """

    feed: feed.Feed
    train_steps: Callable[..., tuple[State, Totals, dict[str, Array]]]
    held_out: HeldOut
    compile_seconds: float


def compile_program(run: Run, state: State) -> Program:
    """Compiles the train steps ahead of time, and the evaluation if it is wanted."""
    brought = feed.choose(run.config, run.task.splits["train"], run.mesh)
    watched = held_out(run, watched_split(run.task))
    start = time.perf_counter()
    steps = brought.compile(run.step(), state)
    if run.config.evaluate:
        watched = watched.compiled(run, state)
    return Program(brought, steps, watched, time.perf_counter() - start)
