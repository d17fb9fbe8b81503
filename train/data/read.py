"""Reads prepared TFDS data sets into uint8 arrays."""

import concurrent.futures
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from train.data.prepare import describe, what_is_missing
from train.data.sets import DataError, Dataset, Split, Text
from train.faults import UsageError

LENT = (
    "a tenth of each class of train, its images 2, 12, 22..., which has no test split"
)
UNKNOWN_SIDE = 300  # pixels: the sides of images whose metadata give no size
CHUNK = 64  # images per task of a thread: one alone may be too little work
# Values in an image above which decoding takes longer than the Python code around it,
# so that several threads help; below, they only wait for each other.
WORTH_THREADS = 2**14


def read_all(
    builder: tfds.core.DatasetBuilder,
    reason: str,
    enlarge: tuple[int, int] | None = None,
) -> Dataset:
    """Returns the images of a prepared builder.

    The held-out images are "test" or "validation", or a part of "train" if the data set
    has neither. Images may be enlarged, as by `load`.

    Raises:
      UsageError: if there are no images to train on, or to hold out.
      DataError: if they are damaged.
    """
    splits = [name for name in ("test", "validation") if name in builder.info.splits]
    check_splits(builder, {"train"})
    train = read_split(builder, "train", enlarge)
    if splits:
        test = read_split(builder, splits[0], enlarge)
    else:
        train, test = parted(train, builder.name)
    return Dataset(
        name=f"{builder.name}/{builder.version}",
        reason=reason,
        class_names=tuple(builder.info.features["label"].names),
        train=train,
        test=test,
        lent="" if splits else LENT,
    )


def check_splits(builder: tfds.core.DatasetBuilder, needed: Set[str]) -> None:
    """Raises a `UsageError` unless a data set has the given splits."""
    if missing := needed - set(builder.info.splits):
        raise UsageError(
            f"{builder.name} must have the split {' and '.join(sorted(missing))}, got "
            f"{', '.join(builder.info.splits) or 'none'}. Use another --dataset."
        )


def parted(split: Split, name: str) -> tuple[Split, Split]:
    """Returns a split without a tenth of each class, and that tenth.

    The tenth is the 2nd, 12th, 22nd... image of each class, in their order.

    Raises:
      UsageError: if no class has two images.
    """
    numbers = np.zeros(len(split), np.int64)  # an image's number within its class
    for label in np.unique(split.labels):
        of_class = split.labels == label
        numbers[of_class] = np.arange(of_class.sum())
    held_out = numbers % 10 == 1
    if not held_out.any():
        raise UsageError(
            f"{name} has no test split, and holding out a part of train needs two "
            f"images of one class, got {len(split)} images of as many classes. Use "
            "another --dataset."
        )
    kept, lent = (
        Split(split.images[some], split.labels[some]) for some in (~held_out, held_out)
    )
    return kept, lent


def read_text(builder: tfds.core.DatasetBuilder) -> Text:
    """Returns the text of a prepared builder, with the examples of each split joined.

    Raises:
      UsageError: if it lacks a split.
      DataError: if it is damaged.
    """
    check_splits(builder, {"train", "validation", "test"})

    def read(split: str) -> np.ndarray:
        count, get = examples(builder, split)
        text = b"".join(example["text"] for example in get(range(count)))
        return np.frombuffer(text, np.uint8)

    splits = {split: read(split) for split in ("train", "validation", "test")}
    return Text(name=f"{builder.name}/{builder.version}", **splits)


def read_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    enlarge: tuple[int, int] | None = None,
) -> Split:
    """Returns a prepared split without an alpha channel.

    Large images are decoded on all cores.

    Raises:
      DataError: if a record is damaged, or an image or a label is not as declared.
    """
    count, get = examples(builder, split)
    shape = image_shape(builder.info.features["image"].shape, enlarge)
    images = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.int32)

    def read(indices: range) -> None:
        for i, example in zip(indices, get(indices), strict=True):
            check(builder, split, i, example)
            images[i] = resize(example["image"][..., :3], shape)
            labels[i] = example["label"]

    chunks = (range(count)[i : i + CHUNK] for i in range(0, count, CHUNK))
    threads = None if np.prod(shape) >= WORTH_THREADS else 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read, chunks):
            pass
    return Split(images, labels)


