"""The configuration of a run: every option, its unit and its default in one place."""

import dataclasses
import os
import pathlib
from typing import Literal


def default_data_dir() -> pathlib.Path:
    """Returns the folder that TensorFlow Datasets itself would use."""
    path = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(path).expanduser()


def use_compilation_cache() -> None:
    """Has JAX keep what it compiles in the user's cache folder, unless told where.

    To be called before JAX is imported.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = pathlib.Path(cache).expanduser() / "optax_gc" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Trains a CNN on Horses or Humans, with or without Gradient Centralization.

    The defaults are those of the published Keras example.
    """

    gc: bool = False
    """Centralize the gradient of every weight vector before RMSprop."""

    dataset: Literal["auto", "horses_or_humans", "rendered"] = "auto"
    """The published images, the embedded drawings, or the first of these two that can
    be had."""

    data_dir: pathlib.Path = dataclasses.field(default_factory=default_data_dir)
    """Folder of TensorFlow Datasets: prepared images are read from it, others are
    prepared into it."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 128
    """Images in a step; the last step of an epoch takes what is left."""

    learning_rate: float = 1e-4
    """Step size of RMSprop, per step."""

    seed: int = 0
    """Seed of the initial parameters, shuffling, augmentation and dropout."""

    augment: bool = True
    """Flip, rotate and zoom the training images at random."""

    evaluate: bool = True
    """Measure loss and accuracy on the held-out images after every epoch."""

    workdir: pathlib.Path | None = None
    """New folder for the run's files; by default the next free one below runs/."""


def check(config: Config) -> None:
    """Raises a `ValueError` that names the first field out of its range."""
    for field in ("epochs", "batch_size"):
        if getattr(config, field) < 1:
            raise ValueError(
                f"--{field.replace('_', '-')} must be at least 1, "
                f"got {getattr(config, field)}."
            )
    if not 0 < config.learning_rate < float("inf"):
        raise ValueError(
            f"--learning-rate must be a positive number, got {config.learning_rate}."
        )
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in [0, 2**32), got {config.seed}.")
