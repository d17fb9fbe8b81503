"""Seconds per epoch on an idle machine, with GC and without."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from train.record.statistics import by_arm, markdown_table
from train.study import confirm
from train.study.tasks import StudyTask


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long an arm's epochs took on an idle machine, with all arms in turn.

    Attributes:
      ours: seconds of each epoch of the arm.
      theirs: seconds of each epoch of `none`, which ran first and last.
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


def seconds_text(root: pathlib.Path, task: StudyTask) -> Iterator[str]:
    """Yields the table of seconds per epoch, if the task's epochs were timed."""
    rows = [
        [arm, *map(median_and_range, (timed.ours, timed.theirs)), f"{timed.ratio:.3f}"]
        for arm in task.arms
        if (timed := pace(root, task, arm))
    ]
    if rows:
        yield (
            "Seconds per epoch on an idle machine, with all arms in turn and `none` "
            "first and last: the median, and the range of all timed epochs. A ratio "
            "below 1, or within the range of `none`, is noise: GC cannot save time."
        )
        header = ["arm", "seconds", "of `none`", "ratio"]
        yield markdown_table(header, rows)


def median_and_range(seconds: np.ndarray) -> str:
    """Returns the median of some times, with the shortest and the longest."""
    return f"{np.median(seconds):.1f} ({seconds.min():.1f} to {seconds.max():.1f})"
