"""What is taken from a kernel's gradient: its mean, a placebo, or nothing.

Everything here knows a kernel by its path and its fan-in axes alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import optax_gc
from train.config import Config
from train.faults import UsageError

Policy = Callable[[Any], Any]  # of axes, as in optax_gc
Axes = Policy | Mapping[str, Policy | None]
PLACEBO_SALT = 0x9C  # keeps the placebo's directions apart from a run's other keys


def chosen_axes(config: Config, axes: Policy, params: Any) -> Axes:
    """Returns the axes of the kernels that `--gc-only` and `--gc-not` leave in.

    Raises:
      UsageError: if a pattern decides on no kernel, or none is left.
    """
    if not config.gc_only and not config.gc_not:
        return axes
    patterns = dict.fromkeys(config.gc_not)
    patterns |= {pattern: axes for pattern in config.gc_only if pattern not in patterns}
    patterns.setdefault("*", None if config.gc_only else axes)
    report = optax_gc.describe(params, patterns)
    for note in report.notes:
        if "'*'" not in note:
            paths = ", ".join(
                row.path
                for row in optax_gc.describe(params, axes).rows
                if row.axes is not None
            )
            raise UsageError(
                f"--gc-only and --gc-not must choose kernels, of {paths}. {note}"
            )
    return patterns


def projection(
    config: Config, axes: Policy, params: Any
) -> optax.GradientTransformation | None:
    """Returns what the arm takes from gradients or updates; None if nothing."""
    if config.gc:
        return optax_gc.centralize_gradients(chosen_axes(config, axes, params))
    if config.placebo:
        chosen = chosen_axes(config, axes, params)
        return placebo(directions(config.seed, axes, params), chosen)
    return None


def directions(seed: int, axes: Policy, params: Any) -> dict[str, Array]:
    """Returns a random unit vector over the fan-in of each kernel, by path.

    It has the kernel's shape along its fan-in axes and 1 elsewhere: all output units
    have the same, as they have the same mean.
    """
    key = jax.random.fold_in(jax.random.key(seed), PLACEBO_SALT)
    found = {}
    for i, row in enumerate(optax_gc.describe(params, axes).rows):
        if row.axes is not None:
            shape = [n if axis in row.axes else 1 for axis, n in enumerate(row.shape)]
            vector = jax.random.normal(jax.random.fold_in(key, i), shape)
            found[row.path] = vector / jnp.linalg.norm(vector)
    return found


def placebo(vectors: Mapping[str, Array], axes: Axes) -> optax.GradientTransformation:
    """Returns a transformation that takes one direction out of each fan-in vector.

    What Gradient Centralization does with the direction of ones it does with another
    one: the same dimension less, and no meaning. It keeps no state.

    Args:
      vectors: the unit vectors, as `directions` makes them.
      axes: the fan-in axes, as for `optax_gc.centralize_gradients`; a kernel that they
        leave alone is left alone.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        rows = optax_gc.describe(updates, axes).rows
        left = [
            leaf if row.axes is None else without(leaf, vectors[row.path], row.axes)
            for leaf, row in zip(leaves, rows, strict=True)
        ]
        return structure.unflatten(left), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def without(x: Array, vector: Array, axes: tuple[int, ...]) -> Array:
    """Returns `x` less its part along a unit vector over the given axes."""
    vector = vector.astype(x.dtype)
    vectors = jnp.broadcast_to(vector, x.shape)
    return x - vectors * jnp.sum(x * vectors, axes, keepdims=True)


def taken_shares(
    config: Config, axes: Policy, params: Any
) -> Callable[[Any], dict[str, Array]]:
    """Returns a function from gradients to the share of its energy that each loses.

    To the arm's projection, or without one to Gradient Centralization; of all kernels,
    chosen or not. It gives a float32 scalar a kernel, by path.
    """
    vectors = directions(config.seed, axes, params) if config.placebo else {}

    def shares(grads: Any) -> dict[str, Array]:
        rows = optax_gc.describe(grads, axes).rows
        if not config.placebo:
            return kernels(optax_gc.removed_energy(grads, axes), rows)
        left, _ = placebo(vectors, axes).update(grads, optax.EmptyState())
        return kernels(jax.tree.map(lost_energy, grads, left), rows)

    return shares


def lost_energy(before: Array, after: Array) -> Array:
    """Returns the share of the squared norm of `before` that `after` lacks."""
    energy = jnp.sum(jnp.square(before))
    return jnp.sum(jnp.square(before - after)) / jnp.where(energy > 0, energy, 1)


def kernels(tree: Any, rows: Any) -> dict[str, Array]:
    """Returns the leaves of `tree` that have a fan-in, by path.

    Args:
      tree: a tree of the structure that `rows` describes.
      rows: those of `optax_gc.describe`.
    """
    leaves = jax.tree.leaves(tree)
    return {
        row.path: leaf
        for row, leaf in zip(rows, leaves, strict=True)
        if row.axes is not None
    }


def mean_drift(params: Any, start: Any, axes: Policy) -> dict[str, float]:
    """Returns how far the fan-in means of each kernel are from those at the start.

    The root mean square over the output units, in the units of the weights. Gradient
    Centralization conserves these means under SGD.

    Args:
      params: NumPy arrays.
      start: NumPy arrays.
      axes: the policy of the fan-in axes.
    """
    changes = jax.tree.map(np.subtract, params, start)
    rows = optax_gc.describe(params, axes).rows
    means = {
        row.path: change.mean(row.axes, dtype=np.float64)
        for row, change in zip(rows, jax.tree.leaves(changes), strict=True)
        if row.axes is not None
    }
    return {path: float(np.sqrt(np.square(m).mean())) for path, m in means.items()}
