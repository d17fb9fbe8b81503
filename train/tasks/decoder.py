"""A small pre-normalization decoder, as of GPT-2."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

Norm = Literal["layer", "rms"]

VOCABULARY = 256  # bytes
WIDTH = 96
LAYERS = 3
HEADS = 4
EPSILON = 1e-5

small = nn.initializers.normal(0.02)
# Of the kernels that write into the residual stream, so that its sum starts small.
smaller = nn.initializers.normal(0.02 / (2 * LAYERS) ** 0.5)


class Layer(nn.Module):
    """Causal attention and a perceptron, each behind a norm and added to its input.

    The kernels have no bias. Those of the attention are in Flax's layout: `query`,
    `key` and `value` are `(width, heads, width / heads)`, `out` the other way round.
    """

    norm: Norm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `(B, T, width)` for `(B, T, width)`."""
        y = normalize(self.norm, "attention_norm")(x)
        attention = nn.MultiHeadDotProductAttention(
            HEADS, use_bias=False, kernel_init=small, out_kernel_init=smaller,
            name="attention",
        )  # fmt: skip
        x = x + attention(y, mask=nn.make_causal_mask(y[..., 0]))
        y = normalize(self.norm, "mlp_norm")(x)
        y = nn.Dense(4 * WIDTH, use_bias=False, kernel_init=small, name="mlp_in")(y)
        y = nn.gelu(y)
        return x + nn.Dense(WIDTH, use_bias=False, kernel_init=smaller, name="mlp_out")(
            y
        )


class Decoder(nn.Module):
    """Predicts each next byte of a text: logits `(B, T, 256)`.

    Attributes:
      norm: LayerNorm, or RMSNorm, which subtracts no mean.
    """

    norm: Norm = "layer"

    @nn.compact
    def __call__(self, text: Array) -> Array:
        """Returns the logits of the byte after each of int32 `(B, T)`."""
        length = text.shape[1]
        embed = nn.Embed(VOCABULARY, WIDTH, embedding_init=small, name="embed")
        place = nn.Embed(length, WIDTH, embedding_init=small, name="place")
        x = embed(text) + place(jnp.arange(length))[None]
        for i in range(LAYERS):
            x = Layer(self.norm, name=f"layer_{i}")(x)
        x = normalize(self.norm, "norm")(x)
        return nn.Dense(VOCABULARY, use_bias=False, kernel_init=small, name="head")(x)


def normalize(norm: Norm, name: str) -> nn.Module:
    """Returns a layer that normalizes each vector and scales it."""
    kind = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[norm]
    return kind(epsilon=EPSILON, name=name)
