"""What the networks of the study are trained on, in memory."""

import functools
import pathlib
from typing import Any, NamedTuple

import numpy as np

SIDE = 96  # pixels of a picture's side
TRAINED = 0.5  # share of its pixels that are trained on
SPLIT_SEED = 0  # of which pixels these are
CLASSIFIED = 10_000  # training images of Fashion-MNIST; as many are held out
PICTURES = ("hopper", "brain", "hills")


class Examples(NamedTuple):
    """Inputs and targets, which share their first axis."""

    x: np.ndarray
    y: np.ndarray


class Split(NamedTuple):
    """Examples to train on, and others that are held out."""

    train: Examples
    held_out: Examples


def picture(name: str) -> np.ndarray:
    """Returns one of Matplotlib's sample pictures, float32 `(SIDE, SIDE, C)` in [0, 1].

    A photograph of Grace Hopper, a magnetic resonance image of a head, and the
    elevation of hills near Jacksboro: a square of each, averaged down.
    """
    from matplotlib import cbook

    def sample(file: str) -> Any:
        return cbook.get_sample_data(file, asfileobj=True)

    match name:
        case "hopper":
            from PIL import Image

            with sample("grace_hopper.jpg") as file:
                values = np.asarray(Image.open(file).convert("RGB"), np.float32)
            values = values[:512, :512]
        case "brain":
            with sample("s1045.ima.gz") as file:
                values = np.frombuffer(file.read(), np.uint16).astype(np.float32)
            values = values.reshape(256, 256, 1)
        case "hills":
            values = np.float32(sample("jacksboro_fault_dem.npz")["elevation"])
            values = values[:320, :320, None]
    values = smaller(values, SIDE)
    low, high = values.min(), values.max()
    return (values - low) / (high - low)


def smaller(values: np.ndarray, side: int) -> np.ndarray:
    """Returns a square picture `(N, N, C)` at another size, by averages of its area."""
    from PIL import Image

    channels = [
        np.asarray(
            Image.fromarray(values[..., i]).resize((side, side), Image.Resampling.BOX)
        )
        for i in range(values.shape[-1])
    ]
    return np.stack(channels, -1)


def coordinates(side: int) -> np.ndarray:
    """Returns the places of a picture's pixels in [-1, 1], float32 `(side ** 2, 2)`."""
    line = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


@functools.cache
def pixels(name: str) -> Split:
    """Returns the places of a picture's pixels and their values, in two parts."""
    values = picture(name).reshape(SIDE**2, -1)
    places = coordinates(SIDE)
    order = np.random.default_rng(SPLIT_SEED).permutation(SIDE**2)
    count = round(TRAINED * SIDE**2)
    return Split(
        *(Examples(places[rows], values[rows]) for rows in np.split(order, [count]))
    )


@functools.cache
def fashion(data_dir: pathlib.Path) -> Split:
    """Returns images of Fashion-MNIST in [0, 1], float32 `(N, 28, 28, 1)`, and labels.

    The first and the last 10,000 of the published training images.
    """
    from train import data

    found = data.load("fashion_mnist", data_dir).train
    rows = (slice(CLASSIFIED), slice(-CLASSIFIED, None))
    return Split(
        *(
            Examples(np.float32(found.images[part]) / 255, found.labels[part])
            for part in rows
        )
    )


def square(count: int, seed: int) -> np.ndarray:
    """Returns random places in the unit square, float32 `(count, 2)`."""
    return np.random.default_rng(seed).uniform(size=(count, 2)).astype(np.float32)
