"""Runs that are stopped, killed or damaged, and go on to the same end."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from conftest import outcome
from flax.training.train_state import TrainState

from optax_gc import centralize_gradients
from train import horses
from train.engine import checkpoint
from train.engine.state import State, init_state

# TensorStore tells the event loop of a file that could not be read when it is closed.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
EPOCHS = 3
SMALL_HORSES = pathlib.Path(__file__).parent / "small_horses.py"


def options(data_dir, workdir):
    return [
        "--gc", "--dataset=pictures", f"--data-dir={data_dir}", "--batch-size=2",
        f"--epochs={EPOCHS}", f"--workdir={workdir}",
    ]  # fmt: skip


def start(*args, **kwargs):
    """Starts the command in a process that can be stopped or killed.

    It has one device, as the process of the tests.
    """
    command = [sys.executable, "-W", "error", SMALL_HORSES, *options(*args)]
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(command, env=env, text=True, **kwargs)


@pytest.fixture(scope="module")
def resume(run_small):
    """Goes on with a run in this process, to its end; returns what is printed."""

    def resume(*args):
        done = run_small(*options(*args), "--resume")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return resume


@pytest.fixture(scope="module")
def whole(run_small, small_data_dir, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = run_small(*options(small_data_dir, workdir))
    assert (done.returncode, done.stderr) == (0, "")
    return workdir


def stop_when(process, condition, signum):
    """Sends a signal as soon as the condition holds; returns the exit status."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signum)
    return process.wait(timeout=120)


def count_of_lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def test_a_stopped_run_saves_says_how_to_go_on_and_ends_the_same(
    small_data_dir, whole, resume, tmp_path
):
    workdir = tmp_path / "run"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(small_data_dir, workdir, **pipes) as process:
        metrics = workdir / "metrics.jsonl"
        status = stop_when(process, lambda: count_of_lines(metrics) >= 1, signal.SIGINT)
        error = process.stderr.read()
    assert status == 130
    assert error.startswith("error: stopped by SIGINT. Continue")
    assert error.rstrip().endswith("--resume")
    assert error.count("\n") == 1
    assert not (workdir / "summary.json").exists()
    printed = resume(small_data_dir, workdir)
    assert re.search(r"Continuing (after epoch|in epoch \d+, after step) \d", printed)
    assert outcome(workdir) == outcome(whole)


@pytest.mark.parametrize("moment", ["first epoch", "saving", "second epoch"])
def test_a_killed_run_ends_the_same(small_data_dir, whole, resume, tmp_path, moment):
    workdir = tmp_path / "run"
    saved = workdir / "checkpoints"
    happened = {
        "first epoch": lambda: (workdir / "config.json").exists(),
        "saving": lambda: saved.is_dir() and any(saved.glob("*tmp*")),
        "second epoch": lambda: count_of_lines(workdir / "metrics.jsonl") >= 1,
    }[moment]
    with start(small_data_dir, workdir, stdout=subprocess.DEVNULL) as process:
        assert stop_when(process, happened, signal.SIGKILL) == -signal.SIGKILL
    resume(small_data_dir, workdir)
    assert outcome(workdir) == outcome(whole)


@pytest.fixture
def unfinished(small_data_dir, whole, tmp_path):
    """A copy of the run as it was after two of its epochs."""
    workdir = tmp_path / "run"
    subprocess.run(["cp", "-r", str(whole), str(workdir)], check=True)
    (workdir / "summary.json").unlink()
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert steps == [12, 18]  # the last two epochs of six steps
    return workdir


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped": lambda data: data[:9999] + bytes([data[9999] ^ 1]) + data[10000:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    small_data_dir, whole, unfinished, resume, damage
):
    newest = unfinished / "checkpoints" / "18"
    largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(DAMAGES[damage](largest.read_bytes()))
    printed = resume(small_data_dir, unfinished)
    assert f"warning: the checkpoint {newest} is damaged (its files differ" in printed
    assert "Continuing after epoch 2" in printed
    assert outcome(unfinished) == outcome(whole)


