"""The metrics of a run: its loss, and the second score of its task.

A metric is one of the two on one split. Its name in a record is for example
`train_loss` or `validation_psnr`, and determines how a reader sees it.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

SHORT = {"train": "", "validation": "validation", "test": "test"}
LONG = {"train": "training", "validation": "validation", "test": "held-out"}
LEAST = 1e-12  # a mean square that float32 can hardly tell from 0; 120 dB


class Metric(NamedTuple):
    """How a reader sees a metric.

    Attributes:
      split: "train", "validation" or "test".
      label: "loss", or the label of the score.
      unit: the unit of the score.
      digits: decimals that are shown.
    """

    split: str
    label: str
    unit: str
    digits: int

    @property
    def kind(self) -> str:
        """The quantity with its unit: "PSNR (dB)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def spoken(self) -> str:
        """Its name before a value: "test PSNR", or "PSNR" for the training split."""
        return f"{SHORT[self.split]} {self.label}".strip()

    @property
    def short(self) -> str:
        """Its name above a column in a terminal: "test PSNR (dB)"."""
        return f"{SHORT[self.split]} {self.kind}".strip()

    @property
    def drawn(self) -> str:
        """Its name in a picture, as the record has it: "test PSNR (dB)"."""
        return f"{'training' if self.split == 'train' else self.split} {self.kind}"

    @property
    def long(self) -> str:
        """Its name in a page's table: "held-out PSNR (dB)"."""
        return f"{LONG[self.split]} {self.kind}"

    def number(self, value: float, sign: str = "") -> str:
        """Returns a value without its unit; `sign` may be "+"."""
        return f"{value:{sign}.{self.digits}f}"

    def figure(self, value: float) -> str:
        """Returns a value with its unit."""
        return f"{self.number(value)} {self.unit}".strip()


@dataclasses.dataclass(frozen=True)
class Score:
    """What a task measures besides its loss.

    Attributes:
      name: its name in a record, after the name of the split.
      label: its name in a sentence.
      unit: the unit of the figure; empty if it has none.
      digits: decimals of the figure that are shown.
      loss_digits: decimals of the loss that are shown beside it.
      of_mean: maps the mean of the examples' scores to the figure.
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 4
    loss_digits: int = 4
    of_mean: Callable[[float], float] = float

    def names(self, split: str) -> tuple[str, str]:
        """Returns the names in a record of a split's loss and score."""
        return f"{split}_loss", f"{split}_{self.name}"

    def figures(self, split: str, loss: float, mean: float) -> dict[str, float]:
        """Returns a split's loss and score by name.

        Args:
          split: the split's name.
          loss: the mean loss of its examples.
          mean: the mean from which the score is computed.
        """
        return dict(zip(self.names(split), (loss, self.of_mean(mean)), strict=True))

    def metrics(self) -> dict[str, Metric]:
        """Returns the metrics of every split by name, in the order of tables."""
        found = {}
        for split in SHORT:
            loss, second = self.names(split)
            found[loss] = Metric(split, "loss", "", self.loss_digits)
            found[second] = Metric(split, self.label, self.unit, self.digits)
        return found


def decibels(mean_square: float) -> float:
    """Returns the peak signal-to-noise ratio for a mean squared error and a peak of 1.

    It is `-10 log10(mean_square)`, at most 120.

    Example:
      >>> decibels(0.001)
      30.0
    """
    return -10 * math.log10(max(mean_square, LEAST))


ACCURACY = Score("accuracy", "accuracy")
PSNR = Score("psnr", "PSNR", "dB", digits=2, loss_digits=6, of_mean=decibels)
SCORES = (ACCURACY, PSNR)


def metrics_in(names: Collection[str]) -> dict[str, Metric]:
    """Returns the metrics among some names, in the order of tables.

    Args:
      names: such as the keys of a line of `metrics.jsonl`; other names are ignored.
    """
    score = next((one for one in SCORES if is_of(one, names)), ACCURACY)
    return {name: one for name, one in score.metrics().items() if name in names}


def is_of(score: Score, names: Collection[str]) -> bool:
    """Tells whether the names include a score on some split."""
    return any(score.names(split)[1] in names for split in SHORT)


def sentence(text: str) -> str:
    """Returns a text with its first letter capitalized and the others unchanged."""
    return text[:1].upper() + text[1:]
