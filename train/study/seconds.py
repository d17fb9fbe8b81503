"""Seconds to the target: steps times the seconds a step on an idle machine."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from train.record.statistics import Run, by_arm, markdown_table
from train.study import confirm
from train.study.confirm import Race
from train.study.tasks import StudyTask


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long an arm's epochs took on an idle machine, all arms in turn.

    Attributes:
      ours: seconds of each epoch of the arm.
      theirs: of `none`, which ran first and last.
    """

    ours: np.ndarray
    theirs: np.ndarray

    @property
    def ratio(self) -> float:
        """The ratio of the medians, arm over `none`."""
        return float(np.median(self.ours) / np.median(self.theirs))


def pace(root: pathlib.Path, task: StudyTask, arm: str) -> Pace | None:
    """Returns how long epochs of an arm and of `none` took, None if not timed."""
    arms = by_arm(confirm.confirmed(root, task, "seconds"))
    if arm not in arms or len(arms.get("none", ())) < 2:
        return None
    ours, theirs = (
        np.array([line["epoch_seconds"] for run in arms[name] for line in run.epochs])
        for name in (arm, "none")
    )
    return Pace(ours, theirs)


def seconds_text(
    root: pathlib.Path, task: StudyTask, runs: Sequence[Run], goal: float
) -> Iterator[str]:
    """Yields the table of seconds to the target, if epochs were timed.

    Args:
      root: the study's folder.
      task: one of its tasks.
      runs: the confirming runs.
      goal: the loss to reach.
    """
    rows = []
    for arm in task.arms:
        timed = pace(root, task, arm)
        if timed and arm in by_arm(runs):
            race = confirm.race(task, runs, arm, goal)
            rows.append([arm, *row(timed, race, epochs_a_step(task, runs[0]))])
    if rows:
        yield (
            "Seconds, of epochs on an idle machine, all arms in turn, `none` first and "
            "last: the median of an epoch with its range, and mean steps to the target "
            "times the median of a step:"
        )
        header = ["arm", "s an epoch", "of `none`", "ratio", "s to the target",
                  "of `none`", "ratio"]  # fmt: skip
        yield markdown_table(header, rows)


def row(timed: Pace, race: Race, epochs: float) -> Iterator[str]:
    """Yields the cells of an arm; `epochs` are those that one step takes."""
    for values in (timed.ours, timed.theirs):
        yield f"{np.median(values):.1f} ({values.min():.1f} to {values.max():.1f})"
    yield f"{timed.ratio:.3f}"
    for steps, values in ((race.ours, timed.ours), (race.theirs, timed.theirs)):
        yield f"{steps.mean() * epochs * np.median(values):.1f}"
    yield f"{race.ratio * timed.ratio:.3f}"


def epochs_a_step(task: StudyTask, run: Run) -> float:
    """Returns the epochs that one step of a race takes."""
    steps, _ = confirm.measured_at(task, run)
    return len(run.epochs) / steps[-1]
