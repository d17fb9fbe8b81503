"""Command line: fits an image by a coordinate network, with or without GC.

python -m train.image --gc
"""

import dataclasses
import os.path
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from train import command, config
from train.faults import UsageError

if TYPE_CHECKING:
    from train.data import Picture
    from train.engine.task import Task

MODULE = "train.image"
SIDES = (8, 4096)  # pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(config.Training):
    """How a run trains."""

    epochs: int = 40
    """Passes over half of the pixels, each without its last, smaller batch."""

    batch_size: int = 256
    """Pixels in a step."""

    optimizer: config.Optimizer = "adam"
    """Adam; SGD with momentum 0.9; RMSprop; AdamW with decay 1e-4."""

    learning_rate: float = 1.6e-2
    """Largest step size: it warms up to it, then falls on a cosine to 0."""

    image: pathlib.Path | None = None
    """Image file in any format that Pillow reads; else a photograph that Matplotlib
    ships. Of its middle a square is taken."""

    size: int = 256
    """Side in pixels to which the square is resampled."""

    network: Literal["relu", "siren"] = "relu"
    """Relu on Fourier features of a pixel's place, or sines (SIREN)."""

    test: bool = True
    """Open the test split, once, after the last epoch."""

    @property
    def file(self) -> pathlib.Path | None:
        """The image file, with `~` expanded."""
        return self.image and pathlib.Path(os.path.expanduser(self.image))

    def check(self) -> None:
        """Raises a `UsageError` that names the first option out of its range."""
        super().check()
        if not SIDES[0] <= self.size <= SIDES[1]:
            raise UsageError(
                f"--size must lie in [{SIDES[0]}, {SIDES[1]}], got {self.size}."
            )
        if self.file and not self.file.is_file():
            raise UsageError(f"--image must be a file, got {self.file}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Fits an image by a network from places to colors, with or without GC.

    It is trained on half of the pixels; a quarter is held out for validation, and a
    quarter for the test. Which ones depends on the size alone.
    """

    prefix: ClassVar[str] = "image-"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    args = list(sys.argv[1:] if args is None else args)
    return command.train_once(MODULE, Config, load, args)


def load(options: Config) -> "Task":
    """Returns the task of a run, with its image in memory."""
    return task(options, load_data(options))


def load_data(options: Training) -> "Picture":
    """Returns the image."""
    from train import data

    return data.load_picture(options.file, options.size)


def task(options: Config, picture: "Picture") -> "Task":
    """Returns the task of a run on an image that is in memory."""
    from train.tasks.image import ImageFit

    return ImageFit(
        picture, network=options.network, test=options.test,
        precision=options.precision,
    )  # fmt: skip


if __name__ == "__main__":
    command.entry(main)
