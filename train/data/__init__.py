"""TensorFlow Datasets, read into uint8 arrays without TensorFlow."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import struct
import sys
import threading
import unittest.mock
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import absl.logging
import filelock
import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.image_classification import horses_or_humans

from train.data import rendered
from train.faults import Failure, UsageError

SERVER_PATIENCE = 3.0  # seconds that a data server is given to answer
DOWNLOAD_PATIENCE = 30.0  # seconds without a byte after which a download has failed
DOWNLOAD_RETRIES = 2  # of a download that fails before its first byte
LEAST_SIDE = 94  # pixels: what five convolutions and pools leave a pixel of
SMALL_SIDE = 96  # pixels: to what the shorter side of a smaller image is enlarged
UNKNOWN_SIDE = 300  # pixels: the sides of images whose metadata tell no size


class DataError(Failure):
    """Images that cannot be had."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images `(N, H, W, C)` in uint8 and their labels `(N,)` in int32."""

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

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.train.images.shape[1:]


def load(name: str, data_dir: pathlib.Path) -> Dataset:
    """Returns the data set `name`, downloaded or drawn first where needed.

    Args:
      name: "horses_or_humans", "rendered", or "auto": the first of them if it is
        prepared or its server answers, else the second. Or another data set of TFDS
        with the features "image" and "label".
      data_dir: the folder of TensorFlow Datasets.

    Raises:
      UsageError: if there is no such data set, or it is not one of labelled images.
      DataError: if the images can neither be read nor be prepared.
    """
    return read_all(*prepared(name, data_dir))


def prepared(name: str, data_dir: pathlib.Path) -> tuple[tfds.core.DatasetBuilder, str]:
    """Returns the data set's builder, prepared, and why it was chosen; as `load`."""
    absl.logging.set_verbosity(absl.logging.ERROR)
    builder, reason = choose(name, data_dir)
    check_features(builder)
    if not builder.is_prepared():
        print(f"{builder.name}: {reason}", flush=True)
        builder = prepare(builder)
    return builder, reason


def read_all(builder: tfds.core.DatasetBuilder, reason: str) -> Dataset:
    """Returns the images of a prepared builder; held-out are "test" or "validation".

    Raises:
      DataError: if they are damaged.
    """
    held_out = "validation" if "test" not in builder.info.splits else "test"
    return Dataset(
        name=f"{builder.name}/{builder.version}",
        reason=reason,
        class_names=tuple(builder.info.features["label"].names),
        train=read(builder, "train"),
        test=read(builder, held_out),
    )


def choose(name: str, data_dir: pathlib.Path) -> tuple[tfds.core.DatasetBuilder, str]:
    """Returns the builder that `name` stands for, and the reason as a clause."""
    if name == "rendered":
        return rendered.Rendered(data_dir=data_dir), "as asked"
    if name not in ("auto", "horses_or_humans"):
        return find(name, data_dir), "as asked"
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


