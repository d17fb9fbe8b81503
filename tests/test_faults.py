"""Faults that are really caused: one clear line, the right status, nothing lost."""

import contextlib
import json
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import assert_one_line, make_dataset, pictures, stage_horses

from train import data, horses
from train.data import prepare

SHAPE = (94, 94, 3)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(data_dir, *args):
        status = horses.main([*map(str, args), f"--data-dir={data_dir}"])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return call


@pytest.fixture
def staged(tmp_path, images):
    """A folder of TensorFlow Datasets with the small archives, not yet prepared."""
    stage_horses(tmp_path / "data", images)
    return tmp_path / "data"


def largest(folder):
    return max(folder.iterdir(), key=lambda path: path.stat().st_size)


def test_a_truncated_archive(staged):
    path = largest(staged / "downloads")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        data.DataError, match=r"could not be prepared .*BadZipFile.*delete"
    ):
        data.load("horses_or_humans", staged)
    assert path.exists()


def test_a_foreign_file_in_the_archive(staged):
    import zipfile

    with zipfile.ZipFile(largest(staged / "downloads"), "a") as archive:
        archive.writestr("horses/horse98.png", b"not a picture")
        archive.writestr("../outside.png", b"not a picture either")
    with pytest.raises(
        data.DataError, match=r"example \d+ of split train.*cannot be read"
    ):
        data.load("horses_or_humans", staged)
    assert not list(staged.rglob("*outside*"))
    assert not list(staged.parent.glob("*outside*"))


def test_an_archive_that_is_not_the_published_one_is_told(staged, capsys):
    data.load("horses_or_humans", staged)
    warnings = capsys.readouterr().out.count("is not the published archive (SHA-256 ")
    assert warnings == 2


@pytest.fixture
def prepared(tmp_path):
    splits = {"train": pictures(6, SHAPE), "test": pictures(4, SHAPE)}
    make_dataset(tmp_path / "data", splits, SHAPE, 2)
    return tmp_path / "data"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_record_file(prepared, kept, call):
    path = next(prepared.glob("pictures/1.0.0/*train.array_record*"))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    done = call(prepared, "--dataset=pictures", "--workdir", prepared / "run")
    assert_one_line(done, 1, "of pictures cannot be read", "then prepare it again")


def test_images_of_another_size(tmp_path):
    odd = [*pictures(3, SHAPE), *pictures(1, (100, 94, 3))]
    splits = {"train": odd, "test": pictures(2, SHAPE)}
    make_dataset(tmp_path, splits, (None, None, 3), 2)
    info = tmp_path / "pictures" / "1.0.0" / "features.json"
    feature = json.loads(info.read_text())
    image = feature["featuresDict"]["features"]["image"]["image"]
    image["shape"] = {"dimensions": ["94", "94", "3"]}
    info.write_text(json.dumps(feature))
    with pytest.raises(
        data.DataError, match=r"must be \(94, 94, 3\), got \(100, 94, 3\) as image"
    ):
        data.load("pictures", tmp_path)


def test_labels_out_of_range(tmp_path):
    splits = {"train": pictures(4, SHAPE), "test": [(pictures(1, SHAPE)[0][0], 2)]}
    make_dataset(tmp_path, splits, SHAPE, 3)
    (label,) = tmp_path.glob("pictures/1.0.0/features.json")
    label.write_text(
        label.read_text().replace('"numClasses": "3"', '"numClasses": "2"')
    )
    with pytest.raises(data.DataError, match=r"must lie in \[0, 2\), got 2 at image 0"):
        data.load("pictures", tmp_path)


