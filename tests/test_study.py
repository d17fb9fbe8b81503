"""The study's statistics, by hand and by others, and the committed page."""

import dataclasses
import json
import pathlib
import shlex

import numpy as np
import pytest
import scipy
import tyro
from conftest import png, prose, zipped

from train import compare, data
from train.comparison import plan
from train.record import archive, statistics
from train.study import (
    calm,
    choose,
    confirm,
    folds,
    mechanism,
    page,
    race,
    seconds,
    sweep,
)
from train.study.tasks import TASKS, StudyTask

PARTS = ("sweep", "confirm", "half", "mechanism", "seconds")
ROOT = pathlib.Path(__file__).parents[1] / "results"
TASK = StudyTask("toy", "Toy, a network, SGD", "Toy: SGD", ("gradient",), 0.1, 2.0)
LOSSES = {
    ("none", 0.1): {100: 1.0, 101: 1.2},
    ("none", 0.2): {100: 0.5, 101: 0.7},
    ("none", 0.4): {100: 0.6, 101: 0.8},
    ("gradient", 0.1): {100: 0.9, 101: 1.0},
    ("gradient", 0.2): {100: 0.6, 101: 0.6},
    ("gradient", 0.4): {100: 0.4, 101: 0.5},
}


def add_run(root, part, arm, rate, seed, epochs=(), **summary):
    """Adds a run of the toy task to a part of a study; without summary it diverged."""
    end = {"summary.json": summary} if summary else {"diverged.txt": "nan"}
    record = {
        "run": f"toy/{arm}-lr{rate:g}-seed{seed}",
        "config.json": {"config": {"learning_rate": rate, "seed": seed}},
        "metrics.jsonl": list(epochs),
        **end,
    }
    with (root / f"{part}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def test_a_diverged_or_worse_run_counts_as_the_start(tmp_path):
    add_run(tmp_path, "sweep", "none", 0.1, 100, validation_loss=0.5)
    add_run(tmp_path, "sweep", "none", 0.1, 101, validation_loss=9.0)
    add_run(tmp_path, "sweep", "none", 0.2, 100)
    assert sweep.read_sweep(tmp_path, TASK) == {
        ("none", 0.1): {100: 0.5, 101: 2.0}, ("none", 0.2): {100: 2.0},
    }  # fmt: skip


def test_a_sweep_is_whole_with_every_arm_at_every_rate_with_every_seed():
    assert sweep.is_whole(LOSSES, TASK)
    assert not sweep.is_whole({}, TASK)
    one = {key: {100: by_seed[100]} for key, by_seed in LOSSES.items()}
    assert not sweep.is_whole(one, TASK)
    fewer = {key: value for key, value in LOSSES.items() if key != ("none", 0.2)}
    assert not sweep.is_whole(fewer, TASK)
    assert not sweep.is_whole({**LOSSES, ("none", 0.2): {100: 0.5}}, TASK)


def test_the_best_rate_is_that_of_the_lowest_mean_and_must_be_bracketed():
    assert sweep.best_rate(LOSSES, "none") == 0.2
    assert sweep.is_bracketed(LOSSES, "none")
    assert sweep.best_rate(LOSSES, "gradient") == 0.4
    assert not sweep.is_bracketed(LOSSES, "gradient")


def test_sensitivity_and_range_are_by_hand():
    assert sweep.sensitivity(LOSSES, "none") == pytest.approx(0.8 - 0.6)
    assert sweep.width(LOSSES, "none", 0.1) == pytest.approx(2)
    assert sweep.width(LOSSES, "none", 0.01) == 1
    assert sweep.sensitivities(LOSSES, "gradient") == pytest.approx(
        [(1.9 / 3 - 0.4) - (2.1 / 3 - 0.5), (2.1 / 3 - 0.5) - (2.7 / 3 - 0.7)]
    )


def test_the_deviation_of_pairs_is_pooled_within_rates():
    deviation, freedom = sweep.paired_deviation(LOSSES, "gradient")
    pairs = [(-0.1, -0.2), (0.1, -0.1), (-0.2, -0.3)]
    squares = sum(
        (np.array(p) - np.mean(p)) @ (np.array(p) - np.mean(p)) for p in pairs
    )
    assert freedom == 3
    assert deviation == pytest.approx(np.sqrt(squares / 3))


def test_what_can_be_resolved_is_found_as_often_as_said():
    effect = sweep.resolvable(2.0, 8)
    draws = np.random.default_rng(0).normal(effect, 2.0, (20_000, 8))
    found = (scipy.stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.01)


def test_holm_is_that_of_the_paper_and_cautious_where_some_are_missing():
    assert confirm.holm([0.01, 0.04, 0.03, 0.005], 4) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert confirm.holm([0.01, 0.3], 5) == pytest.approx([0.05, 1.0])


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([-0.3, -0.31, -0.29], "helps"),
        ([0.3, 0.31, 0.29], "harms"),
        ([0.001, -0.002, 0.0], "no difference that matters"),
        ([0.051, 0.05, 0.052], "harms, no difference that matters"),
        ([0.5, -0.4, 0.3], "not settled"),
    ],
)
def test_an_answer_is_the_plans(values, answer):
    found = confirm.Difference(TASK, "gradient", "none", np.array(values))
    assert found.answer(found.p) == answer


