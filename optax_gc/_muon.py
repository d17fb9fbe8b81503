"""The axes of each leaf in the form that `optax.contrib.muon` takes."""

from __future__ import annotations

import jax
from optax.contrib import MuonDimensionNumbers

from optax_gc._axes import AxesSpec, Leaf, PyTree, fan_in, resolve


def muon_dimension_numbers(params: PyTree, axes: AxesSpec = fan_in) -> PyTree:
    """Returns the axes of every leaf in the form that `optax.contrib.muon` takes.

    Muon orthogonalizes matrices, from the inputs of a layer to its outputs. Its
    reduction axes are the fan-in, and its output axes the outputs. Layers, heads or
    experts that are stacked in one leaf are separate matrices. Use `traced_fan_in`,
    which tells them apart; `fan_in` guesses. Leaves that GC leaves alone (embeddings,
    biases, scales, leaves in doubt) are None, and Muon's Adam trains them. Muon's
    authors also leave a classifier's last layer to Adam; a mapping does that, such as
    ``{"logits/*": None, "*": traced_fan_in(...)}``.

    Args:
      params: Parameters; shapes and dtypes are enough.
      axes: As for `optax_gc.centralize_gradients`.

    Returns:
      A tree of the structure of `params`, with an `optax.contrib.MuonDimensionNumbers`
      or None at each leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_gc import muon_dimension_numbers
      >>> params = {"query": {"kernel": jnp.ones((16, 4, 8)), "bias": jnp.ones((4, 8))}}
      >>> numbers = muon_dimension_numbers(params)
      >>> print(numbers["query"]["kernel"])
      MuonDimensionNumbers(reduction_axis=(0,), output_axis=(1, 2))
      >>> tx = optax.contrib.muon(1e-3, muon_weight_dimension_numbers=numbers)

    References:
      Jordan et al., `Muon <https://github.com/KellerJordan/Muon>`_, 2024
    """
    return jax.tree.map(_dimension_numbers, resolve(params, axes))


def _dimension_numbers(row: Leaf) -> MuonDimensionNumbers | None:
    if row.axes is None or not row.outputs:
        return None
    return MuonDimensionNumbers(reduction_axis=row.axes, output_axis=row.outputs)
