"""Gradient Centralization, for one array and as a gradient transformation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_gc._axes import AxesSpec, Leaf, check, fan_in, normalize, notes, resolve


def centralize(x: jax.typing.ArrayLike, axes: int | Sequence[int]) -> jax.Array:
    """Returns `x` with its mean over `axes` subtracted.

    This is the projection ``x - mean(x)`` onto the vectors that sum to zero, with one
    vector over `axes` for each index of the other axes. The mean of a half-precision
    array is computed in float32, and the result is rounded once.

    Args:
      x: Floating or complex array of any shape.
      axes: The fan-in axes, at least one; negative ones count from the end.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: If `x` is neither floating nor complex, or `axes` are not ints.
      ValueError: If `axes` are out of range, repeated or empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import centralize
      >>> kernel = jnp.array([[1.0, 5.0], [3.0, 9.0]])  # (in, out)
      >>> print(centralize(kernel, axes=0))
      [[-1. -2.]
       [ 1.  2.]]

    References:
      Yong et al., `Gradient Centralization <https://arxiv.org/abs/2004.01461>`_, 2020
    """
    if isinstance(x, Mapping) or any(hasattr(leaf, "dtype") for leaf in _parts(x)):
        raise TypeError(
            f"`x` must be one array, got a {type(x).__name__} of {len(_parts(x))} "
            "leaves. For a tree write centralize_gradients(axes).update(tree, "
            "optax.EmptyState())[0], with a policy for axes."
        )
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(
            f"`x` must be floating or complex, got {x.dtype}. Cast it first."
        )
    axes = normalize(axes, x.shape, f"an array of shape {x.shape}.")
    wide = widen(x)
    return (wide - jnp.mean(wide, axes, keepdims=True)).astype(x.dtype)


def _parts(x: Any) -> list[Any]:
    """Returns the leaves of a tree, or none for an array, which is a leaf itself."""
    leaves = jax.tree.leaves(x)
    return [] if len(leaves) == 1 and leaves[0] is x else leaves


def widen(x: jax.Array) -> jax.Array:
    """Returns `x` in float32 if it has half precision or less, else `x` itself."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def centralize_gradients(axes: AxesSpec = fan_in) -> optax.GradientTransformation:
    """Returns a transformation that centralizes each kernel over its fan-in.

    Each kernel gradient ``G`` becomes ``G - mean(G)``, with the mean over the fan-in of
    each output unit. Under SGD, with or without momentum, the fan-in means of the
    weights then do not change. Placed before an optimizer, it acts on the gradient, as
    in the paper; placed after the optimizer's scaling, it acts on the update.

    It is stateless. Which leaves are centralized, and along which axes, depends only on
    names, shapes and dtypes; print it with `optax_gc.describe` before you train.

    Args:
      axes: What to average over. One of

        - a policy: the result of `traced_fan_in`, which reads the model; `fan_in`,
          which guesses; `all_but_last` or `all_but_first`; or your own callable that
          maps a tree to a tree of the same structure with an int, a sequence of ints or
          None (leave alone) at each leaf;
        - a mapping of path patterns to axes, None or a policy. Patterns are globs, as
          in `fnmatch`, and must match the whole path; ``*`` also matches ``/``. The
          first matching pattern decides, and `fan_in` if none matches.

        Under `optax.inject_hyperparams` pass ``static_args="axes"``: a policy is a
        callable, and would be taken for a schedule.

    Returns:
      An `optax.GradientTransformation` with an `optax.EmptyState`. Integer, ``float0``
      and empty leaves pass through, as do None and `optax.MaskedNode`.

    Raises:
      TypeError: If `axes` is neither a policy nor a mapping; at init and update, if the
        axes of a leaf are not ints.
      ValueError: At init and update, if the axes of a leaf are out of range, repeated
        or empty, or if a policy returns another structure.

    Warns:
      UserWarning: At init, if no leaf would be centralized, or if a pattern decides
        about none.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_gc import centralize_gradients
      >>> tx = optax.chain(centralize_gradients({"head/*": None}), optax.sgd(1.0))
      >>> grads = {"body": {"kernel": jnp.array([[1.0], [3.0]])}}
      >>> grads["head"] = {"kernel": jnp.array([[1.0], [3.0]])}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print(updates["body"]["kernel"].ravel(), updates["head"]["kernel"].ravel())
      [ 1. -1.] [-1. -3.]

    References:
      Yong et al., `Gradient Centralization <https://arxiv.org/abs/2004.01461>`_, 2020
    """
    check(axes)

    def init_fn(params: optax.Params) -> optax.EmptyState:
        for note in notes(jax.tree.leaves(resolve(params, axes)), axes):
            warnings.warn(note, stacklevel=2)
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        return jax.tree.map(_centralize_leaf, updates, resolve(updates, axes)), state

    return optax.GradientTransformation(init_fn, update_fn)


def _centralize_leaf(leaf: Any, row: Leaf) -> Any:
    return leaf if row.axes is None else centralize(leaf, row.axes)
