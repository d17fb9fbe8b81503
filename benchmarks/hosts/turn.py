"""What `benchmarks.processes` measures in each process: a step and an all-reduce."""

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.epochs import random_tasks
from train import horses
from train.engine import batches, feed, processes
from train.engine.run import begin

DEVICES = pathlib.Path("/proc/net/dev")


class Turn(NamedTuple):
    """The result of one turn: seconds of a step and of its all-reduce alone, and bytes.

    The bytes of a step and of an all-reduce are those of all processes together.
    """

    step: float
    reduce: float
    step_bytes: float
    reduce_bytes: float


def loopback_bytes(devices: str) -> int:
    """Returns the bytes that the loopback has sent, from the text of /proc/net/dev."""
    line = next(line for line in devices.splitlines() if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[8])


def measure(config: horses.Config, side: int, steps: int) -> Turn:
    """Returns what this process measures.

    Args:
      config: the configuration of the run that all processes share.
      side: height and width of the images, in pixels.
      steps: the number of steps to time, and of all-reduces.
    """
    processes.join(config)
    dataset = random_tasks.images(config.batch_size, (side, side, 3), 2)
    task = horses.task(config, dataset)
    run, state = begin(config, task)
    state = processes.replicate(state, run.mesh)
    brought = feed.HostFeed(task.splits["train"], config.batch_size, run.mesh)
    compiled = brought.compile(run.step(), state)
    batch = next(brought.works([np.arange(config.batch_size)], ())).inputs
    reduce, ones = all_reduce(run.start_params, run.mesh)
    seconds, sent = time_calls(
        lambda state: compiled(state, *batch, run.key)[0], state, steps
    )
    reduce_seconds, reduce_sent = time_calls(lambda _: reduce(ones), None, steps)
    return Turn(seconds, reduce_seconds, sent, reduce_sent)


def all_reduce(like: Any, mesh: Mesh) -> tuple[Callable[[Any], Any], Any]:
    """Returns a function that sums a tree over the devices, and a tree of ones to sum.

    Args:
      like: arrays with the shapes on each device.
      mesh: the devices.
    """

    def ones(x: Any) -> jax.Array:
        return batches.spread(np.ones((mesh.size, *x.shape), x.dtype), P("batch"), mesh)

    def total(x: Any) -> Any:
        return jax.lax.psum(x, "batch")

    summed = jax.shard_map(total, mesh=mesh, in_specs=P("batch"), out_specs=P())
    return jax.jit(summed), jax.tree.map(ones, like)


def time_calls(
    call: Callable[[Any], Any], carry: Any, calls: int
) -> tuple[float, float]:
    """Returns the median seconds of a call, and the loopback's bytes per call.

    Args:
      call: a function that returns the next call's argument.
      carry: the first call's argument.
      calls: how many calls are timed.
    """
    carry, seconds = jax.block_until_ready(call(carry)), []  # warms up
    before = loopback_bytes(DEVICES.read_text())
    for _ in range(calls):
        start = time.perf_counter()
        carry = jax.block_until_ready(call(carry))
        seconds.append(time.perf_counter() - start)
    sent = loopback_bytes(DEVICES.read_text()) - before
    return statistics.median(seconds), sent / calls
