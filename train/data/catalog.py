"""Finds the data set that a name stands for, and loads its arrays."""

import concurrent.futures
import contextlib
import difflib
import io
import os
import pathlib
from collections.abc import Callable

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification.horses_or_humans import HorsesOrHumans

from train.data import prepare, read
from train.data.drawing.builder import Rendered
from train.data.sets import DataError, Dataset, Text
from train.faults import Failure, UsageError

IMAGES = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
TEXT = {"text": tfds.features.Text}


def load(
    name: str,
    data_dir: pathlib.Path,
    enlarge: tuple[int, int] | None = None,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> Dataset:
    """Returns the data set `name`, which is downloaded or drawn first if necessary.

    Args:
      name: "horses_or_humans", "rendered", or "auto": the first of these if it is
        prepared or its server answers, else the second. Or another TFDS data set with
        the features "image" and "label".
      data_dir: the folder of TensorFlow Datasets.
      enlarge: images whose shorter side has fewer pixels than the first number are
        enlarged until it has the second.
      meanwhile: called while the images are decoded, which leaves time for it.

    Raises:
      UsageError: if there is no such data set, or it has no labelled images.
      DataError: if the images can be neither read nor prepared.
    """
    builder, reason = prepared(name, data_dir)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read.read_all, builder, reason, enlarge)
        meanwhile()
        return reading.result()


def load_text(name: str, data_dir: pathlib.Path) -> Text:
    """Returns the TFDS text `name`, such as "tiny_shakespeare", as `load` does.

    Raises:
      UsageError: if there is no such data set, or it has no text.
      DataError: if the text can be neither read nor prepared.
    """
    absl.logging.set_verbosity(absl.logging.ERROR)
    builder = find(name, data_dir)
    check_features(builder, TEXT)
    return read.read_text(made_ready(builder, "as asked"))


def prepared(name: str, data_dir: pathlib.Path) -> tuple[tfds.core.DatasetBuilder, str]:
    """Returns the prepared builder of a data set, as `load` does, and the reason."""
    absl.logging.set_verbosity(absl.logging.ERROR)
    builder, reason = choose(name, data_dir)
    check_features(builder, IMAGES)
    return made_ready(builder, reason), reason


def made_ready(
    builder: tfds.core.DatasetBuilder, reason: str
) -> tfds.core.DatasetBuilder:
    """Returns the builder, after preparing it if it was not prepared."""
    if builder.is_prepared() and builder.info.splits:
        return builder
    if not builder.is_prepared():  # another process may have prepared it just now
        print(f"{builder.name}: {reason}", flush=True)
    return prepare.prepare(builder)


def choose(name: str, data_dir: pathlib.Path) -> tuple[tfds.core.DatasetBuilder, str]:
    """Returns the builder that `name` stands for, and the reason as a clause."""
    if name == "rendered":
        return Rendered(data_dir=data_dir), "as asked"
    if name != "auto":
        return find(name, data_dir), "as asked"
    official = HorsesOrHumans(data_dir=data_dir)
    if official.is_prepared():
        return official, f"found prepared in {official.data_dir_root}"
    silence = prepare.silence_of_server(official)
    if not silence:
        return official, "its server answers"
    return Rendered(data_dir=data_dir), (
        f"horses_or_humans is not prepared in {official.data_dir_root} and its server "
        f"{silence}; "
        "insist with --dataset horses_or_humans"
    )


def find(name: str, data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of that name, which may not be prepared.

    Raises:
      UsageError: if there is none.
      DataError: if it cannot be made, for example without TensorFlow.
      OSError: if the folder cannot be read.
    """
    if data_dir.is_dir():
        os.scandir(data_dir).close()  # TFDS would say that there is no such set
    try:
        # What it says about a missing package is reported below, in one line.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # whatever making a builder, or its metadata, may raise
        raise unusable(name, data_dir, error) from error


def unusable(name: str, data_dir: pathlib.Path, error: Exception) -> Failure:
    """Returns the error for a name of which TFDS makes no builder, with a remedy."""
    remedy = prepare.what_is_missing(name, data_dir, error)
    if remedy is None and not (name and (data_dir / name).is_dir()):
        return unknown(name, data_dir)
    remedy = remedy or (
        f"If {data_dir / name} is damaged, give a folder with a complete copy with "
        "--data-dir, or prepare the data set in a new folder."
    )
    why = prepare.describe(error)
    return DataError(f"the data set {name} cannot be used ({why}). {remedy}")


def unknown(name: str, data_dir: pathlib.Path) -> UsageError:
    """Returns the error for an unknown data set, with the nearest known name."""
    close = difflib.get_close_matches(name, names(data_dir), 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return UsageError(
        "--dataset must be auto, rendered, or a data set that TFDS knows or that is "
        f"prepared in {data_dir}, got {name or 'an empty name'}.{hint}"
    )


def names(data_dir: pathlib.Path) -> list[str]:
    """Returns the names that `--dataset` may have."""
    prepared = [path.name for path in data_dir.glob("*/") if path.is_dir()]
    known = tfds.list_builders(with_community_datasets=False)
    return ["auto", "rendered", *known, *prepared]


def check_features(
    builder: tfds.core.DatasetBuilder,
    kinds: dict[str, type[tfds.features.FeatureConnector]],
) -> None:
    """Raises a `UsageError` unless the data set has features of the given kinds.

    Images must be in uint8.
    """
    features = builder.info.features or {}
    wanted = " and ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
    given = ", ".join(f"{name} ({type(x).__name__})" for name, x in features.items())
    for name, kind in kinds.items():
        if name not in features or not isinstance(features[name], kind):
            raise UsageError(
                f"--dataset needs the features {wanted}, "
                f"got {builder.name} with {given or 'none'}."
            )
        if kind is tfds.features.Image and features[name].np_dtype != np.uint8:
            raise UsageError(
                f"--dataset needs uint8 images, got {builder.name} "
                f"in {np.dtype(features[name].np_dtype).name}."
            )
