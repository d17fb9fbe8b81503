"""Settings and fixtures that all tests share."""

import contextlib
import gc
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import jax
import numpy as np
import PIL.Image
import pytest

from train.study.folds import stage

# The same examples each time, unless an hour is asked for.
hypothesis.settings.register_profile("suite", derandomize=True, max_examples=60)
hypothesis.settings.register_profile("hour", max_examples=10_000, print_blob=True)
hypothesis.settings.load_profile("suite")
collect_ignore = ["keras_means.py"]  # a script of its own, for Keras's JAX backend
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 50, 50)  # tracing makes many objects and few cycles
# What is computed here is little: to compile it as for a long run takes longer.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="session")
def own_environment(tmp_path_factory) -> Iterator[None]:
    """Keeps compiled programs among the tests, which share them."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


def double_precision():
    """A context in which arrays are in double precision, with JAX 0.7 as well."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Returns a zip archive of files by their paths."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for path, content in files.items():
            writer.writestr(path, content)
    return archive.getvalue()


def stage_horses(data_dir: pathlib.Path, images: dict[str, list[np.ndarray]]) -> None:
    """Lays out the archives of horses_or_humans.

    Args:
      data_dir: the folder of TensorFlow Datasets.
      images: for "train" and "test", images that are horses and humans in turn.
    """

    def archive(split: str) -> bytes:
        kinds = ("horses/horse", "humans/human")
        files = enumerate(images[split])
        return zipped({f"{kinds[i % 2]}{i:02}.png": png(image) for i, image in files})

    files = {
        "horse-or-human.zip": archive("train"),
        "validation-horse-or-human.zip": archive("test"),
    }
    stage(data_dir, "horses_or_humans", files)


@pytest.fixture(scope="session")
def images() -> dict[str, list[np.ndarray]]:
    """A few RGBA images a split: dark horses, bright humans, all half transparent."""
    rng = np.random.default_rng(0)

    def image(i: int) -> np.ndarray:
        rgb = rng.integers(0, 100, (300, 300, 3)) + 150 * (i % 2)
        return np.dstack([rgb, np.full((300, 300), 127)]).astype(np.uint8)

    return {
        "train": [image(i) for i in range(10)],
        "test": [image(i) for i in range(4)],
    }


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, images) -> pathlib.Path:
    """A folder of TensorFlow Datasets with the small archives in its cache."""
    path = tmp_path_factory.mktemp("tensorflow_datasets")
    path.rmdir()
    stage_horses(path, images)
    return path


@pytest.fixture(scope="module")
def run_small() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs `train.horses` here, with the small network, on "pictures" if not told."""
    import small_horses

    from train import horses

    def run(*args) -> subprocess.CompletedProcess[str]:
        args = ["--dataset=pictures", *map(str, args)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = horses.main(args)
        return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        small_horses.install(patch.setattr)
        yield run


def assert_one_line(
    done: subprocess.CompletedProcess[str], status: int, *parts: str
) -> None:
    """Asserts that a command failed with a status and an error in one line."""
    assert done.returncode == status, (done.stdout, done.stderr)
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def prose(path: pathlib.Path) -> str:
    """Returns the text of a page with single spaces and no emphasis."""
    return " ".join(path.read_text().replace("*", "").split())


def lines(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """Returns what is in the lines of a file of a run's record."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def outcome(folder: pathlib.Path) -> tuple[list[dict[str, Any]], bytes, list[bytes]]:
    """Returns all numbers of a run but its times: record, shares and arrays."""
    from train.engine import checkpoint

    names = ("metrics.jsonl", "diagnostics.jsonl", "evaluations.jsonl")
    record = [
        {key: value for key, value in line.items() if "seconds" not in key}
        for name in names
        if (folder / name).exists()
        for line in lines(folder, name)
    ]
    with np.load(folder / "removed.npz") as file:
        shares = file["shares"].tobytes()
    trees = [folder / name for name in ("params", "model_state")]
    arrays = [checkpoint.load_params(path) for path in trees if path.exists()]
    return record, shares, [leaf.tobytes() for leaf in jax.tree.leaves(arrays)]


@contextlib.contextmanager
def stopped_after(epoch: int, step: int) -> Iterator[None]:
    """Sends this process SIGTERM once a run inside has done a step of an epoch."""
    from train.record.reporter import Reporter

    def tell(self, *told: Any, tell: Callable[..., None] = Reporter.step) -> None:
        tell(self, *told)
        if told[:2] == (epoch, step):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "step", tell)
        yield


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Sends every request to a port of this machine where nobody listens."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def make_dataset(
    data_dir: pathlib.Path,
    splits: dict[str, list[tuple[np.ndarray, int]]],
    shape: tuple[int | None, ...],
    classes: int,
    name: str = "pictures",
) -> None:
    """Prepares a data set of images and labels as TFDS does.

    Args:
      data_dir: the folder of TensorFlow Datasets.
      splits: the images and labels of each split.
      shape: the shape of the images that the metadata declare.
      classes: the number of classes that they declare.
      name: the data set's name.
    """
    import tensorflow_datasets as tfds

    class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=classes),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(splits[split]):
                yield i, {"image": io.BytesIO(png(image)), "label": label}

    Pictures.name = name
    tfds.disable_progress_bar()
    builder = Pictures(data_dir=data_dir)
    builder.download_and_prepare(file_format="array_record")


def pictures(
    count: int, shape: tuple[int, ...], classes: int = 2
) -> list[tuple[np.ndarray, int]]:
    """Random images, brighter from class to class, and their labels."""
    rng = np.random.default_rng(count)

    def picture(i: int) -> tuple[np.ndarray, int]:
        label = i % classes
        low = 200 * label // classes
        return rng.integers(low, low + 56, shape, np.uint8), label

    return [picture(i) for i in range(count)]


@pytest.fixture(scope="session")
def small_data_dir(tmp_path_factory) -> pathlib.Path:
    """A folder with the data set "pictures": 12 and 5 images of 94x94 pixels."""
    path = tmp_path_factory.mktemp("small")
    shape = (94, 94, 3)
    splits = {"train": pictures(12, shape), "test": pictures(5, shape)}
    make_dataset(path, splits, shape, 2)
    return path
