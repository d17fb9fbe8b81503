"""Networks from a position in an image to its color, without normalization."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

WIDTH = 128
LAYERS = 4  # hidden layers
FREQUENCIES = 64
DEVIATION = 5.0  # of the frequencies, in cycles over the image's side
OMEGA = 30.0

he = nn.initializers.he_normal()


def encoded(places: Array) -> Array:
    """Returns sines and cosines of fixed random frequencies, `(B, 2 * FREQUENCIES)`.

    They are `sin(pi f.x)` and `cos(pi f.x)`, with each part of `f` drawn from a normal
    distribution, and the same for every run. There is no matrix product, because on an
    accelerator it may have too few bits.

    Args:
      places: positions `(B, 2)` in [-1, 1].

    References:
      Tancik et al., "Fourier features let networks learn high frequency functions in
      low dimensional domains", 2020, https://arxiv.org/abs/2006.10739
    """
    draw = np.random.default_rng(0).normal
    frequencies = draw(0, DEVIATION, (2, FREQUENCIES)).astype(np.float32)
    phases = jnp.pi * (places[..., None] * frequencies[None]).sum(1)
    return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], -1)


class ReluNetwork(nn.Module):
    """Dense layers with ReLU on the encoded positions.

    Attributes:
      channels: number of channels of a color.
      dtype: the dtype of the activations; the color is in float32.
    """

    channels: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, places: Array) -> Array:
        """Returns the colors `(B, channels)` at places `(B, 2)` in [-1, 1]."""
        x = encoded(places)
        for _ in range(LAYERS):
            x = nn.relu(nn.Dense(WIDTH, kernel_init=he, dtype=self.dtype)(x))
        return nn.Dense(self.channels)(x.astype(jnp.float32))


class Siren(nn.Module):
    """Dense layers with `sin(30 x)`, initialized so that all have similar inputs.

    The first kernel is uniform within 1 / fan-in, the others within
    sqrt(6 / fan-in) / 30, and biases within 1 / sqrt(fan-in).

    Attributes:
      channels: number of channels of a color.
      dtype: the dtype of the activations after the first layer; the color is in
        float32.

    References:
      Sitzmann et al., "Implicit neural representations with periodic activation
      functions", 2020, https://arxiv.org/abs/2006.09661
    """

    channels: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, places: Array) -> Array:
        """Returns the colors `(B, channels)` at places `(B, 2)` in [-1, 1]."""
        highest = jax.lax.Precision.HIGHEST  # neighbors must stay distinct
        first = uniform_dense(WIDTH, 2, 1 / 2, jnp.float32, precision=highest)
        x = jnp.sin(OMEGA * first(places))
        limit = (6 / WIDTH) ** 0.5 / OMEGA
        for _ in range(LAYERS - 1):
            x = jnp.sin(OMEGA * uniform_dense(WIDTH, WIDTH, limit, self.dtype)(x))
        last = uniform_dense(self.channels, WIDTH, limit, jnp.float32)
        return last(x.astype(jnp.float32))


def uniform_dense(
    features: int, fan_in: int, limit: float, dtype: jnp.dtype, **options: object
) -> nn.Dense:
    """Returns a dense layer whose kernel is within a limit, its bias by its fan-in."""
    return nn.Dense(
        features, kernel_init=within(limit), bias_init=within(fan_in**-0.5),
        dtype=dtype, **options,
    )  # fmt: skip


def within(limit: float) -> Callable[..., Array]:
    """Returns an initializer that draws uniformly from `[-limit, limit)`."""

    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
