"""Mamba-2, a state-space model, in Flax NNX."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from mamba2_jax import modeling

from benchmarks.reading.models import nnx_layers
from benchmarks.reading.models.model import Axes, Model, Path

TOKENS = jax.ShapeDtypeStruct((2, 64), jnp.int32)
SERIES = jax.ShapeDtypeStruct((2, 64, 5), jnp.float32)
# Depthwise, as a sum of taps that is written out: (window, 1, channels).
TAPS: Mapping[Path, Axes] = {"*conv1d/conv/kernel": (-3, -2)}


def language(tied: bool) -> Model:
    config = dataclasses.replace(modeling.Mamba2Config.tiny(), tie_word_embeddings=tied)
    also = {"backbone/embedder/embedding": (-1,)} if tied else {}
    return nnx_layers.model(
        lambda: modeling.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0)),
        TOKENS,
        also=TAPS | also,
    )


MODELS: Mapping[str, Callable[[], Model]] = {
    "language model": lambda: language(False),
    "language model, tied": lambda: language(True),
    "forecaster": lambda: nnx_layers.model(
        lambda: modeling.Mamba2Forecaster(
            5, d_model=32, n_layers=2, output_dim=3, forecast_horizon=4, d_state=8,
            headdim=8, chunk_size=16, rngs=nnx.Rngs(0),
        ),
        SERIES,
        also=TAPS,
        unused=("mamba2/embedder/embedding",),
    ),
}  # fmt: skip