def find(name: str, data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    """Returns TFDS's builder of that name, which need not be prepared.

    Raises:
      UsageError: if there is none.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise UsageError(
            "--dataset must be auto, rendered, or a data set that TFDS knows or that "
            f"is prepared in {data_dir}, got {name}."
        ) from error
    if builder.is_prepared():
        return builder
    cls = without_tensorflow(type(builder))
    return cls(data_dir=data_dir, config=builder.builder_config)


def check_features(builder: tfds.core.DatasetBuilder) -> None:
    """Raises a `UsageError` unless the data set is one of images with a class each."""
    features = builder.info.features or {}
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for name, kind in kinds.items():
        if name not in features or not isinstance(features[name], kind):
            raise UsageError(
                "--dataset needs the features image (Image) and label (ClassLabel), "
                f"got {builder.name} with {', '.join(map(str, features))}."
            )
    if features["image"].np_dtype != np.uint8:
        raise UsageError(
            f"--dataset needs images in uint8, got {builder.name} "
            f"in {np.dtype(features['image'].np_dtype).name}."
        )


def zip_members(path: os.PathLike) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the name and the open file of each member of a zip archive.

    Members are read where they are; nothing is extracted, whatever its path.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                yield name, member


def without_tensorflow(cls: type) -> type:
    """Returns a TFDS builder class that opens its zip archives without TensorFlow."""

    def split_generators(self: Any, dl_manager: Any) -> Any:
        dl_manager.iter_archive = zip_members
        return cls._split_generators(self, dl_manager)

    with tfds.core.registered.skip_registration():
        # TFDS looks for the checksums beside a builder's module.
        overrides = {"url_infos": cls.url_infos, "_split_generators": split_generators}
        return type(cls.__name__, (cls,), overrides | {"__module__": cls.__module__})


HorsesOrHumans = without_tensorflow(horses_or_humans.HorsesOrHumans)


def server_answers(builder: tfds.core.DatasetBuilder) -> bool:
    """Tells whether the server of the builder's archives answers in a few seconds."""
    answers = []

    def ask() -> None:
        try:
            url = next(iter(builder.url_infos))
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=SERVER_PATIENCE):
                answers.append(True)
        except (OSError, StopIteration):  # the latter where TFDS has no address
            pass

    # A thread, because looking up the host's name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SERVER_PATIENCE)
    return bool(answers)


def archives(builder: tfds.core.DatasetBuilder) -> dict[pathlib.Path, str]:
    """Returns where TFDS's cache has, or would have, each archive, and its SHA-256."""
    cache = builder.data_dir_root / "downloads"
    found = {}
    for url, info in (builder.url_infos or {}).items():  # none for drawings
        name = resource.get_dl_fname(url, info.checksum)
        path = cache / name
        found[path if path.exists() else cache / builder.name / name] = info.checksum
    return found


def warn_of_unpublished(builder: tfds.core.DatasetBuilder) -> None:
    """Says which archives in the cache are not those that TFDS has on record.

    What TFDS downloads it verifies itself; what was put into its cache it trusts.
    """
    for path, checksum in archives(builder).items():
        if not path.exists():
            continue
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != checksum:
            print(
                f"warning: {path} is not the published archive (SHA-256 {actual[:12]}, "
                f"published {checksum[:12]}): results are not comparable.",
                flush=True,
            )


def prepare(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    """Returns the builder with its images downloaded or drawn into its folder.

    Of several processes one prepares, and the others wait for it.

    Raises:
      DataError: if the images cannot be had.
    """
    root = pathlib.Path(builder.data_dir_root)
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / f".{builder.name}.lock"):
        # Anew, because another process may have prepared it in the meantime.
        builder = type(builder)(data_dir=root, config=builder.builder_config)
        if not builder.is_prepared():
            download_and_prepare(builder)
    return builder


def download_and_prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Prepares a builder that is not prepared."""
    drawn = isinstance(builder, rendered.Rendered)
    at_hand = drawn or all(path.exists() for path in archives(builder))
    if not at_hand and not server_answers(builder):
        raise DataError(
            f"{builder.name} is not prepared in {builder.data_dir_root} and its server "
            f"did not answer within {SERVER_PATIENCE:g} s. Connect to the network, "
            "name the folder of prepared data with --data-dir, "
            "or use --dataset rendered."
        )
    warn_of_unpublished(builder)
    verb = "Drawing, for a minute or two," if drawn else "Downloading and preparing"
    print(f"{verb} into {builder.data_dir}", flush=True)
    if drawn or not sys.stderr.isatty():  # drawing has a bar of its own
        tfds.disable_progress_bar()
    try:
        # Its sizes are not ours.
        with contextlib.redirect_stdout(io.StringIO()), patient_downloads():
            builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise DataError(
            f"{builder.name} can be prepared with TensorFlow only. Do so once, with "
            f"`tfds build {builder.name} --data_dir {builder.data_dir_root}` where it "
            "is installed, then call this again."
        ) from error
    except Failure:
        raise
    except Exception as error:  # TFDS has no common class for what can go wrong
        raise DataError(
            f"{builder.name} could not be prepared ({describe(error)}). If an archive "
            f"in {builder.data_dir_root / 'downloads'} is damaged, delete it and try "
            "again."
        ) from error


@contextlib.contextmanager
def patient_downloads() -> Iterator[None]:
    """Lets a stalled download fail; TFDS itself waits for ever, or tries ten times."""
    send = requests.adapters.HTTPAdapter.send

    @functools.wraps(send)
    def impatient(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.max_retries = self.max_retries.new(total=DOWNLOAD_RETRIES)
        return send(self, *args, **{**kwargs, "timeout": DOWNLOAD_PATIENCE})

    with unittest.mock.patch.object(requests.adapters.HTTPAdapter, "send", impatient):
        yield


def describe(error: Exception) -> str:
    """Returns an exception as a clause: the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else repr(error)


