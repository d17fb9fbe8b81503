"""Fashion-MNIST with a residual network with BatchNorm, trained as in the paper."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from train.config import Precision
from train.data import Dataset
from train.engine.optimizer import Recipe
from train.engine.task import Examples, Scores, Task, Variables
from train.record.about import About
from train.record.metrics import ACCURACY
from train.tasks.resnet import ResNet
from train.tasks.scores import cross_entropy

VALIDATION = 10_000  # the last of the published training images
MEAN, DEVIATION = 73.0, 90.0  # of the pixels
SHIFT = 2  # the most pixels by which a random crop moves an image


class Fashion(Task):
    """Labelled images, a ResNet, and softmax cross-entropy."""

    score = ACCURACY
    recipe = Recipe(decay={"sgd": 5e-4, "adamw": 5e-2}, warmup=0.1)
    keeps_rest = False
    per_turn = None

    def __init__(
        self,
        dataset: Dataset,
        *,
        augmented: bool = True,
        test: bool = True,
        precision: Precision = "float32",
    ):
        """Makes the task.

        Args:
          dataset: the published images.
          augmented: whether to crop and flip the training images.
          test: whether the test split may be evaluated.
          precision: the precision of the network's activations.
        """
        self.augmented = augmented
        self.model = ResNet(len(dataset.class_names), jnp.dtype(precision))
        self.image_shape = dataset.image_shape
        images, labels = dataset.train.images, dataset.train.labels
        self.splits = {
            "train": (images[:-VALIDATION], labels[:-VALIDATION]),
            "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
        }
        if test:
            self.splits["test"] = (dataset.test.images, dataset.test.labels)
        self.about = about(dataset)

    def init(self, key: Array) -> Variables:
        """Returns fresh parameters and statistics."""
        images = jnp.zeros((1, *self.image_shape))
        return jax.jit(self.model.init)(key, images)

    def train_scores(
        self, variables: Variables, examples: Examples, keys: Array, weights: Array
    ) -> tuple[Scores, Mapping[str, Any]]:
        """Returns the scores with augmentation, and the running statistics after it."""
        images, labels = examples
        images = standardized(images)
        if self.augmented:
            images = jax.vmap(crop_and_flip)(keys, images)
        logits, after = self.model.apply(
            variables, images, weights, mutable=["batch_stats"]
        )
        return cross_entropy(logits, labels), after

    def test_scores(self, variables: Variables, examples: Examples) -> Scores:
        """Returns the scores of the original images, with the running statistics."""
        images, labels = examples
        return cross_entropy(self.model.apply(variables, standardized(images)), labels)


def standardized(images: Array) -> Array:
    """Returns uint8 pixels as float32, with mean 0 and deviation 1 over the set."""
    return (images.astype(jnp.float32) - MEAN) / DEVIATION


def crop_and_flip(key: Array, image: Array) -> Array:
    """Returns an image `(H, W, C)` moved by up to `SHIFT` pixels and maybe mirrored.

    Pixels from outside the image repeat the edge.
    """
    crop_key, flip_key = jax.random.split(key)
    padded = jnp.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    row, column = jax.random.randint(crop_key, (2,), 0, 2 * SHIFT + 1)
    cropped = lax.dynamic_slice(padded, (row, column, 0), image.shape)
    return jnp.where(jax.random.bernoulli(flip_key), cropped[:, ::-1], cropped)


def about(dataset: Dataset) -> About:
    """Returns a description of the images."""
    train, test = len(dataset.train) - VALIDATION, len(dataset.test)
    return About(
        name=dataset.name,
        reason=dataset.reason,
        unit="images",
        sizes={
            "train_images": train,
            "validation_images": VALIDATION,
            "test_images": test,
        },
        text=f"{train} training, {VALIDATION} validation and {test} test images, "
        f"{dataset.image_shape} uint8, {len(dataset.class_names)} classes",
    )
