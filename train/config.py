"""The configuration of a run: every option, its unit and its default in one place."""

import dataclasses
import os
import pathlib
import sys
from typing import Literal

MAX_CPU_DEVICES = 16

Optimizer = Literal["rmsprop", "sgd", "adam", "adamw"]
Placement = Literal["gradient", "update"]


def default_data_dir() -> pathlib.Path:
    """Returns the folder that TensorFlow Datasets itself would use."""
    path = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(path).expanduser()


def prepare_jax() -> None:
    """Sets what JAX is to do on this machine, unless the environment says otherwise.

    It keeps what it compiles in the user's cache folder, and counts each core of a CPU
    as a device. To be called before JAX is imported.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = pathlib.Path(cache).expanduser() / "optax_gc" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = os.cpu_count() or 1
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(cores, MAX_CPU_DEVICES)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a run trains, whatever its arm and its seed."""

    dataset: Literal["auto", "horses_or_humans", "rendered"] = "auto"
    """The official images, the embedded drawings, or whichever of them can be had."""

    data_dir: pathlib.Path = dataclasses.field(default_factory=default_data_dir)
    """Folder of TensorFlow Datasets, where images are looked for and prepared."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 128
    """Images in a step; the last step of an epoch takes what is left."""

    optimizer: Optimizer = "rmsprop"
    """RMSprop as in Keras; SGD with momentum 0.9; Adam; AdamW with decay 1e-4."""

    learning_rate: float = 1e-4
    """Step size of the optimizer, per step."""

    augment: bool = True
    """Flip, rotate and zoom the training images at random."""

    evaluate: bool = True
    """Measure loss and accuracy on the held-out images after every epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Trains a CNN on Horses or Humans, with or without Gradient Centralization.

    The defaults are those of the published Keras example.
    """

    gc: bool = False
    """Centralize the gradient of every weight vector."""

    placement: Placement = "gradient"
    """What --gc centralizes: the gradient, or the update that the optimizer makes."""

    seed: int = 0
    """Seed of the initial parameters, shuffling, augmentation and dropout."""

    init_from: pathlib.Path | None = None
    """Folder of an earlier run, to start from its final parameters."""

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
    if config.placement == "update" and not config.gc:
        raise ValueError("--placement update needs --gc, got --no-gc.")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in [0, 2**32), got {config.seed}.")


def complain(error: Exception, status: int) -> int:
    """Tells the user of an error in one line and returns the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return status
