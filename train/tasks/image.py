"""Fits an image with a network from positions to colors, tested on held-out pixels."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from train.config import Precision
from train.data import Picture
from train.engine.optimizer import Recipe
from train.engine.task import Examples, Scores, Task, Variables, size, take
from train.record import pictures
from train.record.about import About
from train.record.metrics import PSNR, metrics_in
from train.tasks.coordinates import ReluNetwork, Siren

Network = Literal["relu", "siren"]

NETWORKS = {"relu": ReluNetwork, "siren": Siren}
SPLIT_SEED = 0  # for the choice of training pixels, whatever the run's seed


class ImageFit(Task):
    """The pixels of an image, a coordinate network, and the mean squared error.

    A pixel's error is the mean over its channels, which range from 0 to 1.
    """

    score = PSNR
    recipe = Recipe(decay={"adamw": 1e-4}, warmup=0.1)
    keeps_rest = False
    per_turn = None

    def __init__(
        self,
        picture: Picture,
        *,
        network: Network = "relu",
        test: bool = True,
        precision: Precision = "float32",
    ):
        """Makes the task.

        Args:
          picture: the image.
          network: the kind of network from positions to colors.
          test: whether the test split may be evaluated.
          precision: the precision of the network's activations.
        """
        self.picture = picture
        self.model = NETWORKS[network](picture.pixels.shape[2], jnp.dtype(precision))
        self.splits = splits(picture.pixels)
        self.about = about(picture, self.splits)
        if not test:
            del self.splits["test"]

    def init(self, key: Array) -> Variables:
        """Returns fresh parameters."""
        return jax.jit(self.model.init)(key, jnp.zeros((1, 2)))

    def test_scores(self, variables: Variables, examples: Examples) -> Scores:
        """Returns the squared errors at some pixels, from which both scores follow."""
        at, colors = examples
        differences = self.model.apply(variables, at) - in_unit(colors)
        errors = jnp.square(differences).mean(-1)
        return Scores(errors, errors)

    def draw(
        self, variables: Variables, metrics: Mapping[str, Any], folder: pathlib.Path
    ) -> None:
        """Draws the image, the fit and its error into `reconstruction.png`."""
        side = len(self.picture.pixels)
        rows = places(side).reshape(side, side, 2)

        def fitted(variables: Variables, rows: Array) -> Array:
            return jax.lax.map(lambda row: self.model.apply(variables, row), rows)

        fit = jax.jit(fitted)(variables, rows)
        pictures.plot_reconstruction(
            np.float32(self.picture.pixels) / 255,
            np.asarray(fit),
            title(folder.name, metrics),
            folder / "reconstruction.png",
        )


def in_unit(colors: Array) -> Array:
    """Returns uint8 colors as float32, from 0 to 1."""
    return colors.astype(jnp.float32) / 255


def places(side: int) -> np.ndarray:
    """Returns the centers of all pixels, row by row, float32 `(side**2, 2)`.

    The first number goes down the image, the second across; both are in [-1, 1].
    """
    steps = np.stack(np.divmod(np.arange(side**2), side), -1)
    return ((2 * steps + 1) / side - 1).astype(np.float32)


def splits(pixels: np.ndarray) -> dict[str, Examples]:
    """Splits positions and colors at random into a half, a quarter, and a quarter.

    The splits are the same for all images of one size.
    """
    side, _, channels = pixels.shape
    count = side**2
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    parts = np.split(order, [count // 2, count // 2 + count // 4])
    every = places(side), pixels.reshape(count, channels)
    names = ("train", "validation", "test")
    return {name: take(every, rows) for name, rows in zip(names, parts, strict=True)}


def about(picture: Picture, splits: Mapping[str, Examples]) -> About:
    """Returns a description of the image."""
    side, _, channels = picture.pixels.shape
    sizes = {f"{name}_pixels": size(examples) for name, examples in splits.items()}
    train, validation, test = sizes.values()
    return About(
        name=picture.name,
        reason=picture.reason,
        unit="pixels",
        sizes=sizes,
        text=f"{side} x {side} pixels in {'gray' if channels == 1 else 'color'}: "
        f"{train} training, {validation} validation, {test} test",
        checks={"sha256": hashlib.sha256(picture.pixels.tobytes()).hexdigest()},
        remedy="Give the run's own with --image.",
    )


def title(run: str, metrics: Mapping[str, Any]) -> str:
    """Returns the title of a run's picture, with its PSNR on held-out pixels.

    These are the test split or, if that was not evaluated, the split before it.
    """
    name, metric = [
        (name, metric)
        for name, metric in metrics_in(metrics).items()
        if metric.label == PSNR.label and metrics[name] is not None
    ][-1]
    figure = metric.figure(metrics[name])
    return f"{run}: PSNR {figure} on {metric.split} pixels"
