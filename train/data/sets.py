"""What `train.data` returns: images or text in memory, or an error."""

import dataclasses

import numpy as np

from train.faults import Failure


class DataError(Failure):
    """Data that cannot be obtained."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images `(N, H, W, C)` in uint8 and their labels `(N,)` in int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory: its TFDS name, why it was chosen, and its splits.

    `lent` says which images of "train" serve as `test`, if there is no such split.
    """

    name: str
    reason: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    lent: str = ""

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.train.images.shape[1:]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A square image in memory: its file's name, why it was chosen, and its pixels.

    The pixels are `(side, side, C)` in uint8: gray, or red, green and blue.
    """

    name: str
    reason: str
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Text:
    """A text in memory: its TFDS name, and its splits as UTF-8 `(N,)` in uint8."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
