"""Command line: fits an image by a coordinate network, with or without GC.

    python -m train.image --gc

takes 25 seconds on two cores. At seed 0 the PSNR on the test pixels is 28.79 dB without
`--gc` and 28.74 dB with it: one seed, which does not tell which is better.
docs/experiment.md says how the learning rates were chosen.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from train import config
from train.command import ends, once
from train.faults import UsageError

if TYPE_CHECKING:
    from train.data import Picture
    from train.engine.task import Task

MODULE = "train.image"
SIDES = (8, 4096)  # pixels
RATES = {"relu": 8e-3, "siren": 2.5e-4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(config.Training):
    """How a run trains."""

    epochs: int = 40
    """Passes over half of the pixels, each without its last, smaller batch."""

    batch_size: int = 256
    """Pixels in a step."""

    optimizer: config.Optimizer = "adam"
    """Adam; SGD with momentum 0.9; RMSprop; AdamW with decay 1e-4."""

    learning_rate: float | None = None
    """Largest step size: it warms up to it, then falls on a cosine to 0.
    By default 8e-3, with SIREN 2.5e-4."""

    evaluate: bool = True
    """Measure loss and PSNR on the validation pixels after every epoch."""

    image: pathlib.Path | None = None
    """A file in any format that Pillow reads, of which the middle square is taken.
    By default a photograph that Matplotlib ships."""

    size: int = 256
    """Side in pixels to which the square is resampled."""

    network: Literal["relu", "siren"] = "relu"
    """Relu on Fourier features of a pixel's place, or sines (SIREN)."""

    test: bool = True
    """Open the test split, once, after the last epoch."""

    def __post_init__(self) -> None:
        """Takes the network's learning rate."""
        super().__post_init__()
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", RATES[self.network])

    def check(self) -> None:
        """Raises a `UsageError` that names the first option out of its range."""
        super().check()
        if not SIDES[0] <= self.size <= SIDES[1]:
            raise UsageError(
                f"--size must lie in [{SIDES[0]}, {SIDES[1]}], got {self.size}."
            )
        if self.image and not self.image.is_file():
            raise UsageError(f"--image must be a file, got {self.image}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Fits an image by a network from places to colors, with or without GC.

    Half of its pixels are trained on; a quarter each is for validation and test.
    """

    prefix: ClassVar[str] = "image-"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    return once.train_once(MODULE, Config, load, args)


def load(options: Config) -> "Task":
    """Returns the task of a run, with its image in memory."""
    return task(options, load_data(options))


def load_data(options: Training) -> "Picture":
    """Returns the image."""
    from train import data

    return data.load_picture(options.image, options.size)


def task(options: Config, picture: "Picture") -> "Task":
    """Returns the task of a run on an image that is in memory."""
    from train.tasks.image import ImageFit

    return ImageFit(
        picture, network=options.network, test=options.test,
        precision=options.precision,
    )  # fmt: skip


if __name__ == "__main__":
    ends.entry(main)
