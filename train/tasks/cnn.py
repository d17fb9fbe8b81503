"""The convolutional network of the experiment."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from train.tasks import layers

CONV_FEATURES = (16, 32, 64, 64, 64)
DROPOUT_IN = (1, 2)  # the convolutions, counted from 0, that have dropout
DENSE_FEATURES = 512

glorot = nn.initializers.glorot_uniform()


class ConvReluPool(nn.Module):
    """A 3x3 convolution, relu, dropout at rate 0.5 if `dropout`, and a 2x2 max-pool."""

    features: int
    dropout: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Returns `(B, (H - 2) // 2, (W - 2) // 2, features)` for `(B, H, W, C)`."""
        batch, height, width, channels = images.shape
        kernel = self.param("kernel", glorot, (3, 3, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        operands = tuple(x.astype(self.dtype) for x in (images, kernel, bias))
        if not self.dropout:
            return jax.vmap(layers.conv_relu_pool, (0, None, None))(*operands)
        keep = keep_half(self, batch, (height - 2, width - 2, self.features))
        return jax.vmap(layers.conv_relu_pool, (0, None, None, 0))(*operands, keep)


class CNN(nn.Module):
    """Five convolutions and two dense layers: one logit per image, or per class.

    This is the network of the Keras example, with 1,704,097 parameters for 300x300
    images and Keras's Glorot-uniform kernels. The loss applies the sigmoid or softmax.

    Attributes:
      classes: number of classes; two classes share one logit.
      dtype: the dtype of the activations.
    """

    classes: int = 2
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Returns float32 logits `(B,)`, or `(B, classes)` for more than two classes.

        Images are `(B, H, W, C)` with values in [0, 1], each side 94 pixels or more.

        If `train` is set, dropout is on and needs the PRNG stream "dropout".
        """
        x = images
        for i, features in enumerate(CONV_FEATURES):
            dropout = train and i in DROPOUT_IN
            x = ConvReluPool(features, dropout, self.dtype, name=f"Conv_{i}")(x)
        x = x.reshape(x.shape[0], -1)  # (B, 3136) for 300x300 images
        if train:
            x = layers.dropout(x, keep_half(self, x.shape[0], x.shape[1:]))
        x = nn.relu(self.dense(DENSE_FEATURES)(x))
        logits = self.dense(self.classes if self.classes > 2 else 1)(x)
        logits = logits.astype(jnp.float32)
        return logits if self.classes > 2 else logits[:, 0]

    def dense(self, features: int) -> nn.Dense:
        """Returns the next dense layer."""
        return nn.Dense(features, dtype=self.dtype, kernel_init=glorot)


def keep_half(module: nn.Module, batch: int, shape: tuple[int, ...]) -> Array:
    """Returns a dropout mask `(batch, *shape)` from the module's "dropout" stream."""
    keys = jax.random.split(module.make_rng("dropout"), batch)
    return jax.vmap(layers.keep_half, (0, None))(keys, shape)
