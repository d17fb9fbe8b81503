"""One of each of Flax Linen's layers that has weights, and what wraps them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import Axes, Model, Path

IMAGES = jax.ShapeDtypeStruct((2, 16, 16, 4), jnp.float32)
SEQUENCES = jax.ShapeDtypeStruct((2, 16, 64), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 16), jnp.int32)


class Chain(nn.Module):
    """Applies what each of `parts` makes, one after another."""

    parts: tuple[Callable[[], Callable[[Any], Any]], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for part in self.parts:
            x = part()(x)
        return x


class Block(nn.Module):
    """A transformer block, in the form that `nn.scan` needs."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        return x + nn.Dense(64)(nn.gelu(nn.Dense(256)(nn.LayerNorm()(x)))), None


class Decoder(nn.Module):
    """Six stacked blocks with rematerialization, between a tied embedding."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embedding = nn.Embed(100, 64)
        blocks = nn.scan(
            nn.remat(Block),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=6,
        )
        return embedding.attend(blocks()(embedding(tokens), None)[0])


class Normalized(nn.Module):
    """Weight and spectral norm around dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.WeightNorm(nn.Dense(32))(x)
        return nn.SpectralNorm(nn.Dense(32))(x, update_stats=True)


class Ensemble(nn.Module):
    """Five dense layers, stacked by `nn.vmap`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stacked = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=5,
        )
        return stacked(32)(x)


def chain(
    inputs: Any,
    *parts: Callable[[], Any],
    also: Mapping[Path, Axes] | None = None,
) -> Model:
    return linen_layers.model(Chain(parts), inputs, also=also)


def recurrent(cell: Callable[[], nn.RNNCellBase], inputs: Any = SEQUENCES) -> Model:
    return chain(inputs, lambda: nn.RNN(cell()))


MODELS: Mapping[str, Callable[[], Model]] = {
    "convolutions": functools.partial(
        chain,
        IMAGES,
        lambda: nn.Conv(8, (3, 3), strides=2),
        lambda: nn.Conv(8, (3, 3), kernel_dilation=2, feature_group_count=4),
        lambda: nn.ConvTranspose(8, (3, 3), strides=(2, 2)),
        lambda: nn.ConvTranspose(8, (3, 3), transpose_kernel=True),
        lambda: nn.ConvLocal(5, (3, 3)),
        lambda: nn.GroupNorm(5),
    ),
    "dense": functools.partial(
        chain,
        SEQUENCES,
        lambda: nn.DenseGeneral((4, 16)),
        lambda: nn.DenseGeneral(64, axis=(-2, -1)),
        lambda: nn.DenseGeneral((8, 8), batch_dims=(0,)),
        lambda: nn.Einsum((5, 8, 8), "...ij,oij->...o"),
        lambda: nn.Dense(1),
    ),
    "decoder, stacked and tied": lambda: linen_layers.model(Decoder(), TOKENS),
    "weight and spectral norm": lambda: linen_layers.model(
        Normalized(),
        SEQUENCES,
        also={"*/kernel/scale": None},
    ),
    "ensemble": lambda: linen_layers.model(Ensemble(), SEQUENCES),
    "SimpleCell": lambda: recurrent(lambda: nn.SimpleCell(32)),
    "LSTMCell": lambda: recurrent(lambda: nn.LSTMCell(32)),
    "OptimizedLSTMCell": lambda: recurrent(lambda: nn.OptimizedLSTMCell(32)),
    "GRUCell": lambda: recurrent(lambda: nn.GRUCell(32)),
    "MGUCell": lambda: recurrent(lambda: nn.MGUCell(32)),
    "ConvLSTMCell": lambda: recurrent(
        lambda: nn.ConvLSTMCell(8, (3, 3)),
        jax.ShapeDtypeStruct((2, 5, 8, 8, 4), jnp.float32),
    ),
}
