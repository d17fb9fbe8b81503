"""The control: all arms at one rate, and the horses at calmer best rates."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

from train.record.statistics import (
    Run,
    by_arm,
    gathered_runs,
    last_epochs,
    markdown_table,
    paired_differences,
)
from train.study import confirm
from train.study.calm import EPOCHS, of_folds
from train.study.confirm import Difference, confirmed, stated
from train.study.race import race, target
from train.study.tasks import TASKS, StudyTask

PART = "control"
RATE = 0.008  # for all arms on Shakespeare
NEW = 16  # the first seed with which no arm was known


def pooled(run: Run) -> float:
    """Returns the mean of a run's validation and test loss at the last step."""
    return (run.summary["validation_loss"] + run.summary["test_loss"]) / 2


@dataclasses.dataclass(frozen=True)
class Control:
    """A comparison about which the plan makes a prediction.

    Attributes:
      name: its name in the plan's table.
      text: its task in words.
      rates: the rates of the arms, GC's first.
      find: a function from the study's folder to the differences that exist.
      holds: a function that tells whether the differences came as predicted.
      count: how many differences are planned.
      unit: the unit of each difference, such as pairs.
    """

    name: str
    text: str
    rates: tuple[float, float]
    find: Callable[[pathlib.Path], Difference]
    holds: Callable[[Difference], bool]
    count: int
    unit: str = "pairs"


@dataclasses.dataclass(frozen=True)
class Found:
    """A control whose runs all exist."""

    control: Control
    difference: Difference


def named(name: str) -> StudyTask:
    """Returns the task with a name."""
    return next(task for task in TASKS if task.name == name)


def arms_at(root: pathlib.Path, task: StudyTask, arm: str, rate: float) -> list[Run]:
    """Returns the confirming runs of an arm at a rate, and those of the control."""
    runs = [*confirmed(root, task), *confirmed(root, task, PART)]
    return [run for run in runs if (run.arm, run.rate) == (arm, rate)]


def at_one_rate(root: pathlib.Path, arm: str, first: int = 0) -> Difference:
    """Returns an arm's differences to `none`, all at one rate, from one seed on."""
    task = named("shakespeare")
    ours, theirs = (
        [run for run in arms_at(root, task, name, RATE) if run.seed >= first]
        for name in (arm, "none")
    )
    return Difference(task, arm, "none", paired_differences(ours, theirs, pooled))


def at_half(root: pathlib.Path) -> Difference:
    """Returns the differences with half the budget, both arms at one rate."""
    task = named("shakespeare")
    ours = by_arm(confirmed(root, task, "half"))["gradient"]
    theirs = gathered_runs(root / PART, "shakespeare-half")
    values = paired_differences(ours, theirs, pooled)
    return Difference(task, "gradient", "none", values)


