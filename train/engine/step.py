"""One step of training, and the evaluation of a split, over all devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from train.engine.batches import Batch
from train.engine.state import State
from train.engine.task import Scores, Task, take


class Totals(NamedTuple):
    """Sums of the `Scores` over examples (float32)."""

    loss: Array
    score: Array


def weighted_totals(scores: Scores, weights: Array) -> Totals:
    """Returns the sums of the scores, each example with its weight `(B,)`."""
    return Totals(jnp.sum(weights * scores.loss), jnp.sum(weights * scores.score))


def sum_over_turns(
    turn: Callable[[Array, Array], Any], count: Array | int, size: int, per_turn: int
) -> Any:
    """Returns the sum of `turn(rows, weights)` over the turns that cover `count`.

    Args:
      turn: maps int32 rows `(per_turn,)` in [0, count) and their weights, 1 for an
        example and 0 for the padding of the last turn, to a pytree of arrays.
      count: number of examples; it may be traced, and rows past it cost nothing.
      size: the largest possible count. If a turn takes that many, it is the only one.
      per_turn: examples per turn.
    """

    @functools.partial(jax.jit, inline=True)  # traced once, for shapes and for the loop
    def take_turn(i: Array) -> Any:
        rows = i * per_turn + jnp.arange(per_turn)
        inside = rows < count
        return turn(jnp.where(inside, rows, 0), inside.astype(jnp.float32))

    if per_turn >= size:
        return take_turn(jnp.array(0))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(take_turn, jnp.array(0)),
    )
    return jax.lax.fori_loop(
        0,
        (count + per_turn - 1) // per_turn,
        lambda i, sums: jax.tree.map(jnp.add, sums, take_turn(i)),
        zeros,
    )


def on_each_device(
    mesh: Mesh, function: Callable[..., tuple[Any, Any]]
) -> Callable[..., tuple[Any, Any]]:
    """Returns `function(x, batch)` of each device's share of a batch.

    `x` is the same on all devices. So are the results: the first is summed over the
    devices, the second is what each of them finds.
    """

    def summed(x: Any, batch: Batch) -> tuple[Any, Any]:
        sums, same = function(x, batch)
        return jax.lax.psum(sums, "batch"), same

    # Unchecked, because sums start from zeros, which are the same on all devices.
    return jax.shard_map(
        summed, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=False
    )


def train_step(
    state: State,
    batch: Batch,
    count: Array,
    key: Array,
    *,
    task: Task,
    tx: optax.GradientTransformation,
    shares: Callable[[Any], dict[str, Array]],
    mesh: Mesh,
) -> tuple[State, Totals, dict[str, Array]]:
    """Returns the state after one step on a batch, with the batch's totals and shares.

    The shares are the parts of each kernel's gradient that the arm removes, or that GC
    would remove. The randomness of an example is keyed by the step and the example's
    position in the batch, so the result does not depend on the number of devices or of
    examples per turn.

    Args:
      state: the state before the step.
      batch: the batch, padded to a multiple of the number of devices.
      count: number of examples in the batch, int32 scalar.
      key: the key of the run's steps.
      task: the task.
      tx: the optimizer.
      shares: the function that measures the shares, from `arms.taken_shares`.
      mesh: the devices.
    """

    def gradients(inputs: Any, share: Batch) -> tuple[tuple[Any, Totals], Any]:
        params, model_state, count, step_key = inputs

        def loss(params: Any, rows: Array, weights: Array) -> tuple[Array, Any]:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(
                step_key, share.positions[rows]
            )
            variables = {"params": params, **model_state}
            scores, after = task.train_scores(
                variables, take(share.examples, rows), keys, weights
            )
            totals = weighted_totals(scores, weights)
            return totals.loss, (totals, after)

        turn = functools.partial(jax.grad(loss, has_aux=True), params)
        grads, (totals, after) = over_share(turn, share, count, task.per_turn)
        return (grads, totals), after

    step_key = jax.random.fold_in(key, state.step)
    inputs = (state.params, state.model_state, count, step_key)
    (grads, totals), model_state = on_each_device(mesh, gradients)(inputs, batch)
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = State(state.step + 1, params, opt_state, model_state)
    return after, totals, shares(grads)


def evaluate(
    state: State, split: Batch, count: Array, *, task: Task, mesh: Mesh, per_turn: int
) -> Totals:
    """Returns the totals over a whole split, without randomness."""

    def score(inputs: Any, share: Batch) -> tuple[Totals, None]:
        variables, count = inputs

        def turn(rows: Array, weights: Array) -> Totals:
            scores = task.test_scores(variables, take(share.examples, rows))
            return weighted_totals(scores, weights)

        return over_share(turn, share, count, per_turn), None

    totals, _ = on_each_device(mesh, score)((state.variables, count), split)
    return totals


def over_share(
    turn: Callable[[Array, Array], Any],
    share: Batch,
    count: Array,
    per_turn: int | None,
) -> Any:
    """Returns the sum of `turn` over a device's share of the first `count` examples."""
    size = len(share.positions)
    inside = jnp.sum(share.positions < count)
    return sum_over_turns(turn, inside, size, min(per_turn or size, size))