def test_half_a_line_and_lines_after_the_checkpoint_are_dropped(
    small_data_dir, whole, unfinished, resume
):
    subprocess.run(["rm", "-r", str(unfinished / "checkpoints" / "18")], check=True)
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "epoch_')
    resume(small_data_dir, unfinished)
    assert outcome(unfinished) == outcome(whole)


def test_a_finished_run_is_left_as_it_is(small_data_dir, whole, resume):
    before = outcome(whole)
    printed = resume(small_data_dir, whole)
    assert f"Continuing after epoch {EPOCHS}" in printed
    assert "Compiled" not in printed
    assert outcome(whole) == before


def test_another_configuration_is_refused_with_the_difference(
    small_data_dir, whole, capsys
):
    args = [*options(small_data_dir, whole), "--resume", "--learning-rate=0.01"]
    assert horses.main(args) == 2
    assert capsys.readouterr().err == (
        f"error: the run in {whole} has other options: learning_rate was 0.0001, now "
        "0.01. Repeat them, or use another --workdir.\n"
    )


def test_other_images_are_refused(whole, tmp_path, capsys):
    from conftest import make_dataset, pictures

    shape = (94, 94, 3)
    splits = {"train": pictures(10, shape), "test": pictures(5, shape)}
    make_dataset(tmp_path, splits, shape, 2)
    assert horses.main([*options(tmp_path, whole), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "train_images was 12, now 10" in error
    assert error.count("\n") == 1


def test_only_the_last_few_checkpoints_are_kept(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    state = State(np.int32(0), {"w": np.arange(3.0)}, (), {"stats": np.ones(2)})
    for step in range(1, 5):
        checkpoints.save(step, state, checkpoint.Progress(epoch=step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]
    restored, progress = checkpoints.restore(state, pytest.fail)
    assert progress == checkpoint.Progress(epoch=4)
    np.testing.assert_array_equal(restored.params["w"], state.params["w"])
    assert restored.params["w"].dtype == np.float64
    np.testing.assert_array_equal(restored.model_state["stats"], [1, 1])


def test_a_checkpoint_from_before_there_was_model_state_is_restored(
    tmp_path, monkeypatch
):
    """Such a one is of Flax's `TrainState`, and has no seal."""
    tx = optax.chain(
        centralize_gradients(), optax.trace(0.9), optax.scale_by_learning_rate(0.1)
    )
    params = {"kernel": np.arange(6, dtype=np.float32).reshape(3, 2)}
    before = TrainState.create(apply_fn=None, params=params, tx=tx)
    before = before.replace(step=np.int32(5))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "layout", lambda state: state)
        checkpoints.save(5, before, checkpoint.Progress(epoch=2))
    (tmp_path / "5" / checkpoint.SEAL).unlink()
    like = init_state({"params": params}, tx)
    restored, progress = checkpoints.restore(like, pytest.fail)
    assert progress == checkpoint.Progress(epoch=2)
    assert (restored.step, restored.model_state) == (5, {})
    assert jax.tree.structure(restored) == jax.tree.structure(like)
    np.testing.assert_array_equal(restored.params["kernel"], params["kernel"])


def test_the_right_answers_of_an_old_checkpoint_are_the_sum_of_its_score():
    record = {"epoch": 2, "steps": 3, "images": 6, "loss": 4.0, "correct": 5.0}
    expected = checkpoint.Progress(epoch=2, steps=3, images=6, loss=4.0, score=5.0)
    assert checkpoint.progress_of(record) == expected


def test_a_workdir_of_nothing_starts_anew(small_data_dir, whole, resume, tmp_path):
    resume(small_data_dir, tmp_path / "new")
    assert outcome(tmp_path / "new") == outcome(whole)


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert horses.main([f"--workdir={tmp_path}", "--resume"]) == 2
    assert "must be a new or empty folder or a run's folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write anywhere")
def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert horses.main([f"--workdir={tmp_path / 'run'}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert pathlib.Path(tmp_path).exists()
