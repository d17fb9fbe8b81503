"""Downloads or draws data sets into the folder of TensorFlow Datasets."""

import contextlib
import functools
import hashlib
import io
import os
import pathlib
import shutil
import sys
import threading
import time
import unittest.mock
import urllib.request
from collections.abc import Iterator
from typing import Any

import filelock
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from train import faults
from train.data import standin
from train.data.drawing.builder import Rendered
from train.data.sets import DataError
from train.faults import Failure, is_full

SERVER_PATIENCE = 3.0  # seconds that a data server has to answer
DOWNLOAD_PATIENCE = 30.0  # seconds without a byte after which a download has failed
DOWNLOAD_RETRIES = 2  # of a download that fails before its first byte


def prepare(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    """Returns the builder, after downloading or drawing its data into its folder.

    If several processes call this, one prepares the data and the others wait for it.

    Raises:
      DataError: if the data cannot be obtained.
    """
    root = pathlib.Path(builder.data_dir_root)
    if not isinstance(builder, Rendered):
        check_archives(builder)
    root.mkdir(parents=True, exist_ok=True)
    with preparing(root, builder.name):
        # A new builder, because another process may have prepared the data meanwhile.
        builder = type(builder)(data_dir=root, config=builder.builder_config)
        if not builder.is_prepared():
            if not isinstance(builder, Rendered):
                warn_of_unpublished(builder)
            with faults.tidied(lambda: remove_unfinished(builder)):
                build(builder)
    return builder


@contextlib.contextmanager
def preparing(root: pathlib.Path, name: str) -> Iterator[None]:
    """Keeps other processes, of any user, from preparing the same data set.

    A lock of another user that cannot be opened is ignored: TFDS moves a data set into
    place at once, when it is complete.
    """
    # Open to all, because a lock file that one user leaves must not keep others out.
    lock = filelock.FileLock(root / f".{name}.lock", mode=0o666, thread_local=False)
    try:
        lock.acquire()
    except PermissionError:
        if not os.access(root, os.W_OK):
            raise
        lock = filelock.FileLock(root / f".{name}.{os.getuid()}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove_unfinished(builder: tfds.core.DatasetBuilder) -> None:
    """Removes what an interrupted or killed preparation has left.

    For the data set that we draw, that is everything there is. Others may be preparing
    what TFDS downloads at this moment, so it is removed after an hour without a change.
    """
    before = time.time() - (0 if isinstance(builder, Rendered) else 3600)
    place = pathlib.Path(builder.data_dir)
    for path in place.parent.glob(f"incomplete.*_{place.name}"):
        times = [one.stat().st_mtime for one in (path, *path.iterdir())]
        if max(times) <= before:
            shutil.rmtree(path, ignore_errors=True)


def check_archives(builder: tfds.core.DatasetBuilder) -> None:
    """Raises a `DataError` if archives are missing and their server does not answer."""
    by_hand = pathlib.Path(builder.data_dir_root, "downloads", "manual")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not by_hand.is_dir():
        raise DataError(
            f"{builder.name} has to be downloaded by hand into {by_hand}, as its TFDS "
            "page says. Then try again."
        )
    at_hand = all(path.exists() for path in archives(builder))
    if not at_hand and (silence := silence_of_server(builder)):
        drawings = ", or use --dataset rendered"
        raise DataError(
            f"{builder.name} is not prepared in {builder.data_dir_root} and its "
            f"server {silence}. Connect to the internet, "
            "or give the folder of prepared data with --data-dir"
            f"{drawings if builder.name == 'horses_or_humans' else ''}."
        )


def archives(builder: tfds.core.DatasetBuilder) -> dict[pathlib.Path, str]:
    """Returns each archive's place in TFDS's cache, present or not, and its SHA-256."""
    cache = builder.data_dir_root / "downloads"
    found = {}
    for url, info in (builder.url_infos or {}).items():  # none on record
        name = resource.get_dl_fname(url, info.checksum)
        path = cache / name
        found[path if path.exists() else cache / builder.name / name] = info.checksum
    return found


def silence_of_server(builder: tfds.core.DatasetBuilder) -> str:
    """Returns how the server of the builder's archives failed to answer, as a clause.

    The server has a few seconds. The clause is empty if it answers.
    """
    urls = [*(builder.url_infos or {})]
    if not urls:
        return "is not on record"
    said = []

    def ask() -> None:
        try:
            request = urllib.request.Request(urls[0], method="HEAD")
            # A new opener, which reads the current proxy settings.
            opener = urllib.request.build_opener()
            with opener.open(request, timeout=SERVER_PATIENCE):
                said.append("")
        except TimeoutError:
            pass
        except OSError as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, TimeoutError):
                said.append(f"cannot be reached ({reason})")

    # In a thread, because looking up the host's name has no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SERVER_PATIENCE)
    return said[0] if said else f"did not answer within {SERVER_PATIENCE:g} s"


def warn_of_unpublished(builder: tfds.core.DatasetBuilder) -> None:
    """Warns of archives in the cache that differ from those that TFDS has on record.

    TFDS verifies what it downloads, but trusts what was put into its cache.
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


def build(builder: tfds.core.DatasetBuilder) -> None:
    """Prepares a builder; anything that goes wrong becomes a `DataError`."""
    drawn = isinstance(builder, Rendered)
    verb = "Drawing, for a minute or two," if drawn else "Downloading and preparing"
    print(f"{verb} into {builder.data_dir}", flush=True)
    if drawn or not sys.stderr.isatty():  # drawing has a bar of its own
        tfds.disable_progress_bar()
    try:
        # TFDS prints sizes that do not hold for what we do.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            patient_downloads(),
            standin.for_tensorflow(builder),
        ):
            builder.download_and_prepare(file_format="array_record")
    except Failure:
        raise
    except Exception as error:  # TFDS has no common class for its errors
        downloads = builder.data_dir_root / "downloads"
        damage = f"If an archive in {downloads} is damaged, delete it and try again."
        other = "Try again." if drawn else damage
        remedy = what_is_missing(builder.name, builder.data_dir_root, error) or (
            f"Make room in {builder.data_dir_root}." if is_full(error) else other
        )
        raise DataError(
            f"{builder.name} could not be prepared ({describe(error)}). {remedy}"
        ) from error


def what_is_missing(
    name: str, data_dir: pathlib.Path, error: BaseException | None
) -> str | None:
    """Returns what to do if a package is missing, which the error may not say."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    if "'tensorflow'" not in str(error):  # TFDS may raise it again, without its name
        return "Install what is missing, then try again."
    return (
        f"It needs TensorFlow: prepare it once with `tfds build {name} --data_dir "
        f"{data_dir}` where TensorFlow is installed, then try again."
    )


@contextlib.contextmanager
def patient_downloads() -> Iterator[None]:
    """Makes a stalled download fail; TFDS alone waits forever, or tries ten times."""
    send = requests.adapters.HTTPAdapter.send

    @functools.wraps(send)
    def impatient(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.max_retries = self.max_retries.new(total=DOWNLOAD_RETRIES)
        return send(self, *args, **{**kwargs, "timeout": DOWNLOAD_PATIENCE})

    with unittest.mock.patch.object(requests.adapters.HTTPAdapter, "send", impatient):
        yield


def describe(error: Exception) -> str:
    """Returns an exception as a clause: the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else repr(error)
