"""Command line: trains a residual network on Fashion-MNIST, with or without GC.

python -m train.fashion --gc
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from train import config
from train.command import ends, once

if TYPE_CHECKING:
    from train.data import Dataset
    from train.engine.task import Task

MODULE = "train.fashion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(config.Training, config.DataDir):
    """How a run trains; the setting is the paper's, the size one for a few cores."""

    epochs: int = 5
    """Passes over the 50,000 training images, each without its last, smaller batch."""

    batch_size: int = 64
    """Images in a step."""

    optimizer: config.Optimizer = "sgd"
    """SGD with momentum 0.9 and weight decay 5e-4; AdamW with decay 5e-2; RMSprop or
    Adam without."""

    learning_rate: float = 0.05
    """Largest step size: it warms up to it, then falls on a cosine to 0."""

    augment: bool = True
    """Crop and flip the training images at random."""

    test: bool = True
    """Open the test split, once, after the last epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Trains a residual network on Fashion-MNIST, with or without GC.

    Of the published training images the last 10,000 are held out for validation.
    """

    prefix: ClassVar[str] = "fashion-"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    return once.train_once(MODULE, Config, load, args)


def load(options: Config) -> "Task":
    """Returns the task of a run, with its images in memory."""
    return task(options, load_data(options))


def load_data(options: Training) -> "Dataset":
    """Returns the images as they are published."""
    from train import data

    return data.load("fashion_mnist", options.data_dir)


def task(options: Config, dataset: "Dataset") -> "Task":
    """Returns the task of a run on images that are in memory."""
    from train.tasks.fashion import Fashion

    return Fashion(
        dataset, augmented=options.augment, test=options.test,
        precision=options.precision,
    )  # fmt: skip


if __name__ == "__main__":
    ends.entry(main)
