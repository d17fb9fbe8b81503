"""The networks of the study, as Flax modules; all but some without normalization."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

FREQUENCIES = 6  # octaves of the encoding of a coordinate
OMEGA = 30.0  # SIREN's, of its first layer and of the others


def encoded(x: Array) -> Array:
    """Returns coordinates `(..., 2)` in [-1, 1] as sines and cosines of octaves."""
    angles = math.pi * 2.0 ** jnp.arange(FREQUENCIES) * x[..., None]
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    return waves.reshape(*x.shape[:-1], -1)


class Perceptron(nn.Module):
    """Dense layers, each with an activation but for the last.

    Attributes:
      widths: of all layers.
      activation: between them.
      norm: before each activation, if any.
      encode: what is done with the inputs first.
    """

    widths: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.relu
    norm: Callable[[], nn.Module] | None = None
    encode: Callable[[Array], Array] = staticmethod(lambda x: x)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.encode(x)
        for width in self.widths[:-1]:
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal())(x)
            x = self.norm()(x) if self.norm else x
            x = self.activation(x)
        return nn.Dense(self.widths[-1])(x)


class Siren(nn.Module):
    """Dense layers with sines between them.

    References:
      Sitzmann et al., `Implicit Neural Representations with Periodic Activation
      Functions <https://arxiv.org/abs/2006.09661>`_, 2020
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            fan_in = x.shape[-1]
            bound = 1 / fan_in if i == 0 else math.sqrt(6 / fan_in) / OMEGA
            x = nn.Dense(width, kernel_init=uniform(bound), bias_init=uniform(bound))(x)
            x = jnp.sin(OMEGA * x) if i < len(self.widths) - 1 else x
        return x


def uniform(bound: float) -> Callable[..., Array]:
    """Returns an initializer that is uniform in [-bound, bound]."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def patches(x: Array) -> Array:
    """Returns the 3 x 3 patches of images at every other place, `(B, H/2, W/2, 9 C)`.

    Their product with a matrix is a convolution. Inside the loop over the steps, XLA
    computes it about six times as fast on CPUs as `nn.Conv`.
    """
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(shifted, -1)


class BatchNorm(nn.Module):
    """Batch normalization by the statistics of the batch at hand, held-out ones too."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes = tuple(range(x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        mean, variance = x.mean(axes), x.var(axes)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias


class Convolutions(nn.Module):
    """Three 3 x 3 convolutions with stride 2, each with ReLU, and a dense layer.

    Attributes:
      features: of each convolution.
      classes: outputs.
      norm: before each ReLU, if any.
    """

    features: tuple[int, ...]
    classes: int
    norm: Callable[[], nn.Module] | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features in self.features:
            x = nn.Dense(features, kernel_init=nn.initializers.he_normal())(patches(x))
            x = self.norm()(x) if self.norm else x
            x = nn.relu(x)
        return nn.Dense(self.classes)(x.reshape(len(x), -1))