def test_seconds_are_medians_of_epochs_that_were_timed_in_turn(tmp_path):
    turns = [("none", 0, 2.0), ("gradient", 0, 4.5), ("none", 1, 4.0)]
    for arm, seed, taken in turns:
        assert seconds.pace(tmp_path, TASK, "gradient") is None
        line = {"epoch": 1, "epoch_seconds": taken}
        add_run(tmp_path, "seconds", arm, 0.1, seed, [line], validation_loss=1)
    *_, row = "".join(seconds.seconds_text(tmp_path, TASK)).splitlines()
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "gradient", "4.5 (4.5 to 4.5)", "3.0 (2.0 to 4.0)", "1.500",
    ]  # fmt: skip


def test_a_choice_is_written_once_and_only_if_it_is_bracketed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(choose, "TASKS", (TASK,))
    monkeypatch.setattr("sys.argv", ["choose", str(tmp_path), "toy"])
    assert choose.main() == 1
    assert "every rate with every seed, got 0 runs" in capsys.readouterr().err
    for (arm, rate), by_seed in LOSSES.items():
        for seed, loss in by_seed.items():
            add_run(tmp_path, "sweep", arm, rate, seed, validation_loss=loss)
    assert choose.main() == 1
    assert "must lie within the sweep, got its edge 0.4" in capsys.readouterr().err
    for arm in ("none", "gradient"):
        for seed in (100, 101):
            add_run(tmp_path, "sweep", arm, 0.8, seed, validation_loss=1.0)
    assert choose.main() == 0
    path = tmp_path / "choice.json"
    assert json.loads(path.read_text())["toy"]["rates"] == {
        "none": 0.2, "gradient": 0.4,
    }  # fmt: skip
    path.write_text(path.read_text().replace('"none": 0.2', '"none": 0.1'))
    assert choose.main() == 0
    assert json.loads(path.read_text())["toy"]["rates"]["none"] == 0.1


@pytest.mark.parametrize(
    ("values", "answer", "verdict"),
    [
        ([0.01, -0.02, 0.0], "equal within the margin", "holds"),
        ([0.051, 0.05, 0.052], "different, equal within the margin", "holds"),
        ([0.3, 0.31, 0.29], "different", "fails"),
        ([0.5, -0.4, 0.3], "not settled", "-"),
    ],
)
def test_a_prediction_holds_fails_or_is_not_settled(values, answer, verdict):
    found = confirm.Difference(TASK, "placebo", "none", np.array(values))
    one = mechanism.Prediction("M0", "toy", "", "placebo", "none", True)
    assert mechanism.answer(found) == answer
    assert mechanism.verdict(one, found) == verdict
    none_made = dataclasses.replace(one, equal=None)
    assert mechanism.verdict(none_made, found) == "none was made"


