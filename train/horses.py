"""Command line: trains the CNN once, with or without Gradient Centralization.

python -m train.horses --gc
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from train import config
from train.command import ends, once
from train.faults import UsageError

if TYPE_CHECKING:
    from train.data import Dataset
    from train.engine.task import Task

MODULE = "train.horses"
# In pixels. Five convolutions and pools leave nothing of an image whose shorter side is
# below the first number, so that side is enlarged to the second.
ENLARGE = (94, 96)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(config.Training, config.DataDir):
    """How a run trains; the defaults are those of the published Keras example."""

    dataset: str = "auto"
    """horses_or_humans, rendered (the drawings), auto (whichever of the two is
    available), or another TFDS data set with the features image and label."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 128
    """Images per step; the last step of an epoch takes what is left."""

    optimizer: config.Optimizer = "rmsprop"
    """RMSprop as in Keras, SGD with momentum 0.9, Adam, or AdamW with decay 1e-4."""

    learning_rate: float = 1e-4
    """Step size of the optimizer."""

    augment: bool = True
    """Flip, rotate and zoom the training images at random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Trains a CNN on Horses or Humans, with or without Gradient Centralization.

    The defaults are those of the published Keras example.
    """

    init_from: pathlib.Path | None = None
    """Folder of an earlier run whose final parameters to start from."""

    def check(self) -> None:
        super().check()
        if self.init_from and not (self.init_from / "params").is_dir():
            raise UsageError(
                "--init-from must be the folder of a finished run, got "
                f"{self.init_from}, which contains no params."
            )


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    return once.train_once(MODULE, Config, load_data, task, args)


def load_data(options: Training) -> "Dataset":
    """Returns the images."""
    from train import data

    return data.load(
        options.dataset, options.data_dir, ENLARGE, meanwhile=once.import_training
    )


def task(options: Config, dataset: "Dataset") -> "Task":
    """Returns a run's task on images that are in memory."""
    from train.tasks.horses import Horses

    return Horses(
        dataset, options.augment, options.init_from, precision=options.precision
    )


if __name__ == "__main__":
    ends.entry(main)
