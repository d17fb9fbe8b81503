"""The convolutional network of the experiment."""

from flax import linen as nn
from jax import Array

CONV_FEATURES = (16, 32, 64, 64, 64)
DROPOUT_AFTER = (1, 2)  # the convolutions, counted from 0, that dropout follows
DROPOUT_RATE = 0.5
DENSE_FEATURES = 512


class CNN(nn.Module):
    """Five convolutions and two dense layers: one logit per image.

    The network of the Keras example, 1,704,097 parameters for 300x300 images, with
    Keras's Glorot-uniform kernels. The sigmoid is left to the loss.
    """

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Returns logits `(B,)` for images `(B, H, W, 3)` with values in [0, 1].

        With `train` set, dropout is on and needs the PRNG stream "dropout".
        """
        glorot = nn.initializers.glorot_uniform()
        x = images
        for layer, features in enumerate(CONV_FEATURES):
            x = nn.Conv(features, (3, 3), padding="VALID", kernel_init=glorot)(x)
            x = nn.relu(x)
            if layer in DROPOUT_AFTER:
                x = nn.Dropout(DROPOUT_RATE, deterministic=not train)(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)  # (B, 3136) for 300x300 images
        x = nn.Dropout(DROPOUT_RATE, deterministic=not train)(x)
        x = nn.relu(nn.Dense(DENSE_FEATURES, kernel_init=glorot)(x))
        return nn.Dense(1, kernel_init=glorot)(x)[:, 0]