def calmer(root: pathlib.Path, name: str, ours: float, theirs: float) -> Difference:
    """Returns the horses' differences, each arm at a rate, the folds as blocks."""
    task = named(name)
    values = paired_differences(
        arms_at(root, task, "gradient", ours),
        arms_at(root, task, "none", theirs),
        last_epochs("test_loss", EPOCHS),
    )
    # A fold with only one seed does not count yet.
    whole = values[: len(values) // 2 * 2]
    return Difference(task, "gradient", "none", of_folds(whole))


def is_equal(found: Difference) -> bool:
    """Tells whether the interval of a difference lies within its margin."""
    low, high = found.interval
    return -found.task.margin < low and high < found.task.margin


def is_gain(found: Difference) -> bool:
    """Tells whether GC gains between 0.004 and 0.012, with an interval below 0."""
    return -0.012 <= found.mean <= -0.004 and found.interval[1] < 0


def is_within(limit: float) -> Callable[[Difference], bool]:
    """Returns a function that tells whether a mean difference is below a limit."""
    return lambda found: abs(found.mean) < limit


ONE_RATE = (RATE, RATE)
CONTROLS = (
    Control(
        "C1", "Shakespeare", ONE_RATE, lambda root: at_one_rate(root, "update"),
        is_gain, 32,
    ),
    Control(
        "C2", "Shakespeare", ONE_RATE, lambda root: at_one_rate(root, "gradient"),
        is_equal, 32,
    ),
    Control(
        "C3", "Shakespeare, half the steps", ONE_RATE, at_half, is_within(0.02), 8
    ),
    Control(
        "C4", named("horses-sgd").label, (0.02, 0.01),
        lambda root: calmer(root, "horses-sgd", 0.02, 0.01), is_within(0.03), 4,
        "folds",
    ),
    Control(
        "C5", named("horses-rmsprop").label, (0.0008, 0.0004),
        lambda root: calmer(root, "horses-rmsprop", 0.0008, 0.0004), is_within(0.03), 4,
        "folds",
    ),
)  # fmt: skip


def controls(root: pathlib.Path) -> list[Found]:
    """Returns the controls whose runs all exist, in the plan's order."""
    found = [Found(control, control.find(root)) for control in CONTROLS]
    return [one for one in found if len(one.difference.values) == one.control.count]


def corrected_p(made: Sequence[Found]) -> list[float]:
    """Returns the p-values after Holm's correction over all planned controls."""
    return confirm.holm([one.difference.p for one in made], len(CONTROLS))


def control_text(root: pathlib.Path) -> Iterator[str]:
    """Yields the control's section."""
    made = controls(root)
    if not made:
        return
    names = {one.control.name for one in made}
    left = [control.name for control in CONTROLS if control.name not in names]
    missing = f" Not run yet: {', '.join(left)}." if left else ""
    yield "### The control"
    yield (
        "For Shakespeare, the mean of validation and test loss at the last step, with "
        "all arms at 0.008. For the horses, the held-out loss, as the mean of the last "
        f"{EPOCHS} epochs and of a fold's two seeds, with each arm at its calmer best "
        "rate. Differences are the arm minus `none`, and the p-values are corrected "
        f"for {len(CONTROLS)}.{missing}"
    )
    rows = [
        [
            one.control.name, one.control.text, one.difference.arm,
            "{:g} and {:g}".format(*one.control.rates),
            f"{one.control.count} {one.control.unit}", stated(one.difference),
            f"{p:.2g}", f"{one.difference.task.margin:g}", one.difference.answer(p),
            "holds" if one.control.holds(one.difference) else "fails",
        ]
        for one, p in zip(made, corrected_p(made), strict=True)
    ]  # fmt: skip
    header = [
        "", "task", "arm", "its rate and that of `none`", "of", "difference",
        "p, Holm", "margin", "answer", "prediction",
    ]  # fmt: skip
    yield markdown_table(header, rows)
    if {"C1", "C2"} <= names:
        yield from at_one_rate_text(root)


def at_one_rate_text(root: pathlib.Path) -> Iterator[str]:
    """Yields more on the runs at one rate: new seeds alone, steps to a target."""
    task = named("shakespeare")
    arms = task.arms
    runs = [run for arm in ("none", *arms) for run in arms_at(root, task, arm, RATE)]
    goal = target(root, task, RATE)
    found = [race(task, runs, arm, goal) for arm in arms]
    corrected = confirm.holm([one.p for one in found], len(found))
    rows = [
        [
            arm, stated(at_one_rate(root, arm, NEW)), one.stated, one.pairs,
            "{} and {} of {}".format(*one.reached, len(one.ours)), f"{p:.2g}",
            one.answer(p),
        ]
        for arm, one, p in zip(arms, found, corrected, strict=True)
    ]  # fmt: skip
    yield (
        f"Shakespeare at {RATE:g} again: the difference on the new seeds alone, from "
        f"{NEW} on, about which nothing was known, and the steps of all pairs to a "
        f"validation loss of {goal:.4f}, that of `none` at this rate in the sweep."
    )
    header = [
        "arm", "difference, new seeds", "ratio of steps", "sooner, later, level",
        "it and `none` reach it", "p, Holm", "answer",
    ]  # fmt: skip
    yield markdown_table(header, rows)
