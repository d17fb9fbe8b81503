"""Tables and intervals are those of the runs, and the first study states them."""

import itertools
import pathlib

import numpy as np
import pytest
import scipy
from conftest import prose

from train.record import pictures, statistics

ROOT = pathlib.Path(__file__).parents[1] / "results/first"
BASELINES = dict.fromkeys(("rmsprop", "sgd", "sgd-0.01", "rmsprop-3e-4"), "none")
BASELINES |= {"published": "then-none"}


def run(arm, seed, loss):
    metrics = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    summary = dict.fromkeys(metrics, loss) | {"total_seconds": 12.0}
    epochs = [{"epoch_seconds": 6.0}, {"epoch_seconds": 7.0}]
    return statistics.Run(arm, 1e-4, seed, {}, summary, epochs, [])


RUNS = [run("none", seed, 0.5 + seed / 10) for seed in range(3)]
RUNS += [run("gradient", seed, 0.4 + seed / 10 + seed / 100) for seed in (2, 1, 0)]


def test_differences_are_taken_seed_by_seed():
    arms = statistics.by_arm(RUNS)
    loss = statistics.at_end("test_loss")
    values = statistics.paired_differences(arms["gradient"], arms["none"], loss)
    np.testing.assert_allclose(values, [-0.1, -0.09, -0.08])


def test_a_seed_that_only_one_arm_has_is_left_out():
    arms = statistics.by_arm([*RUNS, run("gradient", 7, 0.0)])
    loss = statistics.at_end("test_loss")
    values = statistics.paired_differences(arms["gradient"], arms["none"], loss)
    assert len(values) == 3


def test_the_interval_is_students():
    values = np.array([0.1, -0.2, 0.3, 0.05])
    half = scipy.stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2
    expected = values.mean() - half, values.mean() + half
    np.testing.assert_allclose(statistics.confidence_interval(values), expected)


def test_one_difference_has_no_interval():
    assert np.isnan(statistics.confidence_interval(np.array([0.1]))).all()


def test_tables_hold_every_arm_and_every_value():
    header, rows = statistics.arms_table(RUNS)
    assert [row[:3] for row in rows] == [
        ["none", "3", "0.6000 ± 0.1000"],
        ["gradient", "3", "0.5100 ± 0.1100"],
    ]
    assert rows[0][-2:] == ["6.0", "6.5"]
    assert len(header) == len(rows[0])
    header, rows = statistics.differences_table(RUNS, "none")
    assert len(rows) == 4
    assert rows[0][-1] == "-0.1000, -0.0900, -0.0800"
    header, rows = statistics.raw_table(RUNS)
    assert len(rows) == 6


def at_rates(arm, losses):
    """Runs of seeds 0, 1, ... at each rate."""
    return [
        statistics.Run(
            arm, rate, seed, {}, {"train_loss": 9 - loss, "validation_loss": loss}, [],
            [],
        )
        for rate, of_seeds in losses.items()
        for seed, loss in enumerate(of_seeds)
    ]  # fmt: skip


SWEEP = at_rates("none", {0.1: [1.0, 1.2], 0.3: [0.5, 0.9], 1.0: [0.1]})
SWEEP += at_rates("gradient", {0.1: [0.8, 0.8], 0.3: [0.9, 0.7], 1.0: [0.9, 0.9]})


def test_a_rate_is_chosen_on_validation_by_the_mean_over_all_seeds():
    assert statistics.chosen_by(SWEEP) == "validation_loss"
    assert statistics.chosen_by(RUNS) == "train_loss"
    best = statistics.at_best_rates(SWEEP, "validation_loss")
    assert [(r.arm, r.rate, r.seed) for r in best] == [
        ("none", 0.3, 0), ("none", 0.3, 1), ("gradient", 0.1, 0), ("gradient", 0.1, 1),
    ]  # fmt: skip


def test_rates_stand_beside_each_other_with_their_seeds():
    header, rows = statistics.rates_table(SWEEP, "validation_loss")
    assert header == ["learning rate", "none", "gradient"]
    assert [row[0] for row in rows] == ["0.1", "0.3", "1"]
    assert rows[0][1:] == ["1.1000 ± 0.1414 (n = 2)", "0.8000 ± 0.0000 (n = 2)"]
    assert rows[2][1] == "0.1000 (n = 1)"


