"""The floor of rounding: how much repeats of one run differ."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from train.record.statistics import (
    Run,
    at_end,
    by_arm,
    final,
    gathered_runs,
    markdown_table,
    paired_differences,
)
from train.study.confirm import confirmed
from train.study.tasks import TASKS, StudyTask

PART = "repeat"
METRIC = "test_loss"


def repeated(root: pathlib.Path, task: StudyTask, way: str = "") -> list[Run]:
    """Returns a task's repeats on one device, or in another way."""
    return gathered_runs(root / PART, f"{task.name}{way}")


def repeats(root: pathlib.Path, task: StudyTask) -> np.ndarray:
    """Returns the test losses of the repeated runs, `(runs, repeats)`.

    The first of each is that of the confirming run, on one device of another machine.
    """
    confirming = confirmed(root, task)
    others = (repeated(root, task), repeated(root, task, "-two-devices"))
    found = [
        {(run.arm, run.seed): run.summary[METRIC] for run in runs}
        for runs in (confirming, *others)
    ]
    names = sorted(set.intersection(*map(set, found)))
    return np.array([[losses[name] for losses in found] for name in names])


def within(losses: np.ndarray) -> float:
    """Returns the standard deviation within repeats, pooled over the runs."""
    return float(np.sqrt(losses.var(axis=1, ddof=1).mean()))


def between(runs: Sequence[Run]) -> float:
    """Returns the standard deviation between seeds, pooled over the arms."""
    variances = [final(arm, METRIC).var(ddof=1) for arm in by_arm(runs).values()]
    return float(np.sqrt(np.mean(variances)))


def left_by_pairing(runs: Sequence[Run], arm: str) -> float:
    """Returns the variance of paired differences over that of unpaired ones."""
    arms = by_arm(runs)
    paired = paired_differences(arms[arm], arms["none"], at_end(METRIC)).var(ddof=1)
    alone = [final(arms[name], METRIC).var(ddof=1) for name in (arm, "none")]
    return float(paired / sum(alone))


def same_bits(root: pathlib.Path, task: StudyTask) -> str:
    """Returns whether the second repeats agree to the last bit."""
    once = {(run.arm, run.seed): run for run in repeated(root, task)}
    agree = [
        [*map(untimed, once[again.arm, again.seed].epochs)]
        == [*map(untimed, again.epochs)]
        for again in repeated(root, task, "-again")
    ]
    return ("yes" if all(agree) else "no") if agree else "not run"


def untimed(line: Mapping[str, float]) -> dict[str, float]:
    """Returns an epoch's metrics without its time."""
    return {name: value for name, value in line.items() if name != "epoch_seconds"}


def floor_text(root: pathlib.Path) -> Iterator[str]:
    """Yields the section on repeats."""
    rows = []
    for task in TASKS:
        losses, runs = repeats(root, task), confirmed(root, task)
        if not len(losses):
            continue
        buys = [f"{left_by_pairing(runs, arm):.2f} ({arm})" for arm in task.arms]
        rows.append(
            [
                task.title, str(len(losses)), f"{within(losses):.4f}",
                f"{np.ptp(losses, axis=1).max():.4f}", f"{between(runs):.4f}",
                f"{task.margin:g}", ", ".join(buys),
                same_bits(root, task),
            ]
        )  # fmt: skip
    if not rows:
        return
    yield "### The floor of rounding"
    yield (
        "These runs differ only in the machine and the number of devices, and so in "
        "the order of additions: the confirming run, and two repeats on another "
        "machine, on one device and on two. For the test loss at the last step, the "
        "table gives the standard deviation within a run's three repeats, the widest "
        "range of three, and the deviation between seeds. Pairing leaves a share of "
        "the variance that the difference of two arms would have without it; a share "
        "of 1 means that it gains nothing. The last column says whether one run, "
        "repeated on one device of the same machine, agrees to the last bit in every "
        "epoch."
    )
    header = [
        "task", "runs", "within repeats", "widest", "between seeds", "margin",
        "pairing leaves", "same bits",
    ]  # fmt: skip
    yield markdown_table(header, rows)
