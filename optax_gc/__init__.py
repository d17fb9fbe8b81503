"""Gradient Centralization for JAX and Optax, along the right axes of every leaf."""

from importlib.metadata import version as _version

from optax_gc._axes import all_but_first as all_but_first
from optax_gc._axes import all_but_last as all_but_last
from optax_gc._axes import fan_in as fan_in
from optax_gc._centralize import centralize as centralize
from optax_gc._centralize import centralize_gradients as centralize_gradients
from optax_gc._muon import muon_dimension_numbers as muon_dimension_numbers
from optax_gc._report import describe as describe
from optax_gc._report import removed_energy as removed_energy
from optax_gc._sharpness import sharpness as sharpness
from optax_gc._traced import traced_fan_in as traced_fan_in

__version__ = _version("optax_gc")

__all__ = [
    "all_but_first",
    "all_but_last",
    "centralize",
    "centralize_gradients",
    "describe",
    "fan_in",
    "muon_dimension_numbers",
    "removed_energy",
    "sharpness",
    "traced_fan_in",
]
