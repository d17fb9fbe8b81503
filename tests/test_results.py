"""Tables and intervals over runs, and the committed page."""

import pathlib

import numpy as np
from scipy import stats

from train import results

ROOT = pathlib.Path(__file__).parents[1] / "results"


def run(arm, seed, loss):
    summary = dict.fromkeys(results.METRICS, loss) | {"total_seconds": 12.0}
    epochs = [{"epoch_seconds": 6.0}, {"epoch_seconds": 7.0}]
    return results.Run(arm, seed, {}, summary, epochs, [])


RUNS = [run("none", seed, 0.5 + seed / 10) for seed in range(3)]
RUNS += [run("gradient", seed, 0.4 + seed / 10 + seed / 100) for seed in (2, 1, 0)]


def test_differences_are_taken_seed_by_seed():
    arms = results.by_arm(RUNS)
    values = results.paired_differences(arms["gradient"], arms["none"], "test_loss")
    np.testing.assert_allclose(values, [-0.1, -0.09, -0.08])


def test_a_seed_that_only_one_arm_has_is_left_out():
    arms = results.by_arm([*RUNS, run("gradient", 7, 0.0)])
    values = results.paired_differences(arms["gradient"], arms["none"], "test_loss")
    assert len(values) == 3


def test_the_interval_is_students():
    values = np.array([0.1, -0.2, 0.3, 0.05])
    half = stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2
    expected = values.mean() - half, values.mean() + half
    np.testing.assert_allclose(results.confidence_interval(values), expected)


def test_one_difference_has_no_interval():
    assert np.isnan(results.confidence_interval(np.array([0.1]))).all()


def test_tables_hold_every_arm_and_every_value():
    header, rows = results.arms_table(RUNS)
    assert [row[:3] for row in rows] == [
        ["none", "3", "0.6000 ± 0.1000"],
        ["gradient", "3", "0.5100 ± 0.1100"],
    ]
    assert rows[0][-2:] == ["6.0", "6.5"]
    assert len(header) == len(rows[0])
    header, rows = results.differences_table(RUNS, "none")
    assert len(rows) == 4
    assert rows[0][-1] == "-0.1000, -0.0900, -0.0800"
    header, rows = results.raw_table(RUNS)
    assert len(rows) == 6


def test_the_committed_page_is_the_one_its_records_make():
    assert (ROOT / "README.md").read_text() == results.page(ROOT)


def test_the_readme_shows_the_table_that_the_records_make():
    header, rows = results.arms_table(results.read_runs(ROOT / "rmsprop"))
    table = results.markdown_table(header[:-2], [row[:-2] for row in rows])
    assert table in (ROOT.parent / "README.md").read_text()