@pytest.mark.parametrize(
    ("name", "arm", "seed"),
    [
        ("none-seed3", "none", 3),
        ("then-gc-seed10", "then-gc", 10),
        ("only-first-lr1e-05-seed2", "only-first", 2),
    ],
)
def test_a_runs_folder_tells_its_arm_and_seed(name, arm, seed, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text('{"config": {"learning_rate": 0.5}}')
    for file in ("summary.json", "metrics.jsonl", "diagnostics.jsonl"):
        (folder / file).write_text("{}\n")
    (run,) = statistics.read_runs(tmp_path)
    assert (run.arm, run.rate, run.seed) == (arm, 0.5, seed)


def test_the_page_begins_with_the_plan_and_the_finding():
    parts = [(ROOT / name).read_text() for name in ("PLAN.md", "FINDING.md")]
    assert (ROOT / "README.md").read_text().startswith("\n".join(parts))


@pytest.mark.parametrize("folder", BASELINES)
def test_the_page_shows_the_tables_that_the_records_make(folder):
    runs = statistics.gathered_runs(ROOT, folder)
    text = (ROOT / "README.md").read_text()
    for table in (
        statistics.arms_table(runs),
        statistics.differences_table(runs, BASELINES[folder]),
        statistics.raw_table(runs),
    ):
        assert statistics.markdown_table(*table) in text


def test_the_page_shows_every_rate_of_the_search():
    text = (ROOT / "README.md").read_text()
    for found in statistics.gathered_runs(ROOT, "sgd-search"):
        figures = (
            metric.number(found.summary[name])
            for name, metric in statistics.measured([found]).items()
        )
        assert f"| {found.rate:g} | {' | '.join(figures)} |" in text


def stated(values, scale, digits, unit=""):
    """A mean difference with its interval, as FINDING.md writes it."""
    numbers = (values.mean(), *statistics.confidence_interval(values))
    mean, low, high = (f"{scale * number:+.{digits}f}" for number in numbers)
    return f"{mean}{unit} [{low}, {high}]"


def test_finding_and_page_state_the_differences_that_the_records_hold():
    text, whole = prose(ROOT / "FINDING.md"), prose(ROOT / "README.md")
    for folder in ("rmsprop", "sgd", "sgd-0.01", "rmsprop-3e-4"):
        arms = statistics.by_arm(statistics.gathered_runs(ROOT, folder))
        for arm in arms.keys() - {"none"}:
            loss, accuracy = (
                statistics.paired_differences(
                    arms[arm], arms["none"], statistics.at_end(metric)
                )
                for metric in ("test_loss", "test_accuracy")
            )
            assert stated(loss, 1, 3) in text
            assert stated(accuracy, 100, 1, " points") in text
    assert text in whole


def test_the_finding_states_what_the_diagnostics_hold():
    text = prose(ROOT / "FINDING.md")
    first, others, kept, drifted = [], [], [], []
    for folder in BASELINES:
        arms = statistics.by_arm(statistics.gathered_runs(ROOT, folder))
        for arm, runs in arms.items():
            for layer, shares in pictures.layer_series(runs, "removed_energy").items():
                (first if layer.startswith("Conv_0") else others).extend(shares)
            if folder.startswith("sgd"):
                ends = [run.diagnostics[-1]["mean_drift"].values() for run in runs]
                (drifted if arm == "none" else kept).extend(itertools.chain(*ends))
    assert f"{100 * min(first):.0f} to {100 * max(first):.0f} %" in text
    assert f"{100 * min(others):.0f} to {100 * max(others):.0f} %" in text
    assert max(kept) <= 1.5e-8
    assert f"drifted by {1e4 * min(drifted):.1f}e-4 to {max(drifted):.2f}" in text


def test_the_docs_state_where_the_intervals_leave_out_zero():
    text = prose(ROOT.parents[1] / "docs" / "evidence.md")
    assert (
        "found harm on held-out images with RMSprop at one rate, help with SGD at one, "
        "and neither at a second rate of each"
    ) in text
    signs = {}
    for folder in ("rmsprop", "rmsprop-3e-4", "sgd", "sgd-0.01"):
        arms = statistics.by_arm(statistics.gathered_runs(ROOT, folder))
        loss, accuracy = (
            statistics.confidence_interval(
                statistics.paired_differences(
                    arms["gradient"], arms["none"], statistics.at_end(metric)
                )
            )
            for metric in ("test_loss", "test_accuracy")
        )
        signs[folder] = (np.sign(loss).tolist(), np.sign(accuracy).tolist())
    assert signs == {
        "rmsprop": ([1, 1], [-1, -1]),
        "rmsprop-3e-4": ([-1, 1], [-1, 1]),
        "sgd": ([-1, -1], [1, 1]),
        "sgd-0.01": ([-1, 1], [-1, 1]),
    }
