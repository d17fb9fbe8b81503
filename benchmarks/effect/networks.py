"""Small networks and their data: the text of a licence, and drawn images."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from train.data.drawing import scene

ROOT = pathlib.Path(__file__).parents[2]
HEADS, WIDTH, BLOCKS, LENGTH = 4, 64, 2, 64
SHRINK = 4  # from 300 pixels to 75


class Decoder(nn.Module):
    """A transformer that reads bytes, with its norms before the layers."""

    norm: type[nn.Module]

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(128, WIDTH)(tokens) + nn.Embed(LENGTH, WIDTH)(jnp.arange(LENGTH))
        mask = nn.make_causal_mask(tokens)
        for i in range(BLOCKS):
            attention = nn.MultiHeadDotProductAttention(HEADS, name=f"attention_{i}")
            x = x + attention(self.norm()(x), mask=mask)
            hidden = nn.Dense(4 * WIDTH, name=f"mlp_in_{i}")(self.norm()(x))
            x = x + nn.Dense(WIDTH, name=f"mlp_out_{i}")(nn.gelu(hidden))
        return nn.Dense(128, name="logits")(self.norm()(x))


class ConvNet(nn.Module):
    """Three convolutions of stride 2 and a hidden layer, for two classes."""

    activation: Callable[[jax.Array], jax.Array]
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate((16, 32, 64)):
            x = nn.Conv(features, (3, 3), 2, name=f"conv_{i}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=False)(x)
            x = self.activation(x)
        x = nn.Dense(64, name="dense")(x.reshape(len(x), -1))
        return nn.Dense(2, name="head")(self.activation(x))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and its training.

    Attributes:
      model: Maps inputs to logits.
      batch: Returns the inputs and labels of a step.
      steps: The number of training steps.
      behind: What feeds a kernel, by the beginning of the kernel's name.
    """

    model: nn.Module
    batch: Callable[[int], tuple[np.ndarray, np.ndarray]]
    steps: int
    behind: dict[str, str]


def text_batch(text: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns 32 pieces of a text of bytes, and each byte's successor."""
    rng = np.random.default_rng(step)
    starts = rng.integers(0, len(text) - LENGTH, (32, 1))
    pieces = text[starts + np.arange(LENGTH + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def image_batch(
    images: np.ndarray, labels: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns 32 images and their labels."""
    chosen = np.random.default_rng(step).integers(0, len(images), 32)
    return images[chosen], labels[chosen]


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns drawn images `(count, 75, 75, 3)` in [0, 1] and their labels."""
    first_human = scene.SPLITS["train"][0]
    indices = [i // 2 + i % 2 * first_human for i in range(count)]
    pictures, labels = zip(*(scene.draw("train", i) for i in indices), strict=True)
    side = scene.SIZE // SHRINK
    blocks = np.stack(pictures).reshape(count, side, SHRINK, side, SHRINK, 3)
    return blocks.mean((2, 4), dtype=np.float32) / 255, np.array(labels)


def decoder(norm: type[nn.Module], steps: int) -> Case:
    text = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8).astype(np.int32)
    name = norm.__name__
    behind = {"attention": name, "mlp_in": name, "mlp_out": "GELU", "logits": name}
    return Case(Decoder(norm), functools.partial(text_batch, text), steps, behind)


def conv_net(
    images: np.ndarray,
    labels: np.ndarray,
    steps: int,
    fed: str,
    activation: str = "ReLU",
    batch_norm: bool = False,
) -> Case:
    model = ConvNet(getattr(nn, activation.lower()), batch_norm)
    between = "ReLU between BatchNorms" if batch_norm else activation
    behind = {"conv_0": fed, "conv": between, "dense": activation, "head": activation}
    batch = functools.partial(image_batch, images, labels)
    return Case(model, batch, steps, behind)


def cases(
    images: np.ndarray, labels: np.ndarray, text_steps: int, image_steps: int
) -> dict[str, Case]:
    """Returns all networks by name; images are `(N, height, width, 3)` in [0, 1]."""
    scaled = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    raw = functools.partial(conv_net, images, labels, image_steps, "images")
    standardized = functools.partial(
        conv_net, scaled, labels, image_steps, "images, standardized"
    )
    return {
        "decoder, LayerNorm": decoder(nn.LayerNorm, text_steps),
        "decoder, RMSNorm": decoder(nn.RMSNorm, text_steps),
        "CNN, ReLU": raw(),
        "CNN, GELU": raw("GELU"),
        "CNN, ReLU, standardized": standardized(),
        "CNN, BatchNorm + ReLU, standardized": standardized("ReLU", True),
    }
