"""Arms differ in nothing but the arm, and no run is done twice."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small_horses

from train import compare
from train.comparison import plan
from train.record import pictures, statistics
from train.tasks import horses as task


def options(**kwargs):
    return compare.Comparison(**kwargs)


def test_every_seed_has_every_arm():
    runs = plan.plan(options(seeds=2, first_seed=3))
    assert list(runs) == [
        f"{arm}-seed{seed}" for seed in (3, 4) for arm in ("none", "gradient", "update")
    ]
    arms = {name: (run.gc, run.placement, run.seed) for name, run in runs.items()}
    assert arms["none-seed3"] == (False, "gradient", 3)
    assert arms["gradient-seed3"] == (True, "gradient", 3)
    assert arms["update-seed4"] == (True, "update", 4)


def test_arms_differ_in_nothing_else():
    runs = plan.plan(options(seeds=1, optimizer="sgd", learning_rate=0.1, epochs=3))
    fields = [
        {k: v for k, v in vars(run).items() if k not in ("gc", "placement", "workdir")}
        for run in runs.values()
    ]
    assert fields[0] == fields[1] == fields[2]
    assert (fields[0]["optimizer"], fields[0]["epochs"]) == ("sgd", 3)


def test_the_published_protocol_trains_on_with_and_without_gc(tmp_path):
    runs = plan.plan(options(protocol="published", seeds=1, out=tmp_path))
    assert list(runs) == ["first-seed0", "then-gc-seed0", "then-none-seed0"]
    first, then_gc, then_none = runs.values()
    assert first.init_from is None
    assert then_gc.init_from == then_none.init_from == first.workdir
    assert (first.gc, then_gc.gc, then_none.gc) == (False, True, False)
    assert then_gc.seed == then_none.seed != first.seed


def test_rates_come_between_seeds_and_arms_and_into_the_names():
    runs = plan.plan(
        options(seeds=2, arms=("none", "gradient"), learning_rates=(0.01, 3e-5))
    )
    assert list(runs) == [
        f"{arm}-lr{rate}-seed{seed}"
        for seed in (0, 1)
        for rate in ("0.01", "3e-05")
        for arm in ("none", "gradient")
    ]
    assert {run.learning_rate for run in runs.values()} == {0.01, 3e-5}
    one = plan.plan(options(seeds=1, arms=("none",), learning_rates=(0.01,)))
    assert {name: run.learning_rate for name, run in one.items()} == {
        "none-seed0": 0.01
    }


def test_subsets_and_the_placebo_are_arms():
    runs = plan.plan(
        options(
            seeds=1, arms=("placebo", "only-first", "not-first"),
            subsets=("first=Conv_0/*,Conv_1/*", "other=x"),
        )
    )  # fmt: skip
    arms = [(r.gc, r.placebo, r.gc_only, r.gc_not) for r in runs.values()]
    first = ("Conv_0/*", "Conv_1/*")
    assert arms == [
        (False, True, (), ()), (True, False, first, ()), (True, False, (), first),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--arms", "nothing"], "got nothing."),
        (["--arms", "only-first"], "(none), got only-first."),
        (["--arms", "none", "none"], "each arm once, got none none."),
        (["--subsets", "first", "--arms", "only-first"], "NAME=PATTERN[,PATTERN...]"),
        (["--learning-rates", "0.1", "0.1"], "each rate once, got 0.1 0.1."),
        (["--learning-rates", "0"], "--learning-rates must be positive numbers"),
        (["--seeds=0"], "--seeds must be at least 1, got 0."),
        (["--jobs=0"], "--jobs must be at least 1, got 0."),
        (
            ["--task=fashion", "--protocol=published"],
            "--protocol published needs --task horses, got fashion.",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_comparison_that_makes_no_sense_is_one_line(args, message, capsys, tmp_path):
    assert compare.main([*args, f"--out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("task", "optimizer"),
    [
        ("horses", "rmsprop"),
        ("fashion", "sgd"),
        ("shakespeare", "adamw"),
        ("image", "adam"),
    ],
)
def test_each_task_has_its_own_defaults(task, optimizer):
    cls = compare.options_of([f"--task={task}"])
    made = cls(task=task, seeds=1, arms=("none",))
    (run,) = plan.plan(made).values()
    assert type(run) is plan.TASKS[task].Config
    assert run.optimizer == optimizer


@pytest.fixture(scope="module")
def compared(small_data_dir, tmp_path_factory):
    """A comparison of one epoch on the small images, called twice."""
    out = tmp_path_factory.mktemp("compare")
    args = [
        "--dataset=pictures", f"--data-dir={small_data_dir}", "--epochs=1",
        "--batch-size=4", "--seeds=1", "--optimizer=sgd", "--learning-rate=0.01",
        f"--out={out}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "CNN", small_horses.small())
        with patch.context() as undrawn:
            undrawn.setattr(pictures, "plot_all", lambda runs, folder: None)
            assert compare.main([*args, "--arms", "none"]) == 0
        before = (out / "none-seed0" / "summary.json").stat().st_mtime_ns
        assert compare.main(args) == 0
    assert (out / "none-seed0" / "summary.json").stat().st_mtime_ns == before
    return {run.arm: run for run in statistics.read_runs(out)}, out


def test_a_finished_run_is_kept_and_the_others_are_added(compared):
    runs, out = compared
    assert list(runs) == ["none", "gradient", "update"]
    assert len(runs["update"].epochs) == 1
    for name in ("curves", "energy", "drift", "times"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_with_sgd_the_fan_in_means_drift_without_gc_and_stay_with_it(compared):
    runs, _ = compared
    drift = {arm: run.diagnostics[0]["mean_drift"] for arm, run in runs.items()}
    assert set(drift["none"]) == {"Conv_0/kernel", "Dense_0/kernel"}
    assert all(value > 1e-7 for value in drift["none"].values())
    for arm in ("gradient", "update"):
        assert all(value < 1e-8 for value in drift[arm].values())


def test_arms_see_the_same_first_batch(compared):
    runs, _ = compared
    energies = [run.diagnostics[0]["removed_energy"] for run in runs.values()]
    assert all(0 < value < 1 for value in energies[0].values())
    losses = [run.epochs[0]["train_loss"] for run in runs.values()]
    np.testing.assert_allclose(losses, losses[0], rtol=0.05)


def wait_for_lines(process, folders):
    """Waits until each of some runs has finished an epoch."""
    deadline = time.monotonic() + 240
    while not all((folder / "metrics.jsonl").exists() for folder in folders):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stopped(small_data_dir, tmp_path_factory):
    """Three rates, of which one diverges, two at a time; stopped after an epoch of two.

    Returns the folder, the options and what was printed.
    """
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two cores are needed")
    out = tmp_path_factory.mktemp("sweep")
    args = [
        "--dataset=pictures", f"--data-dir={small_data_dir}", "--batch-size=4",
        "--optimizer=sgd", "--seeds=1", "--arms", "gradient", "--epochs=30",
        "--learning-rates", "1e25", "0.01", "0.02", f"--out={out}",
    ]  # fmt: skip
    command = [sys.executable, small_horses.__file__, "compare", *args, "--jobs=2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        wait_for_lines(process, [out / f"gradient-lr{rate}-seed0" for rate in RATES])
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    return out, args, output, error


RATES = ("0.01", "0.02")  # those that do not diverge


def test_a_stopped_comparison_saves_the_runs_in_hand(stopped):
    out, _, _, error = stopped
    assert error == "error: stopped by SIGTERM. Repeat the command to continue.\n"
    for rate in RATES:
        folder = out / f"gradient-lr{rate}-seed0"
        lines = (folder / "metrics.jsonl").read_text().count("\n")
        saved = max(int(path.name) for path in (folder / "checkpoints").iterdir())
        assert 3 * lines <= saved <= 3 * lines + 3


def test_rates_run_two_at_a_time_and_one_that_diverges_is_over(
    stopped, monkeypatch, capsys
):
    out, args, output, _ = stopped
    assert output.startswith("0 of 3 runs are finished.")
    assert "gradient-lr1e+25-seed0 diverged: the loss is" in output
    monkeypatch.setattr(task, "CNN", small_horses.small())
    monkeypatch.setattr(pictures, "plot_all", lambda runs, folder: None)
    assert compare.main(args) == 0
    done = capsys.readouterr().out
    assert re.match("[12] of 3 runs are finished", done)  # the one that diverged is
    found = statistics.read_runs(out)
    assert [(one.arm, one.rate) for one in found] == [
        ("gradient", 0.01), ("gradient", 0.02)
    ]  # fmt: skip
    assert [one.config["devices"] for one in found] == [["cpu"]] * 2
    assert (out / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert compare.main(args) == 0
    again = capsys.readouterr().out
    assert again.startswith("3 of 3 runs are finished.")
    _, title, table = done.partition("Training loss at each learning rate")
    assert title
    assert again.endswith(title + table)
