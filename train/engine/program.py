"""The compiled functions of a run."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from train.config import Config
from train.engine.batches import Batch, padded_size
from train.engine.feed import Feed
from train.engine.state import State
from train.engine.step import Totals, evaluate, train_step
from train.engine.task import Task


class Program(NamedTuple):
    """The compiled functions of a run.

    Attributes:
      train_steps: as `Feed.compile` makes it.
      evaluate: from the state, a split and its size; None if it is not wanted.
      compile_seconds: what compiling took.
    """

    train_steps: Callable[..., tuple[State, Totals, dict[str, Array]]]
    evaluate: Callable[..., Totals] | None
    compile_seconds: float


def compile_program(
    config: Config,
    task: Task,
    tx: optax.GradientTransformation,
    shares: Callable[[Any], dict[str, Array]],
    state: State,
    feed: Feed,
    held_out: Batch,
    mesh: Mesh,
) -> Program:
    """Compiles the train steps, and the evaluation if it is wanted, ahead of time."""
    start = time.perf_counter()
    step = functools.partial(train_step, task=task, tx=tx, shares=shares, mesh=mesh)
    compiled_steps = feed.compile(step, state)
    compiled_evaluate = None
    if config.evaluate:
        compiled_evaluate = compile_evaluation(config, task, state, held_out, mesh)
    seconds = time.perf_counter() - start
    return Program(compiled_steps, compiled_evaluate, seconds)


def compile_evaluation(
    config: Config, task: Task, state: State, split: Batch, mesh: Mesh
) -> Callable[..., Totals]:
    """Compiles the evaluation of a split that is on the devices."""
    share = padded_size(config.batch_size, mesh) // mesh.size
    per_turn = min(task.per_turn or share, share)
    evaluation = functools.partial(evaluate, task=task, mesh=mesh, per_turn=per_turn)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.jit(evaluation).lower(state, split, count).compile()
