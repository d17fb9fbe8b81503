"""The compiled functions of a run."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.config import Config
from train.engine.batches import Batch, padded_size
from train.engine.state import State
from train.engine.step import Totals, evaluate, train_step
from train.engine.task import Examples, Task


class Program(NamedTuple):
    """The compiled functions of a run.

    Attributes:
      train_step: from the state, a batch, its size and a key.
      evaluate: from the state, a split and its size; None if it is not wanted.
      compile_seconds: what compiling took.
    """

    train_step: Callable[..., tuple[State, Totals, dict[str, Array]]]
    evaluate: Callable[..., Totals] | None
    compile_seconds: float


def compile_program(
    config: Config,
    task: Task,
    tx: optax.GradientTransformation,
    shares: Callable[[Any], dict[str, Array]],
    state: State,
    held_out: Batch,
    mesh: Mesh,
) -> Program:
    """Compiles the train step, and the evaluation if it is wanted, ahead of time."""
    start = time.perf_counter()
    size = padded_size(config.batch_size, mesh)
    batch = batch_shapes(task.splits["train"], size, mesh)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    step = functools.partial(train_step, task=task, tx=tx, shares=shares, mesh=mesh)
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch, count, key)
    compiled_step = lowered.compile()
    compiled_evaluate = None
    if config.evaluate:
        compiled_evaluate = compile_evaluation(config, task, state, held_out, mesh)
    seconds = time.perf_counter() - start
    return Program(compiled_step, compiled_evaluate, seconds)


def compile_evaluation(
    config: Config, task: Task, state: State, split: Batch, mesh: Mesh
) -> Callable[..., Totals]:
    """Compiles the evaluation of a split that is on the devices."""
    share = padded_size(config.batch_size, mesh) // mesh.size
    per_turn = min(task.per_turn or share, share)
    evaluation = functools.partial(evaluate, task=task, mesh=mesh, per_turn=per_turn)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.jit(evaluation).lower(state, split, count).compile()


def batch_shapes(examples: Examples, size: int, mesh: Mesh) -> Batch:
    """Returns the shapes of a batch of `size` examples, spread over the devices."""
    spread = NamedSharding(mesh, P("batch"))

    def shape_of(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=spread)

    positions = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=spread)
    return Batch(jax.tree.map(shape_of, examples), positions)
