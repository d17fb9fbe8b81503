"""Memax's recurrent models, in Equinox: one of each of its kinds of memory."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from memax.equinox import train_utils
from memax.equinox.semigroups import lru

from benchmarks.reading.models import equinox_layers
from benchmarks.reading.models.model import Model, always

KEY = jax.random.key(0)
SEQUENCE = jax.ShapeDtypeStruct((12, 5), jnp.float32)
STARTS = jax.ShapeDtypeStruct((12,), bool)
LAYERS = {
    **equinox_layers.LAYERS,
    lru.LRU: always(B_re=(-1,), B_im=(-1,), C_re=(-1,), C_im=(-1,)),  # (out, in)
}
NAMES = (
    *("FART", "FWP", "DeltaNet", "DeltaProduct", "GDN", "FFM", "S6"),
    *("PSpherical", "LRU", "LinearRNN", "Stack", "Attention", "Attention-RoPE"),
    *("GRU", "Elman", "LSTM", "MGU", "Spherical"),
)


def build(name: str) -> Model:
    """Returns two layers of a memory, applied to a sequence."""
    create = functools.partial(
        train_utils.get_residual_memory_model, name, 5, 16, 4, key=KEY
    )
    return equinox_layers.model(
        create,
        SEQUENCE,
        STARTS,
        call=lambda model, x, starts: model(
            model.initialize_carry(KEY), (x, starts), key=KEY
        ),
        layers=LAYERS,
    )


MODELS: Mapping[str, Callable[[], Model]] = {
    name: functools.partial(build, name) for name in NAMES
}
