"""Command line: trains a decoder on tiny Shakespeare, with or without GC.

python -m train.shakespeare --gc
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from train import config
from train.command import ends, once

if TYPE_CHECKING:
    from train.data import Text
    from train.engine.task import Task

MODULE = "train.shakespeare"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(config.Training, config.DataDir):
    """How a run trains."""

    epochs: int = 4
    """Passes over the training text, each without its last, smaller batch."""

    batch_size: int = 32
    """Passages of 64 bytes per step."""

    optimizer: config.Optimizer = "adamw"
    """AdamW with decay 0.1 on the matrices, SGD with momentum 0.9, RMSprop, or Adam."""

    learning_rate: float = 3e-3
    """Peak step size, reached after a warmup and followed by a cosine decay to 0."""

    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm, or RMSNorm, which does not subtract the mean."""

    test: bool = True
    """Evaluate the test split once, after the last epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training, config.Config):
    """Trains a decoder to predict Shakespeare byte by byte, with or without GC."""

    prefix: ClassVar[str] = "shakespeare-"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    return once.train_once(MODULE, Config, load_data, task, args)


def load_data(options: Training) -> "Text":
    """Returns the text."""
    from train import data

    return data.load_text("tiny_shakespeare", options.data_dir)


def task(options: Config, text: "Text") -> "Task":
    """Returns a run's task on a text that is in memory."""
    from train.tasks.shakespeare import Shakespeare

    return Shakespeare(
        text, norm=options.norm, test=options.test, precision=options.precision
    )


if __name__ == "__main__":
    ends.entry(main)
