"""ESM2, a protein language model in Equinox, with its layers stacked for `scan`."""

import functools
from collections.abc import Callable, Mapping

import esm2quinox
import jax
import jax.numpy as jnp

from benchmarks.reading.models.equinox_layers import model
from benchmarks.reading.models.model import LOOKED_UP, Model

TOKENS = jax.ShapeDtypeStruct((16,), jnp.int32)


def esm2(layers: int, width: int, heads: int) -> Model:
    """Returns a model, whose last layer's kernel is its embedding."""
    key = jax.random.key(0)
    create = functools.partial(
        esm2quinox.ESM2, layers, width, heads, token_dropout=True, key=key
    )
    return model(create, TOKENS, also={"logit_head/linear2/weight": LOOKED_UP})


MODELS: Mapping[str, Callable[[], Model]] = {
    "8M": lambda: esm2(6, 320, 20),
    "650M": lambda: esm2(33, 1280, 20),
}
