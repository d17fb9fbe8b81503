"""Command line: fits an image with a coordinate network, with or without GC.

    python -m train.image --gc

takes 25 seconds on two cores. At seed 0 the PSNR on the test pixels is 28.79 dB without
`--gc` and 28.74 dB with it. One seed does not tell which is better.
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
    """Passes over the training half of the pixels, each without its last, smaller
    batch."""

    batch_size: int = 256
    """Pixels per step."""

    optimizer: config.Optimizer = "adam"
    """Adam, SGD with momentum 0.9, RMSprop, or AdamW with decay 1e-4."""

    learning_rate: float | None = None
    """Peak step size, reached after a warmup and followed by a cosine decay to 0. By
    default 8e-3, or 2.5e-4 with SIREN."""

    evaluate: bool = True
    """Measure loss and PSNR on the validation pixels after every epoch."""

    image: pathlib.Path | None = None
    """A file in any format that Pillow reads, cropped to its middle square. By default,
    a photograph that Matplotlib ships."""

    size: int = 256
    """Side of the square in pixels, to which it is resampled."""

    network: Literal["relu", "siren"] = "relu"
    """A ReLU network on Fourier features of a pixel's position, or a SIREN (sines)."""

    test: bool = True
    """Evaluate the test split once, after the last epoch."""

    def __post_init__(self) -> None:
        """Sets the network's own learning rate if none is given."""
        super().__post_init__()
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", RATES[self.network])

    def check(self) -> None:
        """Raises a `UsageError` that names the first option that is out of range."""
        super().check()
        if not SIDES[0] <= self.size <= SIDES[1]:
            raise UsageError(
                f"--size must lie in [{SIDES[0]}, {SIDES[1]}], got {self.size}."
            )
        if self.image and not self.image.is_file():
            raise UsageError(f"--image must be a file, got {self.image}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Fits an image with a network from positions to colors, with or without GC.

    Half of the pixels are for training, a quarter each for validation and test.
    """

    prefix: ClassVar[str] = "image-"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    return once.train_once(MODULE, Config, load_data, task, args)


def load_data(options: Training) -> "Picture":
    """Returns the image."""
    from train import data

    return data.load_picture(options.image, options.size)


def task(options: Config, picture: "Picture") -> "Task":
    """Returns a run's task on an image that is in memory."""
    from train.tasks.image import ImageFit

    return ImageFit(
        picture, network=options.network, test=options.test,
        precision=options.precision,
    )  # fmt: skip


if __name__ == "__main__":
    ends.entry(main)
