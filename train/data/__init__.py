"""Data sets from TFDS without TensorFlow, a data set that we draw, and an image."""

from train.data.catalog import load, load_text
from train.data.picture import load_picture
from train.data.sets import DataError, Dataset, Picture, Split, Text

__all__ = [
    "DataError",
    "Dataset",
    "Picture",
    "Split",
    "Text",
    "load",
    "load_picture",
    "load_text",
]