@contextlib.contextmanager
def small_files():
    """Lets this process write no file of more than 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_the_first_checkpoint(
    small_data_dir, run_small, tmp_path, monkeypatch
):
    from train.engine.checkpoint import Checkpoints

    def save(*args, save=Checkpoints.save):
        with small_files():
            return save(*args)

    args = (
        f"--data-dir={small_data_dir}", "--epochs=2", "--batch-size=4",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        done = run_small(*args)
    assert_one_line(
        done, 1, "cannot write a checkpoint into", "File too large", "--resume"
    )
    done = run_small(*args, "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 2


def test_a_workdir_that_is_not_a_folder(small_data_dir, tmp_path, call):
    (tmp_path / "file").touch()
    done = call(
        small_data_dir, "--dataset=pictures", "--workdir", tmp_path / "file" / "run"
    )
    assert_one_line(done, 1, "Not a directory", str(tmp_path / "file" / "run"))


def test_a_data_folder_that_cannot_be_created(tmp_path, call):
    (tmp_path / "file").touch()
    done = call(tmp_path / "file" / "data", "--dataset=rendered")
    assert_one_line(done, 1, str(tmp_path / "file"))


def test_a_server_that_accepts_and_stalls(silent_server, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", silent_server)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(prepare, "SERVER_PATIENCE", 0.2)
    monkeypatch.setattr(prepare, "DOWNLOAD_PATIENCE", 0.2)
    with pytest.raises(data.DataError, match=r"server did not answer within 0\.2 s"):
        data.load("horses_or_humans", tmp_path)
    monkeypatch.setattr(prepare, "silence_of_server", lambda _: "")  # it stalls later
    with pytest.raises(data.DataError, match="could not be prepared"):
        data.load("horses_or_humans", tmp_path)


def test_two_runs_that_prepare_the_same_data_at_once(staged):
    code = (
        "import sys, pathlib; from train import data;"
        "print(len(data.load('horses_or_humans', pathlib.Path(sys.argv[1])).train))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(staged)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        output, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert output.split()[-1] == "10"
    assert tfds.builder("horses_or_humans", data_dir=staged).is_prepared()


def test_a_loss_that_is_no_longer_finite(small_data_dir, run_small, tmp_path):
    workdir = tmp_path / "run"
    done = run_small(
        f"--data-dir={small_data_dir}", "--optimizer=sgd", "--batch-size=2",
        "--learning-rate=1e25", "--workdir", workdir,
    )  # fmt: skip
    assert_one_line(
        done, 1, "epoch 1, step", "No epoch was finished", "lower --learning-rate"
    )
    assert not (workdir / "checkpoints").exists()


def test_after_divergence_the_last_good_checkpoint_is_there(
    small_data_dir, run_small, tmp_path, monkeypatch
):
    from train.engine import epoch

    args = (
        f"--data-dir={small_data_dir}", "--batch-size=4", "--epochs=3",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    seen, healthy = [], epoch.train_epoch

    def poisoned(program, state, works, key, progress):
        seen.append(progress.epoch)
        if progress.epoch == 2:
            params = jax.tree.map(lambda x: x * np.nan, state.params)
            state = state.replace(params=params)
        return healthy(program, state, works, key, progress)

    with monkeypatch.context() as patch:
        patch.setattr(epoch, "train_epoch", poisoned)
        done = run_small(*args)
    part = "the loss is nan at epoch 2, step 1. The checkpoint of epoch 1"
    assert_one_line(done, 1, part)
    assert run_small(*args, "--resume").returncode == 0
    assert seen == [1, 2]


def test_a_disk_that_is_full_at_the_end(
    small_data_dir, run_small, tmp_path, monkeypatch
):
    from train.engine import checkpoint

    class Full:
        def __enter__(self):
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nand more")

        def __exit__(self, *error):
            pass

    args = (
        f"--data-dir={small_data_dir}", "--batch-size=4", "--epochs=1",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_checkpointer", Full)
        done = run_small(*args)
    place = tmp_path / "run" / "params"
    assert_one_line(done, 1, f"cannot write {place}: ", "No space left", "--resume")
    assert run_small(*args, "--resume").returncode == 0
    assert checkpoint.load_params(place)


def test_debug_shows_the_traceback(tmp_path, call):
    done = call(tmp_path, "--debug", "--epochs=0")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --epochs")


def test_a_batch_larger_than_the_set(small_data_dir, call):
    done = call(small_data_dir, "--dataset=pictures", "--batch-size=13")
    assert_one_line(
        done, 2, "--batch-size must be at most the 12 training images, got 13."
    )


def test_data_without_labels_is_refused(tmp_path, capsys):
    args = [
        "--dataset=ag_news_subset",
        f"--data-dir={tmp_path}",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert horses.main(args) == 2
    assert "needs the features image (Image) and label (ClassLabel)" in (
        capsys.readouterr().err
    )


def test_a_full_small_disk(small_data_dir, run_small, tmp_path):
    """A workdir on a file system of 100 kB, where mounting one is allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("mounting a file system is not allowed here")
    try:
        done = run_small(
            f"--data-dir={small_data_dir}", "--epochs=1", "--batch-size=4",
            f"--workdir={folder / 'run'}",
        )  # fmt: skip
        # What is the first not to fit differs from run to run, and with it the words:
        # TensorStore's own are RESOURCE_EXHAUSTED, at times without the system's.
        assert_one_line(done, 1, "cannot write", "--resume")
        assert "No space left on device" in done.stderr or (
            "RESOURCE_EXHAUSTED" in done.stderr and "make room" in done.stderr
        )
    finally:
        subprocess.run(["umount", str(folder)], check=True)
