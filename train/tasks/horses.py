"""Classifies images, as the Keras example does with horses and humans."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from train.config import Precision
from train.data import Dataset
from train.engine.checkpoint import load_params
from train.engine.optimizer import Recipe
from train.engine.task import Examples, Scores, Task, Variables
from train.faults import UsageError
from train.record.about import About
from train.record.metrics import ACCURACY
from train.tasks.augment import augment
from train.tasks.cnn import CNN
from train.tasks.scores import cross_entropy

CPU_IMAGES = 8  # that a core works on at a time, so that they stay in its cache


class Horses(Task):
    """Labelled images, the CNN, and binary or softmax cross-entropy.

    The test split is evaluated after every epoch, because nothing is chosen by it.
    """

    score = ACCURACY
    recipe = Recipe(decay={"adamw": 1e-4})
    keeps_rest = True

    def __init__(
        self,
        dataset: Dataset,
        augmented: bool = True,
        init_from: pathlib.Path | None = None,
        precision: Precision = "float32",
    ):
        """Makes the task.

        Args:
          dataset: the images.
          augmented: whether to flip, rotate and zoom the training images.
          init_from: folder of an earlier run whose final parameters to start from.
          precision: the precision of the network's activations.
        """
        self.dataset, self.augmented, self.init_from = dataset, augmented, init_from
        self.model = CNN(len(dataset.class_names), jnp.dtype(precision))
        self.per_turn = CPU_IMAGES if jax.default_backend() == "cpu" else None
        self.splits = {
            name: (split.images, split.labels)
            for name, split in (("train", dataset.train), ("test", dataset.test))
        }
        self.about = about(dataset)

    def init(self, key: Array) -> Variables:
        """Returns fresh parameters, or those of the earlier run.

        Raises:
          UsageError: if those are for other images or classes.
        """
        images = jnp.zeros((1, *self.dataset.image_shape))
        variables = jax.jit(self.model.init)(key, images)
        if self.init_from is None:
            return variables
        params = load_params(self.init_from / "params")
        ours, theirs = (
            jax.tree.map(jnp.shape, tree) for tree in (variables["params"], params)
        )
        if ours != theirs:
            raise UsageError(
                f"--init-from must be a run on images of {self.dataset.image_shape} "
                f"with {len(self.dataset.class_names)} classes, got {self.init_from}, "
                "whose parameters differ."
            )
        return {"params": jax.tree.map(jnp.asarray, params)}

    def train_scores(
        self, variables: Variables, examples: Examples, keys: Array, weights: Array
    ) -> tuple[Scores, Mapping[str, Any]]:
        """Returns the scores with augmentation and dropout, with a key per image."""
        del weights
        images, labels = examples

        def logit(image: Array, key: Array) -> Array:
            augment_key, dropout_key = jax.random.split(key)
            if self.augmented:
                image = augment(augment_key, image)
            image = image.astype(jnp.float32) / 255
            rngs = {"dropout": dropout_key}
            return self.model.apply(variables, image[None], train=True, rngs=rngs)[0]

        return cross_entropy(jax.vmap(logit)(images, keys), labels), {}

    def test_scores(self, variables: Variables, examples: Examples) -> Scores:
        """Returns the scores of the original images."""
        images, labels = examples
        logits = self.model.apply(variables, images.astype(jnp.float32) / 255)
        return cross_entropy(logits, labels)


def about(dataset: Dataset) -> About:
    """Returns a description of labelled images."""
    names = dataset.class_names
    classes = " or ".join(names) if len(names) < 5 else f"{len(names)} classes"
    train, test = len(dataset.train), len(dataset.test)
    lent = f"; test: {dataset.lent}" if dataset.lent else ""
    return About(
        name=dataset.name,
        reason=dataset.reason,
        unit="images",
        sizes={"train_images": train, "test_images": test},
        text=f"{train} training and {test} test images, {dataset.image_shape} uint8, "
        f"{classes}{lent}",
        checks={"test": dataset.lent} if dataset.lent else {},
    )
