"""Feeds training examples to the steps, from the host or from the devices.

From the host, a batch is sent while the step before it runs. From the devices, one
dispatch takes many steps, and the host sends only the examples' numbers. Each device
then holds all examples and gathers its own share of a batch. Batches are drawn from the
whole set, so a device with only a part of it would have to ask the others for most of
each batch.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.config import Config
from train.engine.batches import (
    Batch,
    batch_shapes,
    deal,
    dealt,
    order,
    padded_size,
    spread,
)
from train.engine.processes import replicate
from train.engine.state import State
from train.engine.task import Examples, take

SHARE = 1 / 8  # of a device's memory that the training examples may take
TURN = 64  # the most steps that a device takes before it reports

COUNT = jax.ShapeDtypeStruct((), jnp.int32)


class Work(NamedTuple):
    """Steps that are dispatched together.

    Attributes:
      inputs: the arguments of the compiled steps between the state and the key.
      counts: the number of examples in each step.
    """

    inputs: tuple[Any, ...]
    counts: tuple[int, ...]


class Feed(Protocol):
    """Brings examples to the step."""

    def compile(self, step: Callable[..., Any], state: State) -> Callable[..., Any]:
        """Returns the compiled steps.

        Args:
          step: maps a state, a batch, its size and a key to the next state and a report
            of the step.
          state: a state, or its shapes.

        Returns:
          A function that maps a state, a work's inputs and a key to the state after all
          its steps and the reports, along a first axis if there can be several steps.
        """

    def works(
        self, batches: Sequence[np.ndarray], ends: Collection[int]
    ) -> Iterator[Work]:
        """Yields the work of some batches, given by the numbers of their examples.

        Args:
          batches: int64 `(B,)` each.
          ends: positions of the batches after which a work must end.
        """


def choose(config: Config, examples: Examples, mesh: Mesh) -> Feed:
    """Returns the feed that `--feed` asks for, or that suits the devices."""
    where = config.feed
    if where == "auto":
        where = "device" if fits(examples, mesh) else "host"
    made = {"host": HostFeed, "device": DeviceFeed}[where]
    return made(examples, config.batch_size, mesh)


def fits(examples: Examples, mesh: Mesh) -> bool:
    """Tells whether the devices have their own memory, with room for all examples."""
    device = mesh.local_devices[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    limit = (stats or {}).get("bytes_limit", 0)
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in examples)
    return size <= SHARE * limit


class HostFeed:
    """Examples in the host's memory: each step's batch is sent to the devices."""

    def __init__(self, examples: Examples, batch_size: int, mesh: Mesh):
        self.examples, self.batch_size, self.mesh = examples, batch_size, mesh

    def compile(self, step: Callable[..., Any], state: State) -> Callable[..., Any]:
        size = padded_size(self.batch_size, self.mesh)
        batch = batch_shapes(self.examples, size, self.mesh)
        key = jax.eval_shape(jax.random.key, 0)
        return jax.jit(step, donate_argnums=0).lower(state, batch, COUNT, key).compile()

    def works(
        self, batches: Sequence[np.ndarray], ends: Collection[int]
    ) -> Iterator[Work]:
        del ends  # each step is its own work
        for rows in batches:
            batch = deal(self.examples, rows, self.batch_size, self.mesh)
            yield Work((batch, np.int32(len(rows))), (len(rows),))


class DeviceFeed:
    """Examples in each device's memory: up to `TURN` steps in one dispatch."""

    def __init__(self, examples: Examples, batch_size: int, mesh: Mesh):
        self.size, self.mesh = padded_size(batch_size, mesh), mesh
        places = order(self.size, mesh)
        self.held = replicate(examples, mesh), spread(places, P("batch"), mesh)

    def compile(self, step: Callable[..., Any], state: State) -> Callable[..., Any]:
        compiled = lower_turn(step, state, self.held, self.mesh).compile()
        return lambda state, *inputs: compiled(state, *self.held, *inputs)

    def works(
        self, batches: Sequence[np.ndarray], ends: Collection[int]
    ) -> Iterator[Work]:
        start = 0
        for i in range(len(batches)):
            if i + 1 - start == TURN or i in ends or i + 1 == len(batches):
                yield self.work(batches[start : i + 1])
                start = i + 1

    def work(self, batches: Sequence[np.ndarray]) -> Work:
        """Returns the work of a few batches."""
        counts = tuple(map(len, batches))
        padding = (0, TURN - len(batches))
        rows = np.stack([dealt(rows, self.size, self.mesh) for rows in batches])
        rows = np.pad(rows.astype(np.int32), (padding, (0, 0)))
        padded = np.pad(np.array(counts, np.int32), padding)
        rows = spread(rows, P(None, "batch"), self.mesh)
        return Work((rows, padded, np.int32(len(batches))), counts)


def lower_turn(
    step: Callable[..., Any], state: State, held: Any, mesh: Mesh
) -> jax.stages.Lowered:
    """Returns `take_steps`, lowered for the devices.

    Args:
      step: as for `Feed.compile`.
      state: a state, or its shapes.
      held: the examples and the positions that the devices hold, or their shapes.
      mesh: the devices.
    """
    shape = (TURN, *held[1].shape)
    sharding = NamedSharding(mesh, P(None, "batch"))
    rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)
    counts = jax.ShapeDtypeStruct((TURN,), jnp.int32)
    many = functools.partial(take_steps, step=step, mesh=mesh)
    arguments = (state, *held, rows, counts, COUNT, jax.eval_shape(jax.random.key, 0))
    return jax.jit(many, donate_argnums=0).lower(*arguments)


def take_steps(
    state: State,
    examples: Examples,
    positions: Array,
    rows: Array,
    counts: Array,
    steps: Array,
    key: Array,
    *,
    step: Callable[..., Any],
    mesh: Mesh,
) -> tuple[State, ...]:
    """Returns the state after some steps, and the report of each.

    This is a loop over the number of steps rather than a `lax.scan`, so that one
    compiled program serves any number of steps up to `TURN`.

    Args:
      state: the state before the first step.
      examples: all examples, on each device.
      positions: each row's position in a batch, int32 `(B,)`, spread over the devices.
      rows: the examples of each step, int32 `(TURN, B)`, spread over the devices.
      counts: how many of them are not padding, int32 `(TURN,)`.
      steps: number of steps, int32 scalar.
      key: the key of the run's steps.
      step: takes one step.
      mesh: the devices.
    """
    share, every = P("batch"), P()
    gather = jax.shard_map(take, mesh=mesh, in_specs=(every, share), out_specs=share)

    def one_step(i: Array | int, state: State) -> tuple[State, Any]:
        batch = Batch(gather(examples, rows[i]), positions)
        after, *told = step(state, batch, counts[i], key)
        return after, told

    def go_on(i: Array, carry: tuple[State, Any]) -> tuple[State, Any]:
        state, told = carry
        state, now = one_step(i, state)
        return state, jax.tree.map(lambda all_, x: all_.at[i].set(x), told, now)

    _, shapes = jax.eval_shape(one_step, 0, state)
    told = jax.tree.map(lambda x: jnp.zeros((TURN, *x.shape), x.dtype), shapes)
    state, told = jax.lax.fori_loop(0, steps, go_on, (state, told))
    return state, *told
