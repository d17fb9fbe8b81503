"""Training of many runs in one program: rates and seeds, split over all devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from train.study.limits import arms
from train.study.limits.data import Examples
from train.study.limits.problems import Problem

SIDE_BY_SIDE = 10  # runs at once, so that each arm is compiled once
POINTS = 100  # of a curve, each the mean training loss of as many steps
END = 5  # points at the end whose mean is the final training loss


class Trained(NamedTuple):
    """What runs leave.

    Attributes:
      curve: mean training loss over each hundredth of the steps, `(runs, POINTS)`.
      judged: what the problem judges the end by, on held-out examples, `(runs,)`.
      params: at the end, with the runs in front.
    """

    curve: Array
    judged: Array
    params: Any


def train(
    problem: Problem,
    optimizer: str,
    arm: str,
    rates: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    stop: int | None = None,
) -> Trained:
    """Trains one run for each rate and seed, side by side.

    Within a seed all arms and rates share the initial params and the batches.

    Args:
      problem: what is trained.
      optimizer: "adam" or "sgd".
      arm: as in `arms.transformation`.
      rates: of the runs.
      seeds: of the runs, as many, at most `SIDE_BY_SIDE`.
      steps: of a run's schedule.
      stop: steps to take, if not all.
    """
    rows = np.arange(SIDE_BY_SIDE) % len(seeds)
    runs = np.float32(rates)[rows], np.uint32(seeds)[rows]
    found = compiled(problem, optimizer, arm, steps, stop or steps)(
        *runs, problem.split
    )
    return jax.tree.map(lambda x: np.asarray(x[: len(seeds)]), found)


@functools.cache
def compiled(
    problem: Problem, optimizer: str, arm: str, steps: int, stop: int
) -> Callable[..., Trained]:
    """Returns the function that trains `SIDE_BY_SIDE` runs, split over the devices.

    Those of a device are trained one after another: on CPUs `vmap` over them, with the
    same figures but for rounding, takes up to 1.2 times as long, and for the
    convolutional networks 1.5 to 1.8 times.
    """
    one = functools.partial(run, problem, optimizer, arm, steps, stop)
    count = max(n for n in divisors(SIDE_BY_SIDE) if n <= jax.device_count())
    several = jax.shard_map(
        lambda rates, seeds, split: jax.lax.map(
            lambda run: one(*run, split), (rates, seeds)
        ),
        mesh=Mesh(jax.devices()[:count], "runs"),
        in_specs=(P("runs"), P("runs"), P()), out_specs=P("runs"), check_vma=False,
    )  # fmt: skip
    return jax.jit(several)


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number."""
    return [n for n in range(1, number + 1) if number % n == 0]


def run(
    problem: Problem,
    optimizer: str,
    arm: str,
    steps: int,
    stop: int,
    rate: Array,
    seed: Array,
    split: Any,
) -> Trained:
    """Trains one run; `split` is the problem's, as arrays of the device."""
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    params = problem.init(init_key)
    tx = arms.transformation(problem, optimizer, arm, params, rate, steps)
    count = len(split.train.x)

    def step(carry: Any, i: Array) -> tuple[Any, Array]:
        params, state = carry
        key = jax.random.fold_in(batch_key, i)
        rows = jax.random.randint(key, (problem.batch_size,), 0, count)
        batch = Examples(*(part[rows] for part in split.train))
        loss, grads = jax.value_and_grad(problem.loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.lax.scan(
        step, (params, tx.init(params)), jnp.arange(stop)
    )
    points = min(POINTS, stop)
    curve = losses[: stop // points * points].reshape(points, -1).mean(1)
    return Trained(curve, problem.judge(params, split.held_out), params)


def final(curve: np.ndarray) -> np.ndarray:
    """Returns the final training loss of curves `(runs, POINTS)`: the end's mean."""
    return curve[:, -END:].mean(1)