def read(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    """Returns a prepared split, decoded on all cores, without an alpha channel.

    Raises:
      DataError: if a record is damaged, or an image or a label is not as declared.
    """
    feature = builder.info.features["image"]
    classes = builder.info.features["label"].num_classes
    try:
        count, example = examples(builder, split)
    except DataError:
        raise
    except Exception as error:  # whatever opening damaged files may raise
        raise damaged(builder, f"split {split}", error) from error
    images = np.empty((count, *image_shape(feature.shape)), np.uint8)
    labels = np.empty(count, np.int32)

    def take(i: int) -> None:
        try:
            record = example(i)
        except Exception as error:  # whatever reading damaged files may raise
            raise damaged(builder, f"image {i} of split {split}", error) from error
        size = record["image"].shape[:2]
        if any(d not in (None, n) for d, n in zip(feature.shape, size, strict=False)):
            raise DataError(
                f"images of {builder.name} must be {feature.shape}, got "
                f"{record['image'].shape} as image {i} of split {split} in "
                f"{builder.data_dir}. Prepare the data set anew from its own archive."
            )
        if not 0 <= record["label"] < classes:
            raise DataError(
                f"labels of {builder.name} must lie in [0, {classes}), got "
                f"{record['label']} at image {i} of split {split} in "
                f"{builder.data_dir}. Use a data set that is labelled throughout."
            )
        images[i] = resize(record["image"][..., :3], images.shape[1:])
        labels[i] = record["label"]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in pool.map(take, range(count)):
            pass
    return Split(images, labels)


def damaged(
    builder: tfds.core.DatasetBuilder, what: str, error: Exception
) -> DataError:
    return DataError(
        f"{what} of {builder.name} cannot be read ({describe(error)}). "
        f"Delete {builder.data_dir}, then prepare it anew."
    )


def image_shape(declared: tuple[int | None, ...]) -> tuple[int, int, int]:
    """Returns the `(H, W, C)` in which images of a declared shape are kept.

    Their own, if the network can work on it; enlarged if it is too small for that;
    and square if the declaration leaves it open.
    """
    height, width, channels = declared
    channels = min(channels or 3, 3)
    if height is None or width is None:
        return UNKNOWN_SIDE, UNKNOWN_SIDE, channels
    short = min(height, width)
    if short >= LEAST_SIDE:
        return height, width, channels
    return height * SMALL_SIDE // short, width * SMALL_SIDE // short, channels


def resize(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an image `(h, w, C)` in uint8 resampled (bilinear) to `(H, W, C)`."""
    if image.shape == shape:
        return image
    gray = shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if gray else image)
    size = (shape[1], shape[0])
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).reshape(shape)


def examples(
    builder: tfds.core.DatasetBuilder, split: str
) -> tuple[int, Callable[[int], dict[str, Any]]]:
    """Returns how many examples a prepared split has, and how to get one of them."""
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        source = builder.as_data_source(split)
        return len(source), source.__getitem__
    info = builder.info.splits[split]
    records = [record for path in info.filepaths for record in tfrecords(path)]
    if len(records) != info.num_examples:
        raise DataError(
            f"split {split} in {builder.data_dir} must have {info.num_examples} "
            f"records, got {len(records)}. Delete the folder, then prepare it anew."
        )
    decode = builder.info.features.deserialize_example_np
    return len(records), lambda i: decode(records[i])


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
