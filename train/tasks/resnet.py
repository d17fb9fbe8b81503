"""A small residual network that normalizes over the whole batch."""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

FEATURES = (24, 48, 96)  # per block; each block halves the sides
STEM = 16
MOMENTUM = 0.9  # of the running statistics
EPSILON = 1e-5

he = nn.initializers.he_normal()


class BatchNorm(nn.Module):
    """Normalizes each channel by the statistics of a whole batch, then scales it.

    In training, the statistics are those of all examples with a weight, on all devices
    of the mesh's axis "batch", however many each device has; `flax.linen.BatchNorm`
    would average the devices' means. The arithmetic is in float32, whatever the dtype
    of inputs and outputs.
    """

    @nn.compact
    def __call__(self, x: Array, weights: Array | None) -> Array:
        """Returns the normalized `x` of `(B, H, W, C)`.

        Args:
          x: activations.
          weights: in training, the weight of each example, `(B,)`; None to use the
            running statistics.
        """
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if weights is None:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = batch_statistics(x.astype(jnp.float32), weights)
            running_mean.value += (1 - MOMENTUM) * (mean - running_mean.value)
            running_var.value += (1 - MOMENTUM) * (var - running_var.value)
        factor = scale * lax.rsqrt(var + EPSILON)
        shift = bias - mean * factor
        y = x.astype(jnp.float32) * factor[None, None, None] + shift[None, None, None]
        return y.astype(x.dtype)


def batch_statistics(x: Array, weights: Array) -> tuple[Array, Array]:
    """Returns the mean and variance of each channel over the batch on all devices.

    Args:
      x: this device's share, `(B, H, W, C)`.
      weights: `(B,)`; at least one on some device is above 0.
    """
    pixels = x.shape[1] * x.shape[2]
    sums = jnp.stack([x.sum((1, 2)), jnp.square(x).sum((1, 2))])  # (2, B, C)
    total = jnp.einsum("b,sbc->sc", weights, sums)
    count = pixels * weights.sum()
    total, count = lax.psum((total, count), "batch")
    mean, square = total / count
    return mean, jnp.maximum(square - jnp.square(mean), 0)


class Block(nn.Module):
    """A pre-activation block of two 3x3 convolutions, added to a shortcut.

    Attributes:
      features: number of output channels.
      dtype: the dtype of the activations.
    """

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, weights: Array | None) -> Array:
        """Returns `(B, ceil(H / 2), ceil(W / 2), features)` for `(B, H, W, C)`."""
        x = nn.relu(BatchNorm()(x, weights))
        conv = functools.partial(convolution, self.features, self.dtype)
        shortcut = conv(1, stride=2, name="shortcut")(x)
        x = conv(3, stride=2)(x)
        x = nn.relu(BatchNorm()(x, weights))
        return shortcut + conv(3)(x)


class ResNet(nn.Module):
    """A pre-activation residual network without biases in its kernels' layers.

    Attributes:
      classes: number of classes.
      dtype: the dtype of the activations.
    """

    classes: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, images: Array, weights: Array | None = None) -> Array:
        """Returns float32 logits `(B, classes)`.

        Args:
          images: `(B, H, W, C)`, standardized.
          weights: in training, inside the mesh's axis "batch", the weight of each image
            in the batch's statistics, `(B,)`; else None.
        """
        x = convolution(STEM, self.dtype, 3)(images)
        for features in FEATURES:
            x = Block(features, self.dtype)(x, weights)
        x = nn.relu(BatchNorm()(x, weights)).astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.classes, use_bias=False, kernel_init=he)(x)


def convolution(
    features: int,
    dtype: jnp.dtype,
    side: int,
    stride: int = 1,
    name: str | None = None,
) -> nn.Module:
    """Returns a convolution without bias."""
    return nn.Conv(
        features, (side, side), stride, use_bias=False, kernel_init=he, dtype=dtype,
        name=name,
    )  # fmt: skip
