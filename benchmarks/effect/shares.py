"""The share that centralizing removes from each kernel's gradient in training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn

from benchmarks.effect.networks import Case
from optax_gc import describe, removed_energy

OPTIMIZER = optax.adam(1e-3)
BATCHES = 10  # a share is the mean over this many


def compiled(model: nn.Module) -> tuple[Callable, Callable]:
    """Returns a training step, and a function to the shares of a batch's gradient."""

    def loss(params, inputs, labels):
        logits, _ = model.apply({"params": params}, inputs, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    def step(params, state, inputs, labels):
        value, grads = jax.value_and_grad(loss)(params, inputs, labels)
        updates, state = OPTIMIZER.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    def shares(params, inputs, labels):
        return removed_energy(jax.grad(loss)(params, inputs, labels))

    return jax.jit(step), jax.jit(shares)


def measure(name: str, case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trains a network; returns a summary of training and a row for each kernel."""

    def mean_shares(params):
        fresh = range(case.steps, case.steps + BATCHES)
        trees = [jax.tree.leaves(shares(params, *case.batch(i))) for i in fresh]
        return np.mean(trees, axis=0)

    step, shares = compiled(case.model)
    params = jax.jit(case.model.init)(jax.random.key(0), case.batch(0)[0])["params"]
    start, state = mean_shares(params), OPTIMIZER.init(params)
    for i in range(case.steps):
        params, state, loss = step(params, state, *case.batch(i))
    end = mean_shares(params)
    summary = {
        "network": name,
        "steps": case.steps,
        "loss": round(float(loss), 3),
    }
    return summary, rows(name, case, params, start, end)


def rows(
    name: str, case: Case, params: Any, start: np.ndarray, end: np.ndarray
) -> list[dict[str, Any]]:
    """Returns a row for each centralized leaf, given the shares by leaf."""
    return [
        {
            "network": name,
            "kernel": leaf.path.removesuffix("/kernel"),
            "behind": fed_by(leaf.path, case.behind),
            "fan_in": leaf.fan_in,
            "start": float(f"{at_start:.3g}"),
            "end": float(f"{at_end:.3g}"),
        }
        for leaf, at_start, at_end in zip(
            describe(params).rows, start, end, strict=True
        )
        if leaf.axes is not None
    ]


def fed_by(path: str, behind: dict[str, str]) -> str:
    """Returns what feeds a kernel; attention's output layer is fed by attention."""
    if path.endswith("/out/kernel"):
        return "attention"
    return next(what for start, what in behind.items() if path.startswith(start))