def check(
    builder: tfds.core.DatasetBuilder, split: str, i: int, example: dict[str, Any]
) -> None:
    """Raises a `DataError` if image `i` of a split or its label is not as declared."""
    image, label = example["image"], example["label"]
    declared = builder.info.features["image"].shape
    classes = builder.info.features["label"].num_classes
    if any(d not in (None, n) for d, n in zip(declared[:2], image.shape, strict=False)):
        raise DataError(
            f"images of {builder.name} must be {declared}, got {image.shape} as image "
            f"{i} of split {split} in {builder.data_dir}. Prepare the data set again "
            "from its own archive."
        )
    if not 0 <= label < classes:
        raise DataError(
            f"labels of {builder.name} must lie in [0, {classes}), got {label} at "
            f"image {i} of split {split} in {builder.data_dir}. Use a data set in "
            "which every image is labelled."
        )


def unread(builder: tfds.core.DatasetBuilder, what: str, error: Exception) -> DataError:
    """Returns the error that some part of a data set cannot be read, with a remedy.

    It advises the user to delete the data set only if that is damaged.
    """
    remedy = what_is_missing(builder.name, builder.data_dir_root, error)
    if remedy is None and is_of_the_system(error, pathlib.Path(builder.data_dir)):
        remedy = "The data itself may be intact: fix this, then try again."
    remedy = remedy or f"Delete {builder.data_dir}, then prepare it again."
    return DataError(
        f"{what} of {builder.name} cannot be read ({describe(error)}). {remedy}"
    )


def is_of_the_system(error: Exception, folder: pathlib.Path) -> bool:
    """Tells whether reading failed for lack of memory, file handles or permission."""
    if isinstance(error, FileNotFoundError):
        return False
    refused = isinstance(error, OSError) and error.errno is not None
    readable = all(os.access(path, os.R_OK) for path in (folder, *folder.iterdir()))
    return refused or isinstance(error, MemoryError) or not readable


def image_shape(
    declared: tuple[int | None, ...], enlarge: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Returns the `(H, W, C)` in which images of a declared shape are kept.

    It is their own shape, unless they are enlarged. If the declaration leaves it open,
    it is square.
    """
    height, width, channels = declared
    channels = min(channels or 3, 3)
    if height is None or width is None:
        return UNKNOWN_SIDE, UNKNOWN_SIDE, channels
    short = min(height, width)
    if enlarge is None or short >= enlarge[0]:
        return height, width, channels
    return height * enlarge[1] // short, width * enlarge[1] // short, channels


def resize(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an image `(h, w, C)` in uint8 resampled (bilinear) to `(H, W, C)`."""
    if image.shape == shape:
        return image
    gray = shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if gray else image)
    size = (shape[1], shape[0])
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).reshape(shape)


Get = Callable[[Sequence[int]], list[dict[str, Any]]]


def examples(builder: tfds.core.DatasetBuilder, split: str) -> tuple[int, Get]:
    """Returns the number of examples in a prepared split, and a function to get some.

    Raises:
      DataError: if the split is damaged; the function raises it, too.
    """
    try:
        count, get = records(builder, split)
    except DataError:
        raise
    except Exception as error:  # opening a damaged file may raise anything
        raise unread(builder, f"split {split}", error) from error

    def get_one(i: int) -> dict[str, Any]:
        try:
            (example,) = get([i])
        except Exception as error:  # so may reading it
            raise unread(builder, f"example {i} of split {split}", error) from error
        return example

    def get_some(indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            return get(indices)
        except Exception:  # find out which one is damaged
            return [get_one(i) for i in indices]

    return count, get_some


def records(builder: tfds.core.DatasetBuilder, split: str) -> tuple[int, Get]:
    """Returns the same as `examples`, from either of the formats that we read."""
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        source = builder.as_data_source(split)
        # All at once, because reading many records one by one is slow.
        return len(source), lambda indices: source.__getitems__(list(indices))
    info = builder.info.splits[split]
    found = [record for path in info.filepaths for record in tfrecords(path)]
    if len(found) != info.num_examples:
        raise DataError(
            f"split {split} in {builder.data_dir} must have {info.num_examples} "
            f"records, got {len(found)}. Delete the folder, then prepare it again."
        )
    decode = builder.info.features.deserialize_example_np
    return len(found), lambda indices: [decode(found[i]) for i in indices]


def tfrecords(path: os.PathLike) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, which TFDS reads only with TensorFlow.

    A record consists of its length (uint64, little-endian), the length's checksum (4
    bytes), its bytes and their checksum (4 bytes). Checksums are not verified.

    Raises:
      DataError: if the file ends inside a record.

    References:
      https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    """
    with open(path, "rb") as file:
        while header := file.read(12):
            size = struct.unpack("<Qxxxx", header)[0] if len(header) == 12 else 0
            body = file.read(size + 4)
            if len(header) < 12 or len(body) < size + 4:
                raise DataError(
                    f"{path} ends inside a record. Delete its folder, then prepare it "
                    "again."
                )
            yield body[:-4]
