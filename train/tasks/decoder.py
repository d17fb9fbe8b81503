"""A small pre-normalization decoder, as in GPT-2."""

import functools
from typing import Any, Literal

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
# For the kernels that write into the residual stream, so that its sum starts small.
smaller = nn.initializers.normal(0.02 / (2 * LAYERS) ** 0.5)


class Layer(nn.Module):
    """Causal attention and an MLP, each after a norm and added to its input.

    The kernels have no bias. Those of the attention are in Flax's layout: `query`,
    `key` and `value` are `(width, heads, width / heads)`, and `out` is the reverse.
    """

    norm: Norm
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `(B, T, width)` for `(B, T, width)`."""
        y = normalize(self.norm, self.dtype, "attention_norm")(x)
        attention = nn.MultiHeadDotProductAttention(
            HEADS, use_bias=False, kernel_init=small, out_kernel_init=smaller,
            dtype=self.dtype, name="attention",
        )  # fmt: skip
        x = x + attention(y, mask=nn.make_causal_mask(y[..., 0]))
        y = normalize(self.norm, self.dtype, "mlp_norm")(x)
        y = nn.gelu(dense(4 * WIDTH, small, self.dtype, "mlp_in")(y))
        return x + dense(WIDTH, smaller, self.dtype, "mlp_out")(y)


class Decoder(nn.Module):
    """Predicts the next byte at each place of a text, with logits `(B, T, 256)`.

    Attributes:
      norm: LayerNorm, or RMSNorm, which does not subtract the mean.
      dtype: the dtype of the activations.
    """

    norm: Norm = "layer"
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, text: Array) -> Array:
        """Returns the float32 logits of the byte after each of int32 `(B, T)`."""
        length = text.shape[1]
        table = functools.partial(
            nn.Embed, features=WIDTH, embedding_init=small, dtype=self.dtype
        )
        embed, place = table(VOCABULARY, name="embed"), table(length, name="place")
        x = embed(text) + place(jnp.arange(length))[None]
        for i in range(LAYERS):
            x = Layer(self.norm, self.dtype, name=f"layer_{i}")(x)
        x = normalize(self.norm, self.dtype, "norm")(x)
        return dense(VOCABULARY, small, self.dtype, "head")(x).astype(jnp.float32)


def dense(features: int, init: Any, dtype: jnp.dtype, name: str) -> nn.Module:
    """Returns a dense layer without bias."""
    return nn.Dense(features, use_bias=False, kernel_init=init, dtype=dtype, name=name)


def normalize(norm: Norm, dtype: jnp.dtype, name: str) -> nn.Module:
    """Returns a layer that normalizes each vector and scales it."""
    kind = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[norm]
    return kind(epsilon=EPSILON, dtype=dtype, name=name)
