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
    """How a run trains: the paper's setting, at a size that suits a few cores."""

    epochs: int = 5
    """Passes over the 50,000 training images, each without its last, smaller batch."""

    batch_size: int = 64
    """Images per step."""

    optimizer: config.Optimizer = "sgd"
    """SGD with momentum 0.9 and weight decay 5e-4, AdamW with decay 5e-2, or RMSprop or
    Adam without decay."""

    learning_rate: float = 0.05
    """Peak step size, reached after a warmup and followed by a cosine decay to 0."""

    augment: bool = True
    """Crop and flip the training images at random."""

    test: bool = True
    """Evaluate the test split once, after the last epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Trains a residual network on Fashion-MNIST, with or without GC.

    The last 10,000 of the published training images are held out for validation.
    """

    prefix: ClassVar[str] = "fashion-"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    return once.train_once(MODULE, Config, load_data, task, args)


def load_data(options: Training) -> "Dataset":
    """Returns the published images."""
    from train import data

    return data.load("fashion_mnist", options.data_dir, meanwhile=once.import_training)


def task(options: Config, dataset: "Dataset") -> "Task":
    """Returns a run's task on images that are in memory."""
    from train.tasks.fashion import Fashion

    return Fashion(
        dataset, augmented=options.augment, test=options.test,
        precision=options.precision,
    )  # fmt: skip


if __name__ == "__main__":
    ends.entry(main)
