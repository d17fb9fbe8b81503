"""Prepared data sets of TFDS, read into uint8 arrays."""

import concurrent.futures
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from train.data.prepare import describe
from train.data.sets import DataError, Dataset, Split, Text

UNKNOWN_SIDE = 300  # pixels: the sides of images whose metadata tell no size
CHUNK = 64  # images that a thread decodes in turn: one alone may be too little work
# Values in an image from which on decoding one takes longer than the Python around it,
# so that more threads than one help; below, they only wait for each other.
WORTH_THREADS = 2**14


def read_all(
    builder: tfds.core.DatasetBuilder,
    reason: str,
    enlarge: tuple[int, int] | None = None,
) -> Dataset:
    """Returns the images of a prepared builder; held-out are "test" or "validation".

    Images may be enlarged, as by `load`.

    Raises:
      DataError: if they are damaged.
    """
    held_out = "validation" if "test" not in builder.info.splits else "test"
    return Dataset(
        name=f"{builder.name}/{builder.version}",
        reason=reason,
        class_names=tuple(builder.info.features["label"].names),
        train=read_split(builder, "train", enlarge),
        test=read_split(builder, held_out, enlarge),
    )


def read_text(builder: tfds.core.DatasetBuilder) -> Text:
    """Returns the text of a prepared builder, the examples of each split joined.

    Raises:
      DataError: if it is damaged.
    """

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
    """Returns a prepared split, without an alpha channel, decoded on all cores if
    the images are large.

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
            f"{i} of split {split} in {builder.data_dir}. Prepare the data set anew "
            "from its own archive."
        )
    if not 0 <= label < classes:
        raise DataError(
            f"labels of {builder.name} must lie in [0, {classes}), got {label} at "
            f"image {i} of split {split} in {builder.data_dir}. Use a data set that is "
            "labelled throughout."
        )


def damaged(
    builder: tfds.core.DatasetBuilder, what: str, error: Exception
) -> DataError:
    return DataError(
        f"{what} of {builder.name} cannot be read ({describe(error)}). "
        f"Delete {builder.data_dir}, then prepare it anew."
    )


def image_shape(
    declared: tuple[int | None, ...], enlarge: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Returns the `(H, W, C)` in which images of a declared shape are kept.

    Their own, unless they are to be enlarged; square if the declaration leaves it open.
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
    """Returns how many examples a prepared split has, and how to get some of them.

    Raises:
      DataError: if the split is damaged; getting examples raises it too.
    """
    try:
        count, get = records(builder, split)
    except DataError:
        raise
    except Exception as error:  # whatever opening damaged files may raise
        raise damaged(builder, f"split {split}", error) from error

    def get_one(i: int) -> dict[str, Any]:
        try:
            (example,) = get([i])
        except Exception as error:  # whatever reading damaged files may raise
            raise damaged(builder, f"example {i} of split {split}", error) from error
        return example

    def get_some(indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            return get(indices)
        except Exception:  # one of them is damaged: which?
            return [get_one(i) for i in indices]

    return count, get_some


def records(builder: tfds.core.DatasetBuilder, split: str) -> tuple[int, Get]:
    """Returns what `examples` does, from either of the formats that we read."""
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        source = builder.as_data_source(split)
        # Together, because a file of many records is slow to read one by one.
        return len(source), lambda indices: source.__getitems__(list(indices))
    info = builder.info.splits[split]
    found = [record for path in info.filepaths for record in tfrecords(path)]
    if len(found) != info.num_examples:
        raise DataError(
            f"split {split} in {builder.data_dir} must have {info.num_examples} "
            f"records, got {len(found)}. Delete the folder, then prepare it anew."
        )
    decode = builder.info.features.deserialize_example_np
    return len(found), lambda indices: [decode(found[i]) for i in indices]


def tfrecords(path: os.PathLike) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, which TFDS reads only with TensorFlow.

    A record is its length (uint64, little-endian), the length's checksum (4 bytes),
    its bytes and their checksum (4 bytes). Checksums are not verified.

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
                    "anew."
                )
            yield body[:-4]