def test_arms_of_a_prediction_are_paired_at_the_same_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(mechanism, "TASKS", (TASK,))
    one = mechanism.Prediction("M0", "toy", "", "placebo", "none", True)
    losses = {
        ("confirm", "none"): [1.0, 2.0, 4.0],
        ("mechanism", "placebo"): [1.5, 3.0],
    }
    assert mechanism.pair_of(tmp_path, one) is None
    for (part, arm), by_seed in losses.items():
        for seed, loss in enumerate(by_seed):
            add_run(tmp_path, part, arm, 0.1, seed, validation_loss=loss)
    assert mechanism.pair_of(tmp_path, one).values.tolist() == [0.5, 1.0]
    add_run(tmp_path, "mechanism", "placebo", 0.2, 2, validation_loss=1.0)
    with pytest.raises(ValueError, match="M0 of toy: the rates differ"):
        mechanism.pair_of(tmp_path, one)


def test_no_figure_of_a_fold_is_in_both_of_its_splits(tmp_path, images, monkeypatch):
    names = [f"{kind}{i:02}-0.png" for i in range(1, 6)
             for kind in ("horses/horse", "humans/human")]  # fmt: skip
    pictures = dict(zip(names, images["train"], strict=True))
    archive = tmp_path / "horse-or-human.zip"
    files = {name: png(picture) for name, picture in pictures.items()}
    archive.write_bytes(zipped(files | {"horses/": b"", "notes.txt": b""}))
    monkeypatch.setattr("sys.argv", ["folds", str(archive), str(tmp_path / "folds")])
    assert folds.main() == 0
    for fold, figure in ((0, "05"), (3, "03")):
        found = data.load("horses_or_humans", tmp_path / "folds" / str(fold))
        assert (len(found.train), len(found.test)) == (8, 2)
        for image, label in zip(found.test.images, found.test.labels, strict=True):
            name = ("horses/horse", "humans/human")[label] + f"{figure}-0.png"
            np.testing.assert_array_equal(image, pictures[name][..., :3])


def test_folds_of_no_archive_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["folds", str(tmp_path / "no.zip"), str(tmp_path)])
    assert folds.main() == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_every_record_is_that_of_a_command():
    planned = {}
    for line in (ROOT / "COMMANDS.md").read_text().splitlines():
        if line.startswith("python -m train.compare "):
            args = shlex.split(line)[3:]
            options = tyro.cli(compare.options_of(args), args=args)
            for made in plan.plan(options).values():
                planned[str(made.workdir)] = vars(made)
    records = {
        f"results/{part}/{name}": record["config.json"]["config"]
        for part in PARTS
        for name, record in archive.read_archive(ROOT / part).items()
    }
    assert len(records) > 100
    for run, config in records.items():
        for name, value in config.items():
            if name not in ("resume", "debug"):
                made = json.loads(json.dumps(planned[run][name], default=str))
                assert made == value, (run, name)


def test_the_committed_page_is_the_one_its_records_make():
    assert (ROOT / "README.md").read_text() == page.page(ROOT)


def test_the_committed_choice_is_that_of_the_sweep():
    chosen = json.loads((ROOT / "choice.json").read_text())
    for task in TASKS:
        if task.name in chosen:
            losses = sweep.read_sweep(ROOT, task)
            assert chosen[task.name] == choose.choice(losses, task)


def differences_of(task, arm):
    """From the name of a metric to the confirmed differences in it."""
    runs = confirm.confirmed(ROOT, task)
    return lambda metric: confirm.difference(task, runs, arm, statistics.at_end(metric))


def planned_races():
    choices = json.loads((ROOT / "choice.json").read_text())
    return race.races(ROOT, page.rates_of(choices))


def test_the_finding_and_the_docs_state_what_the_records_hold():
    finding, docs = (
        prose(path) for path in (ROOT / "FINDING.md", ROOT.parent / "docs/evidence.md")
    )
    made, raced = confirm.primary(ROOT), planned_races()
    losses, steps = (
        confirm.holm([one.p for one in found], page.FAMILY) for found in (made, raced)
    )
    for one, p, run, run_p in zip(made, losses, raced, steps, strict=True):
        assert (run.task, run.arm) == (one.task, one.arm)
        speed = f"{run.stated}, {run.answer(run_p)}" if run.is_run else "-, neither"
        assert f"{confirm.stated(one)}, {one.answer(p)} | {speed}" in docs
        for text in (confirm.stated(one), one.answer(p)):
            assert text in finding
        assert run.stated in finding or not run.is_run
        found = differences_of(one.task, one.arm)
        assert f"{confirm.stated(found('test_accuracy'), 100, 2)} points" in finding
        if one.task.name != "horses-rmsprop":  # of which both ends are given
            assert confirm.stated(found("train_loss")) in finding


