"""The control, the last epochs and the repeats, by hand; what the pictures promise."""

import pathlib

import numpy as np
import pytest
from conftest import prose

from train.record import statistics
from train.study import calm, control, floor, picture, sweep_picture, theme
from train.study.confirm import Difference, stated
from train.study.tasks import TASKS, StudyTask

ROOT = pathlib.Path(__file__).parents[1] / "results"
TASK = StudyTask("toy", "Toy, a network, SGD", "Toy: SGD", ("gradient",), 0.1, 2.0)


def run(arm, seed, loss, rate=0.1, epochs=()):
    summary = {"validation_loss": loss, "test_loss": 3 * loss}
    lines = [{"test_loss": value} for value in epochs]
    return statistics.Run(arm, rate, seed, {}, summary, lines, [])


def test_validation_and_test_are_pooled():
    assert control.pooled(run("none", 0, 0.5)) == 1


def test_the_mean_of_the_last_epochs_can_choose_another_rate():
    runs = [
        run("none", 0, 0, rate, epochs)
        for rate, epochs in ((0.1, [9, 9, 1]), (0.2, [3, 3, 3]))
    ]
    assert calm.best_rate(runs, 1) == 0.1
    assert calm.best_rate(runs, 2) == 0.2


def test_two_seeds_in_a_row_are_a_fold():
    assert calm.of_folds(np.array([1.0, 2.0, 5.0, 7.0])).tolist() == [1.5, 6.0]


def test_the_confirming_runs_have_two_seeds_in_a_row_in_each_fold():
    for task in TASKS:
        if task.name.startswith("horses"):
            for run in statistics.gathered_runs(ROOT / "confirm", task.name):
                folder = run.config["config"]["data_dir"]
                assert folder == f"folds/{run.seed // 2 + 1}"


def test_the_deviation_within_repeats_is_pooled_over_the_runs():
    losses = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert floor.within(losses) == pytest.approx(np.sqrt(0.5))


def test_pairing_leaves_nothing_where_arms_differ_by_a_constant_and_all_where_by_luck():
    runs = [run("none", seed, loss) for seed, loss in enumerate((1, 2, 3, 6))]
    same = [run("gradient", seed, loss - 1) for seed, loss in enumerate((1, 2, 3, 6))]
    assert floor.left_by_pairing([*runs, *same], "gradient") == 0
    square = [run("none", seed, loss) for seed, loss in enumerate((1, 1, 2, 2))]
    other = [run("gradient", seed, loss) for seed, loss in enumerate((1, 2, 1, 2))]
    assert floor.left_by_pairing([*square, *other], "gradient") == pytest.approx(1)


def test_an_interval_beyond_the_frame_ends_in_an_arrow_and_labels_say_the_rates():
    found = Difference(TASK, "gradient", "none", np.array([-2.0, 2.0, 0.1]))
    row = picture.row("Toy", (0.1, 0.2), "3 pairs", found, 0.5)
    assert (row.detail, row.is_settled) == ("3 pairs at 0.1 and 0.2", False)
    assert picture.row("Toy", (0.1, 0.1), "3 pairs", found, 0.01).is_settled

    from matplotlib.figure import Figure

    panel = Figure().subplots()
    picture.draw_row(panel, row, 0, "dark")
    marks = [line.get_marker() for line in panel.lines]
    assert marks.count("<") == marks.count(">") == 1
    assert [text.get_text() for text in panel.texts] == ["Toy", row.detail]


def test_every_run_of_a_sweep_is_in_its_frame_or_marked_at_its_edge():
    from matplotlib.figure import Figure

    losses = {
        ("none", 0.1): {0: 1.0, 1: 2.9}, ("gradient", 0.1): {0: 1.1, 1: 1.2},
        ("none", 0.2): {0: 5.0, 1: 1.5}, ("gradient", 0.2): {0: 0.9, 1: 9.0},
    }  # fmt: skip
    panel = Figure().subplots()
    sweep_picture.draw_losses(panel, TASK, losses, theme.COLORS["light"])
    low, high = panel.get_ylim()
    marks = {"^": [], ".": []}
    for line in panel.lines:
        if line.get_marker() in marks:
            marks[line.get_marker()].extend(line.get_ydata())
    assert len(marks["."]) + len(marks["^"]) == 8
    assert len(marks["^"]) == 3
    assert all(low < y < high for y in (*marks["."], *marks["^"]))


def test_pictures_are_the_same_when_drawn_again(tmp_path):
    found = Difference(TASK, "gradient", "none", np.array([0.1, 0.2]))
    rows = [picture.row("Toy", (0.1, 0.2), "2 pairs", found, 0.5)]
    for name in ("one.png", "two.png"):
        picture.draw([("Toys", rows)], "dark", tmp_path / name)
    one = (tmp_path / "one.png").read_bytes()
    assert one.startswith(b"\x89PNG")
    assert one == (tmp_path / "two.png").read_bytes()


def test_the_finding_states_the_control_and_whether_it_came_as_predicted():
    finding = prose(ROOT / "FINDING.md")
    made = control.controls(ROOT)
    for one, p in zip(made, control.corrected_p(made), strict=True):
        assert stated(one.difference) in finding
        assert one.difference.answer(p) in finding
        verdict = "as predicted" if one.control.holds(one.difference) else "fails"
        assert f"{verdict} ({one.control.name}" in finding
    new = control.at_one_rate(ROOT, "update", control.NEW)
    assert f"the 16 pairs with new seeds alone {stated(new)}" in finding


def test_the_docs_state_what_the_control_settles():
    made = {one.control.name: one.difference for one in control.controls(ROOT)}
    docs = prose(ROOT.parent / "docs/evidence.md")
    page = (ROOT / "README.md").read_text()
    for name, steps in (("C1", "0.937 [0.914, 0.960]"), ("C2", "0.954 [0.930, 0.979]")):
        assert stated(made[name]) in docs
        assert steps in docs
        assert f"| {steps} |" in page
    update = made["C1"].mean / np.mean([*map(control.pooled, decoders())])
    assert f"ends {-100 * update:.1f} % lower in loss" in docs


def decoders():
    return control.arms_at(ROOT, control.named("shakespeare"), "none", control.RATE)


def test_the_finding_states_how_far_repeats_lie_apart():
    finding = prose(ROOT / "FINDING.md")
    tasks = [control.named(name) for name in ("fashion", "shakespeare", "horses-sgd")]
    losses = [floor.repeats(ROOT, task) for task in tasks]
    for one in losses:
        assert len(one) == 4
        np.testing.assert_array_equal(one[:, 0], one[:, 1])  # both on one device
        apart = np.abs(one[:, 2] - one[:, 1])
        assert f"by {apart.min():.4f} to {apart.max():.4f}" in finding
    within = "{:.4f}, {:.4f} and {:.4f}".format(*map(floor.within, losses))
    seeds = [floor.between(floor.confirmed(ROOT, task)) for task in tasks]
    between = "{:.4f}, {:.4f} and {:.4f}".format(*seeds)
    assert f"three repeats is {within}, and that between seeds {between}" in finding
    left = [
        f"{floor.left_by_pairing(floor.confirmed(ROOT, task), arm):.2f}"
        for task in tasks
        for arm in task.arms
    ]
    first, second, third, last = left
    assert f"leaves {first} of the variance of a difference on Fashion-MNIST" in finding
    assert f"{second} and {third} on Shakespeare" in finding
    assert f"On the horses it leaves {last}," in finding
    assert {floor.same_bits(ROOT, task) for task in tasks} == {"yes"}
