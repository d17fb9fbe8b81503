"""The command trains, leaves its record, and says in one line why it does not."""

import json
import subprocess
import sys

import pytest
from conftest import lines, outcome

from train import horses
from train.engine import checkpoint

METRICS = {
    "epoch", "epoch_seconds", "train_loss", "train_accuracy", "test_loss",
    "test_accuracy",
}  # fmt: skip


def run(*args, again):
    """Runs the command, and once more where `again` says, in a process of its own.

    On the last line it tells if TensorFlow was imported.
    """
    code = (
        "import contextlib, io, sys; from train import horses; status = horses.main()\n"
        f"with contextlib.redirect_stdout(io.StringIO()): horses.main({again!r})\n"
        "print('tensorflow' in sys.modules); sys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=300,
    )


def short(data_dir, workdir, gc):
    """The options of two short epochs."""
    return [
        f"--{gc}", "--dataset=horses_or_humans", f"--data-dir={data_dir}", "--epochs=2",
        "--batch-size=4", f"--workdir={workdir}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(data_dir, run_small, tmp_path_factory):
    """Two short runs and how they ended: with GC, and a small network without it.

    The one with GC is there again, in the folder "again".
    """
    folder = tmp_path_factory.mktemp("runs")
    small, whole, again = (
        short(data_dir, folder / name, gc)
        for name, gc in (("no-gc", "no-gc"), ("gc", "gc"), ("again", "gc"))
    )
    return {
        "no-gc": (folder / "no-gc", run_small(*small)),
        "gc": (folder / "gc", run(*whole, again=again)),
    }


@pytest.mark.parametrize("gc", ["no-gc", "gc"])
def test_a_run_leaves_its_record(runs, gc):
    workdir, done = runs[gc]
    assert done.returncode == 0, done.stderr
    epochs = lines(workdir, "metrics.jsonl")
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(set(epoch) == METRICS for epoch in epochs)
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["gc"] is (gc == "gc")
    assert summary["placement"] == ("gradient" if gc == "gc" else "none")
    assert {name: summary[name] for name in METRICS} == epochs[-1]
    assert summary["total_seconds"] == sum(epoch["epoch_seconds"] for epoch in epochs)
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["batch_size"] == 4
    assert config["config"]["learning_rate"] == 1e-4
    assert config["dataset"] == {
        "name": "horses_or_humans/3.0.0",
        "reason": "as asked",
        "train_images": 10,
        "test_images": 4,
    }
    assert set(config["versions"]) >= {"jax", "flax", "optax", "optax-gc"}
    kernel = checkpoint.load_params(workdir / "params")["Dense_0"]["kernel"]
    assert kernel.shape == ((3136, 512) if gc == "gc" else (38 * 38 * 16, 1))


def test_a_run_draws_its_curves(runs):
    workdir, _ = runs["gc"]
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_tells_its_story_in_plain_lines(runs):
    output = runs["gc"][1].stdout
    parts = [
        "Data ", "horses_or_humans/3.0.0", "10 training and 4 test images",
        "(300, 300, 3) uint8",
        "1,704,097", "Conv_0/kernel", "Compiled in", "epoch", "1/2", "2/2",
        "Accuracy: ", "Loss: ", "Training time: ", "curves.png",
    ]  # fmt: skip
    places = [output.find(part) for part in parts]
    assert -1 not in places, (parts[places.index(-1)], output)
    assert places == sorted(places)
    assert "\x1b" not in output
    assert "\r" not in output


def test_a_run_never_imports_tensorflow(runs):
    assert runs["gc"][1].stdout.split()[-1] == "False"


def test_nothing_is_said_on_standard_error(runs):
    assert runs["gc"][1].stderr == ""


def test_a_seed_gives_the_same_run_to_the_bit(runs):
    workdir, _ = runs["gc"]
    assert outcome(workdir.with_name("again")) == outcome(workdir)


def times_of(workdir):
    """When each file of a run was changed; some versions of filelock touch the lock."""
    files = set(workdir.rglob("*")) - {workdir / ".lock"}
    return {path: path.stat().st_mtime_ns for path in files}


def test_an_existing_workdir_is_not_overwritten(runs, data_dir, capsys):
    workdir, _ = runs["gc"]
    before = times_of(workdir)
    assert horses.main([f"--workdir={workdir}", f"--data-dir={data_dir}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --workdir {workdir} contains a run. Add --resume ")
    assert error.count("\n") == 1
    assert times_of(workdir) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epochs=0"], "--epochs must be at least 1, got 0."),
        (["--batch-size=-3"], "--batch-size must be at least 1, got -3."),
        (
            ["--learning-rate=nan"],
            "--learning-rate must be a positive number, got nan.",
        ),
        (
            ["--learning-rate=-1"],
            "--learning-rate must be a positive number, got -1.0.",
        ),
        (["--seed=-1"], "--seed must lie in [0, 2**32), got -1."),
        (
            ["--init-from=nowhere"],
            "--init-from must be the folder of a finished run, got nowhere, "
            "which contains no params.",
        ),
        (["--placement=update"], "--placement update needs --gc, got --no-gc."),
        (
            ["--resume"],
            "--resume needs --workdir, the folder of the run to continue.",
        ),
        (
            ["--coordinator=host:1"],
            "--coordinator, --num-processes and --process-id must be given together, "
            "got host:1, None, None.",
        ),
        (
            ["--coordinator=host:1", "--num-processes=2", "--process-id=2"],
            "--process-id must lie in [0, --num-processes), got 2 of 2.",
        ),
        (
            ["--coordinator=host", "--num-processes=2", "--process-id=0"],
            "--coordinator must be HOST:PORT, with a port from 1 to 65535, got host.",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_value_out_of_range_is_one_line_and_status_2(args, message, capsys):
    assert horses.main(args) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_help_shows_every_option_without_importing_jax():
    code = (
        "import sys; from train import horses\n"
        "try: horses.main(['--help'])\n"
        "except SystemExit: print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[-1] == "False"
    for option in (
        "--gc, --no-gc", "--dataset", "--data-dir", "--epochs", "--batch-size",
        "--learning-rate", "--seed", "--augment", "--evaluate", "--workdir",
    ):  # fmt: skip
        assert option in done.stdout


@pytest.mark.usefixtures("no_network")
def test_images_that_cannot_be_had_are_one_line_and_status_1(tmp_path, capsys):
    args = ["--dataset=horses_or_humans", f"--data-dir={tmp_path}"]
    assert horses.main([*args, f"--workdir={tmp_path / 'new'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: horses_or_humans is not prepared in")
    assert error.count("\n") == 1
