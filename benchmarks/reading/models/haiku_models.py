"""Haiku's own networks, and one of each of its layers that has weights."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from benchmarks.reading.models import haiku_layers
from benchmarks.reading.models.haiku_layers import model
from benchmarks.reading.models.model import LOOKED_UP, Axes, Model

IMAGES = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
SEQUENCES = jax.ShapeDtypeStruct((2, 16, 64), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 16), jnp.int32)


def codebook(*_: Any) -> Mapping[str, Axes]:
    return {"embeddings": LOOKED_UP}  # distances only choose the row


LAYERS = {**haiku_layers.LAYERS, hk.nets.VectorQuantizer: codebook}


def images(network: Callable[[], Any], **options: Any) -> Model:
    return model(lambda x: network()(x, **options), IMAGES)


def unrolled(core: Callable[[], hk.RNNCore], inputs: Any = SEQUENCES) -> Model:
    """Returns a recurrent network under `scan`."""

    def forward(x: jax.Array) -> Any:
        cell = core()
        start = cell.initial_state(x.shape[0])
        return hk.dynamic_unroll(cell, x, start, time_major=False)

    return model(forward, inputs)


def transformer(x: jax.Array) -> jax.Array:
    """Applies six stacked layers of attention and a multi-layer perceptron."""
    normed = functools.partial(hk.LayerNorm, -1, True, True)

    @hk.layer_stack(6)
    def layer(x: jax.Array) -> jax.Array:
        h = normed()(x)
        h = hk.MultiHeadAttention(4, 16, w_init=hk.initializers.VarianceScaling())(
            h, h, h
        )
        x = x + h
        return x + hk.nets.MLP([256, 64])(normed()(x))

    return hk.Linear(10)(layer(hk.Embed(100, 64)(x)))


def vector_quantizer(x: jax.Array) -> Any:
    h = hk.Conv2D(32, 4, stride=2)(x)
    codes = hk.nets.VectorQuantizer(32, 128, 0.25)(h, is_training=True)
    return hk.Conv2DTranspose(3, 4, stride=2)(codes["quantize"]), codes["loss"]


def convolutions(x: jax.Array) -> jax.Array:
    x = hk.Conv2D(32, 3, rate=2)(x)
    x = hk.Conv2D(32, 3, feature_group_count=4)(x)
    x = hk.DepthwiseConv2D(2, 3)(x)
    x = hk.SeparableDepthwiseConv2D(1, 3)(x)
    x = hk.Conv2DTranspose(16, 3, stride=2)(x)
    return hk.GroupNorm(4)(x)


MODELS: Mapping[str, Callable[[], Model]] = {
    **{
        f"ResNet{depth}": functools.partial(
            images,
            lambda depth=depth: getattr(hk.nets, f"ResNet{depth}")(1000),
            is_training=True,
        )
        for depth in (18, 34, 50, 101, 152, 200)
    },
    "ResNet50V2": functools.partial(
        images,
        lambda: hk.nets.ResNet50(1000, resnet_v2=True),
        is_training=True,
    ),
    "MobileNetV1": functools.partial(
        images, lambda: hk.nets.MobileNetV1(), is_training=True
    ),
    "MLP": lambda: model(lambda x: hk.nets.MLP([256, 128, 10])(x), SEQUENCES),
    "VQ-VAE": lambda: model(vector_quantizer, IMAGES, layers=LAYERS),
    "Transformer, stacked": lambda: model(transformer, TOKENS),
    "convolutions": lambda: model(convolutions, IMAGES),
    "VanillaRNN": lambda: unrolled(lambda: hk.VanillaRNN(32)),
    "LSTM": lambda: unrolled(lambda: hk.LSTM(32)),
    "GRU": lambda: unrolled(lambda: hk.GRU(32)),
    "DeepRNN": lambda: unrolled(lambda: hk.DeepRNN([hk.LSTM(32), hk.GRU(16)])),
    "Conv2DLSTM": lambda: unrolled(
        lambda: hk.Conv2DLSTM((8, 8), 4, 3),
        jax.ShapeDtypeStruct((2, 5, 8, 8, 3), jnp.float32),
    ),
}
