"""How the time of a train step splits: each part is timed as a separate function."""

import copy
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import PartitionSpec as P

from train.engine import processes
from train.engine.arms import taken_shares
from train.engine.batches import Batch, dealt, order, padded_size, spread
from train.engine.run import Run
from train.engine.state import State
from train.engine.step import on_each_device, over_share
from train.engine.task import Examples, take
from train.tasks.augment import augment
from train.tasks.fashion import crop_and_flip, standardized

Call: TypeAlias = Callable[[Any], Any]  # from the last call's result to the next one's

ROUND, LIMIT = 0.05, 3.0  # seconds per round, if calls are short; for all rounds
ROUNDS = (1, 15)  # the fewest and the most


def of_one_horse(key: Array, image: Array) -> Array:
    """Returns an image as `Horses` gives it to the network."""
    return augment(jax.random.split(key)[0], image)


def of_one_garment(key: Array, image: Array) -> Array:
    """Returns an image as `Fashion` gives it to the network."""
    return crop_and_flip(key, standardized(image))


AUGMENTATION = {"horses": of_one_horse, "fashion": of_one_garment}


def median_seconds(call: Call, carry: Any) -> float:
    """Returns the median time of a call; short calls follow each other without a pause.

    Args:
      call: a function that returns the next call's argument, on the devices.
      carry: the first call's argument.
    """
    carry = jax.block_until_ready(call(carry))  # compiles and warms up
    start = time.perf_counter()
    carry = jax.block_until_ready(call(carry))
    once = time.perf_counter() - start
    repeats = int(np.clip(ROUND / once, 1, 50))
    seconds = [once] if repeats == 1 else []
    for _ in range(int(np.clip(LIMIT / (once * repeats), *ROUNDS))):
        start = time.perf_counter()
        for _ in range(repeats):
            carry = call(carry)
        jax.block_until_ready(carry)
        seconds.append((time.perf_counter() - start) / repeats)
    return statistics.median(seconds)


def example_keys(key: Array, positions: Array) -> Array:
    """Returns the keys of some examples, as in the step."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)


def augmentation(name: str, run: Run) -> Callable[[Array, Batch], Array]:
    """Returns a function that augments a batch on the devices that hold it."""

    def share(key: Array, batch: Batch) -> Array:
        keys = example_keys(key, batch.positions)
        images, one = batch.examples[0], AUGMENTATION[name]
        if run.task.per_turn is None:
            return jax.vmap(one)(keys, images)
        turn = min(run.task.per_turn, len(images))
        return jax.lax.map(lambda x: one(*x), (keys, images), batch_size=turn)

    return jax.jit(
        jax.shard_map(
            share, mesh=run.mesh, in_specs=(P(), P("batch")), out_specs=P("batch"),
            check_vma=False,
        )
    )  # fmt: skip


def network(run: Run) -> Callable[..., Any]:
    """Returns a function to a batch's gradients, not augmented, summed over devices."""
    plain = copy.copy(run.task)
    plain.augmented = False

    def gradients(inputs: Any, share: Batch) -> tuple[Any, None]:
        variables, key, count = inputs
        rest = {k: v for k, v in variables.items() if k != "params"}

        def loss(params: Any, rows: Array, weights: Array) -> Array:
            scores, _ = plain.train_scores(
                {"params": params, **rest}, take(share.examples, rows),
                example_keys(key, share.positions[rows]), weights,
            )  # fmt: skip
            return jnp.sum(weights * scores.loss)

        turn = functools.partial(jax.grad(loss), variables["params"])
        return over_share(turn, share, count, plain.per_turn), None

    return jax.jit(lambda *args: on_each_device(run.mesh, gradients)(args[:3], args[3]))


def update(run: Run, grads: Any) -> Call:
    """Returns the update, a function of parameters and optimizer state to the next."""

    @functools.partial(jax.jit, donate_argnums=0)
    def call(carry: tuple[Any, Any], grads: Any) -> tuple[Any, Any]:
        params, opt_state = carry
        updates, opt_state = run.tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return lambda carry: call(carry, grads)


def on_devices(run: Run, indices: np.ndarray) -> tuple[Callable[..., Examples], Any]:
    """Returns a function that gathers a batch on the devices, and its arguments.

    The third argument has the positions in the batch.
    """
    share = P("batch")
    gather = jax.shard_map(take, mesh=run.mesh, in_specs=(P(), share), out_specs=share)
    size = padded_size(run.config.batch_size, run.mesh)
    rows = dealt(indices.astype(np.int32), size, run.mesh)
    places = (rows, order(size, run.mesh))
    placed = [spread(x, share, run.mesh) for x in places]
    held = processes.replicate(run.task.splits["train"], run.mesh)
    return jax.jit(gather), (held, *placed)


def split(
    name: str,
    run: Run,
    start: State,
    step: Callable[..., Any],
    indices: np.ndarray,
) -> Mapping[str, float | None]:
    """Returns the seconds of each part of the step, of the whole, and of the rest.

    The rest is the whole minus its parts: positive for work that no part covers,
    negative if the compiler fuses two parts.

    Args:
      name: the task's name.
      run: the run.
      start: a state, in the host's memory.
      step: the compiled step, from `HostFeed`.
      indices: the indices of the examples of a whole batch.
    """
    gather, (held, rows, positions) = on_devices(run, indices)
    state, key, count = processes.replicate(start, run.mesh), run.key, len(indices)
    batch = Batch(gather(held, rows), positions)
    inputs = state.variables, key, np.int32(count), batch
    pull_back = network(run)
    grads, _ = pull_back(*inputs)
    grads = jax.tree.map(lambda g: g / count, grads)
    shares = jax.jit(taken_shares(run.config, run.axes, state.params))

    parts = {"gather": median_seconds(lambda _: gather(held, rows), None)}
    parts["augmentation"] = None
    if name in AUGMENTATION:
        part = augmentation(name, run)
        parts["augmentation"] = median_seconds(lambda _: part(key, batch), None)
    parts["network"] = median_seconds(lambda _: pull_back(*inputs), None)
    parts["removed shares"] = median_seconds(lambda _: shares(grads), None)

    def whole(state: State) -> State:
        batch = Batch(gather(held, rows), positions)
        return step(state, batch, np.int32(count), key)[0]

    copied = processes.replicate((start.params, start.opt_state), run.mesh)
    parts["update"] = median_seconds(update(run, grads), copied)
    parts["whole step"] = median_seconds(whole, state)
    known = sum(
        seconds for part, seconds in parts.items() if part != "whole step" and seconds
    )
    return parts | {"left over": parts["whole step"] - known}
