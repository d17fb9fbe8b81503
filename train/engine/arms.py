"""What an arm removes from a kernel's gradient: its mean, a placebo, or nothing.

Everything here knows a kernel only by its path and its fan-in axes.
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
    """Returns the axes of the kernels that `--gc-only` and `--gc-not` choose.

    Raises:
      UsageError: if a pattern decides about no kernel, or no kernel is left.
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
                f"--gc-only and --gc-not must choose among {paths}. {note}"
            )
    return patterns


def projection(
    config: Config, axes: Policy, params: Any
) -> optax.GradientTransformation | None:
    """Returns the arm's projection of gradients or updates, None if it has none."""
    if config.gc:
        return optax_gc.centralize_gradients(chosen_axes(config, axes, params))
    if config.placebo:
        chosen = chosen_axes(config, axes, params)
        return placebo(directions(config.seed, axes, params), chosen)
    return None


def directions(seed: int, axes: Policy, params: Any) -> dict[str, Array]:
    """Returns a random unit vector over the fan-in of each kernel, by path.

    It has the kernel's shape along its fan-in axes and 1 elsewhere: all output units
    share one direction, as GC uses the direction of ones for all of them.
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
    """Returns a transformation that removes one direction from each fan-in vector.

    Gradient Centralization removes the direction of ones; this removes another one. So
    it also takes one dimension, but one without meaning. It keeps no state.

    Args:
      vectors: the unit vectors, as `directions` makes them.
      axes: the fan-in axes, as for `optax_gc.centralize_gradients`; a kernel that they
        leave alone is left alone here, too.
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
    """Returns `x` without its part along a unit vector over the given axes."""
    vector = vector.astype(x.dtype)
    vectors = jnp.broadcast_to(vector, x.shape)
    return x - vectors * jnp.sum(x * vectors, axes, keepdims=True)


def taken_shares(
    config: Config, axes: Policy, params: Any
) -> Callable[[Any], dict[str, Array]]:
    """Returns a function from gradients to the share of its energy that each loses.

    The share is what the arm's projection removes or, without one, what Gradient
    Centralization would remove. The function covers all kernels, chosen or not, and
    returns a float32 scalar for each, by path.
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
      rows: the rows of `optax_gc.describe`.
    """
    leaves = jax.tree.leaves(tree)
    return {
        row.path: leaf
        for row, leaf in zip(rows, leaves, strict=True)
        if row.axes is not None
    }


def mean_drift(params: Any, start: Any, axes: Policy) -> dict[str, float]:
    """Returns how far the fan-in means of each kernel have moved since the start.

    This is the root mean square over the output units, in the units of the weights.
    Under SGD, Gradient Centralization conserves these means.

    Args:
      params: NumPy arrays.
      start: NumPy arrays.
      axes: the policy for the fan-in axes.
    """
    changes = jax.tree.map(np.subtract, params, start)
    rows = optax_gc.describe(params, axes).rows
    means = {
        row.path: change.mean(row.axes, dtype=np.float64)
        for row, change in zip(rows, jax.tree.leaves(changes), strict=True)
        if row.axes is not None
    }
    return {path: float(np.sqrt(np.square(m).mean())) for path, m in means.items()}
