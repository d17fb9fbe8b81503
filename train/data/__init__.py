"""Data sets of TensorFlow Datasets, and one that we draw, without TensorFlow."""

from train.data.catalog import load, load_text, prepared
from train.data.read import read_all
from train.data.sets import DataError, Dataset, Split, Text

__all__ = [
    "DataError",
    "Dataset",
    "Split",
    "Text",
    "load",
    "load_text",
    "prepared",
    "read_all",
]
