"""Seconds of an epoch on an idle machine, with GC and without."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from train.record.statistics import by_arm, markdown_table
from train.study import confirm
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


def seconds_text(root: pathlib.Path, task: StudyTask) -> Iterator[str]:
    """Yields the table of seconds an epoch, if epochs of the task were timed."""
    rows = [
        [arm, *map(median_and_range, (timed.ours, timed.theirs)), f"{timed.ratio:.3f}"]
        for arm in task.arms
        if (timed := pace(root, task, arm))
    ]
    if rows:
        yield (
            "Seconds of an epoch on an idle machine, all arms in turn, `none` first "
            "and last: the median, and the range of all that were timed. A ratio below "
            "1, or within the range of `none`, is noise: GC takes no time away."
        )
        header = ["arm", "seconds", "of `none`", "ratio"]
        yield markdown_table(header, rows)


def median_and_range(seconds: np.ndarray) -> str:
    """Returns the median of some seconds, with the least and the most of them."""
    return f"{np.median(seconds):.1f} ({seconds.min():.1f} to {seconds.max():.1f})"