def test_the_finding_states_what_else_the_confirming_runs_hold():
    finding = prose(ROOT / "FINDING.md")
    fashion, shakespeare, sgd, rmsprop = TASKS
    validation = differences_of(fashion, "gradient")("validation_loss")
    assert confirm.stated(validation) in finding
    for arm in shakespeare.arms:
        loss = differences_of(shakespeare, arm)("test_loss").values
        for half in (loss[:8], loss[8:]):
            assert f"{half.mean():+.4f}" in finding
    for count, name in ((3, "three"), (5, "five")):
        found = calm.averaged(ROOT, sgd, "test_accuracy", count)
        assert f"last {name} " in finding
        assert confirm.stated(found, 100, 1) in finding
    last = calm.averaged(ROOT, rmsprop, "test_loss", 5)
    folds = dataclasses.replace(last, values=calm.of_folds(last.values))
    assert f"{confirm.stated(last)} over pairs" in finding
    assert f"{confirm.stated(folds)} with the four folds" in finding
    for task, shown in ((sgd, "0.053"), (rmsprop, "0.108")):
        values = differences_of(task, "gradient")("test_loss").values
        assert f"no less than {shown}" in finding
        assert f"{sweep.resolvable(values.std(ddof=1), 8):.3f}" == shown


def test_the_finding_states_how_rmsprop_fits_and_when_it_is_ahead():
    finding = prose(ROOT / "FINDING.md")
    assert "ahead from the fifth to the ninth epoch" in finding
    arms = statistics.by_arm(confirm.confirmed(ROOT, TASKS[3]))
    ends = [statistics.final(arms[arm], "train_loss") for arm in ("gradient", "none")]
    assert f"at {ends[0].mean():.3f} instead of {ends[1].mean():.3f}" in finding
    assert (ends[0] < ends[1]).all()
    ours, theirs = (
        np.mean([[line["test_loss"] for line in run.epochs] for run in arms[arm]], 0)
        for arm in ("gradient", "none")
    )
    assert (ours - theirs)[4:9].max() < -0.05
    assert abs(ours - theirs)[9] < 0.01


def test_the_finding_counts_the_runs_that_reach_their_target():
    fashion, gradient, update, *_ = planned_races()
    arrived, before = 0, 0
    for found, steps in (
        (fashion, fashion.ours), (fashion, fashion.theirs), (gradient, gradient.ours),
        (gradient, gradient.theirs), (update, update.ours),
    ):  # fmt: skip
        evaluations = np.concatenate([found.ours, found.theirs]).max() / 21
        arrived += int((steps < 20.5 * evaluations).sum())
        before += int((steps < 18.5 * evaluations).sum())
    text = prose(ROOT / "FINDING.md")
    assert f"Of the {arrived} runs" in text
    assert f"{arrived - before} do so in the last tenth and {before} just" in text


def test_the_finding_counts_the_records_whose_version_is_another_tree_s():
    found = [
        record["config.json"]
        for part in ("sweep", "confirm", "half", "mechanism", "seconds")
        for record in archive.read_archive(ROOT / part).values()
    ]
    assert {one["commit"][:7] for one in found} == {"081f262"}
    wrong = sum(one["versions"]["optax-gc"] == "0.2.0" for one in found)
    text = prose(ROOT / "FINDING.md")
    assert f"The first {len(found)} runs" in text
    assert f"{wrong} of them name version 0.2.0" in text


def test_the_finding_states_the_seconds_and_half_the_budget():
    text = prose(ROOT / "FINDING.md")
    for task in TASKS:
        for arm in task.arms:
            assert f"{seconds.pace(ROOT, task, arm).ratio:.3f}" in text
    runs = confirm.confirmed(ROOT, TASKS[0], "half")
    loss = statistics.at_end("test_loss")
    half = confirm.difference(TASKS[0], runs, "gradient", loss)
    assert confirm.stated(half) in text
