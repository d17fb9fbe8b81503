"""TensorFlow Datasets, read into uint8 arrays without TensorFlow."""

import concurrent.futures
import contextlib
import dataclasses
import io
import os
import pathlib
import struct
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.image_classification import horses_or_humans

from train import rendered

SERVER_PATIENCE = 3.0  # seconds that a data server is given to answer


class DataError(Exception):
    """Images that cannot be had; its message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images `(N, H, W, 3)` in uint8 and their labels `(N,)` in int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory: its TFDS name, why it was chosen, and its splits."""

    name: str
    reason: str
    class_names: tuple[str, ...]
    train: Split
    test: Split


def load(name: str, data_dir: pathlib.Path) -> Dataset:
    """Returns the data set `name`, downloaded or drawn first where needed.

    Args:
      name: "horses_or_humans", "rendered", or "auto": the first of them if it is
        prepared or its server answers, else the second.
      data_dir: the folder of TensorFlow Datasets.

    Raises:
      DataError: if the images can neither be read nor be prepared.
    """
    absl.logging.set_verbosity(absl.logging.ERROR)
    builder, reason = choose(name, data_dir)
    if not builder.is_prepared():
        print(f"{builder.name}: {reason}", flush=True)
        prepare(builder)
    return Dataset(
        name=f"{builder.name}/{builder.version}",
        reason=reason,
        class_names=tuple(builder.info.features["label"].names),
        train=read(builder, "train"),
        test=read(builder, "test"),
    )


def choose(name: str, data_dir: pathlib.Path) -> tuple[tfds.core.DatasetBuilder, str]:
    """Returns the builder that `name` stands for, and the reason as a clause."""
    if name == "rendered":
        return rendered.Rendered(data_dir=data_dir), "as asked"
    official = HorsesOrHumans(data_dir=data_dir)
    if name == "horses_or_humans":
        return official, "as asked"
    if official.is_prepared():
        return official, f"found prepared in {official.data_dir_root}"
    if server_answers(official):
        return official, "its server answers"
    return rendered.Rendered(data_dir=data_dir), (
        f"horses_or_humans is not prepared in {official.data_dir_root} and its server "
        f"did not answer within {SERVER_PATIENCE:g} s; "
        "insist with --dataset horses_or_humans"
    )


def zip_members(path: os.PathLike) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the name and the open file of each member of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                yield name, member


with tfds.core.registered.skip_registration():

    class HorsesOrHumans(horses_or_humans.HorsesOrHumans):
        """The official builder, opening its archives without TensorFlow."""

        # TFDS looks for the checksums beside a builder's module.
        url_infos = horses_or_humans.HorsesOrHumans.url_infos

        def _split_generators(self, dl_manager):
            dl_manager.iter_archive = zip_members
            return super()._split_generators(dl_manager)


def server_answers(builder: tfds.core.DatasetBuilder) -> bool:
    """Tells whether the server of the builder's archives answers in a few seconds."""
    answers = []

    def ask() -> None:
        request = urllib.request.Request(next(iter(builder.url_infos)), method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=SERVER_PATIENCE):
                answers.append(True)
        except OSError:
            pass

    # A thread, because looking up the host's name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SERVER_PATIENCE)
    return bool(answers)


def is_downloaded(builder: tfds.core.DatasetBuilder) -> bool:
    """Tells whether every archive lies in the download cache of TFDS."""
    cache = builder.data_dir_root / "downloads"
    file_names = (
        resource.get_dl_fname(url, info.checksum)
        for url, info in builder.url_infos.items()
    )
    return all(
        (cache / name).exists() or (cache / builder.name / name).exists()
        for name in file_names
    )


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Downloads or draws the images into the builder's folder, unless they are there.

    Raises:
      DataError: if they have to be downloaded and the server does not answer.
    """
    if builder.is_prepared():
        return
    drawn = isinstance(builder, rendered.Rendered)
    if not drawn and not is_downloaded(builder) and not server_answers(builder):
        raise DataError(
            f"{builder.name} is not prepared in {builder.data_dir_root} and its server "
            f"did not answer within {SERVER_PATIENCE:g} s. Connect to the network, "
            "name the folder of prepared data with --data-dir, "
            "or use --dataset rendered."
        )
    verb = "Drawing, for a minute or two," if drawn else "Downloading and preparing"
    print(f"{verb} into {builder.data_dir}", flush=True)
    if drawn or not sys.stderr.isatty():  # drawing has a bar of its own
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # its sizes are not ours
        builder.download_and_prepare(file_format="array_record")


def read(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    """Returns a prepared split, decoded on all cores, without an alpha channel."""

    def decode(record: bytes) -> tuple[np.ndarray, int]:
        example = builder.info.features.deserialize_example_np(record)
        return example["image"][..., :3], example["label"]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        images, labels = zip(*pool.map(decode, records(builder, split)), strict=True)
    return Split(np.stack(images), np.array(labels, np.int32))


def records(builder: tfds.core.DatasetBuilder, split: str) -> Iterable[bytes]:
    """Returns the serialized examples of a prepared split, in its order."""
    if builder.info.file_format is tfds.core.FileFormat.TFRECORD:
        paths = builder.info.splits[split].filepaths
        return (record for path in paths for record in tfrecords(path))
    return builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )


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
