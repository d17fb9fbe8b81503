"""Several real processes over loopback train as one does."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import lines

from train import data
from train.engine import checkpoint
from train.record import pictures
from train.tasks import fashion, resnet

EPOCHS = 5
SMALL_HORSES = pathlib.Path(__file__).parent / "small_horses.py"
FASHION = """
import sys, numpy as np
from train import data, fashion
from train.record import pictures
from train.tasks import fashion as task, resnet

rng, labels = np.random.default_rng(0), np.arange(20, dtype=np.int32) % 3
split = data.Split(rng.integers(0, 256, (20, 8, 8, 1), np.uint8), labels)
dataset = data.Dataset("small", "as asked", ("a", "b", "c"), split, split)
data.load, task.VALIDATION = (lambda name, data_dir, meanwhile: dataset), 5
resnet.FEATURES = (8,)
pictures.plot_run = lambda history, path, title: None
sys.exit(fashion.main(["--epochs=1", "--batch-size=5", *sys.argv[1:]]))
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(data_dir, workdir, count, *args):
    """Starts `count` processes of one device each, as on as many hosts."""
    return start_command([SMALL_HORSES, *options(data_dir), *args], workdir, count)


def options(data_dir):
    return [
        "--gc", "--dataset=pictures", f"--data-dir={data_dir}", "--batch-size=5",
        f"--epochs={EPOCHS}",
    ]  # fmt: skip


def start_command(command, workdir, count):
    """Starts `count` processes of Python with the same arguments."""
    address = f"127.0.0.1:{free_port()}"
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    processes = []
    for i in range(count):
        # Only the first one's folder is used: hosts need not share a disk.
        own = workdir if i == 0 else workdir.parent / f"unused{i}"
        more = [f"--workdir={own}"]
        if count > 1:
            more += [f"--coordinator={address}", f"--num-processes={count}"]
            more += [f"--process-id={i}"]
        processes.append(
            subprocess.Popen(
                [sys.executable, *command, *more],
                env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    return processes


def finish(processes):
    """Returns what each process printed, once all of them ended well."""
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error
    return [output for output, _ in outputs]


def metrics(workdir):
    epochs = lines(workdir, "metrics.jsonl")
    return np.array([[v for k, v in e.items() if k != "epoch_seconds"] for e in epochs])


def assert_same_run(ours, theirs):
    assert metrics(ours)[:, 0].tolist() == list(range(1, EPOCHS + 1))
    np.testing.assert_allclose(metrics(ours), metrics(theirs), rtol=1e-4)
    params = [checkpoint.load_params(path / "params") for path in (ours, theirs)]
    for a, b in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def alone(run_small, small_data_dir):
    """Trains in this process, which has one device, too."""

    def alone(workdir, *args):
        done = run_small(*options(small_data_dir), f"--workdir={workdir}", *args)
        assert (done.returncode, done.stderr) == (0, "")

    return alone


@pytest.fixture(scope="module")
def one_process(alone, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    alone(workdir)
    return workdir


def test_processes_train_as_one_does_and_only_the_first_writes(
    small_data_dir, one_process, tmp_path
):
    started = start(small_data_dir, tmp_path / "run", 3, "--tensorboard")
    first, *others = finish(started)
    assert_same_run(tmp_path / "run", one_process)
    assert f"{EPOCHS}/{EPOCHS}" in first
    said = [line for output in others for line in output.splitlines()]
    assert all(line.startswith("[Gloo]") for line in said)  # the transport's own
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len([*(tmp_path / "run" / "tensorboard").iterdir()]) == 1


def test_batch_statistics_are_those_of_all_processes(tmp_path, monkeypatch):
    folders = [tmp_path / name / "run" for name in ("one", "two")]
    for room, name in (
        (data, "load"), (fashion, "VALIDATION"), (resnet, "FEATURES"),
        (pictures, "plot_run"),
    ):  # fmt: skip
        monkeypatch.setattr(room, name, getattr(room, name))  # is restored
    monkeypatch.setattr("sys.argv", ["-c", f"--workdir={folders[0]}"])
    with (
        jax.numpy_dtype_promotion("standard"),  # Optax's schedules promote
        pytest.raises(SystemExit, match=r"^0$"),
    ):
        exec(FASHION, {})
    finish(start_command(["-c", FASHION], folders[1], 2))
    trees = [
        [checkpoint.load_params(folder / name) for name in ("params", "model_state")]
        for folder in folders
    ]
    for one, two in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def stop_the_second(data_dir, workdir, signum):
    """Sends the second of two processes a signal once an epoch is done.

    Returns what each wrote to standard error, and its exit status.
    """
    processes = start(data_dir, workdir, 2)
    deadline = time.monotonic() + 240
    path = workdir / "metrics.jsonl"
    while not (path.exists() and path.read_text().count("\n")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].send_signal(signum)
    errors = [process.communicate(timeout=240)[1] for process in processes]
    return errors, [process.returncode for process in processes]


def test_after_one_is_killed_the_others_end_and_all_resume(
    small_data_dir, one_process, tmp_path
):
    workdir = tmp_path / "run"
    errors, statuses = stop_the_second(small_data_dir, workdir, signal.SIGKILL)
    assert statuses[0] == 1, errors[0]
    assert errors[0].startswith("error: another process was lost")
    assert errors[0].count("\n") == 1, errors[0]
    finish(start(small_data_dir, workdir, 2, "--resume"))
    assert_same_run(workdir, one_process)


def test_a_signal_to_one_stops_all_at_the_same_step(
    small_data_dir, one_process, alone, tmp_path
):
    workdir = tmp_path / "run"
    errors, statuses = stop_the_second(small_data_dir, workdir, signal.SIGTERM)
    assert statuses == [143, 143], errors
    alone(workdir, "--resume")  # fewer processes, too
    assert_same_run(workdir, one_process)


def test_a_coordinator_that_is_not_there_is_one_line(
    small_data_dir, tmp_path, monkeypatch, capsys
):
    from train import horses
    from train.engine import processes

    def not_there(*args, **kwargs):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nAnd more.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", not_there)
    args = ["--coordinator=127.0.0.1:1", "--num-processes=2", "--patience=1"]
    for number, why in ((0, "DEADLINE"), (1, "[Errno 111]")):
        more = [f"--process-id={number}", f"--workdir={tmp_path}"]
        assert horses.main([*args, *more]) == 1
        error = capsys.readouterr().err
        found = f"error: the other processes were not found within 1 s ({why}"
        assert error.startswith(found)
        assert error.count("\n") == 1
