"""The confirming runs: paired differences, and the plan's verdicts on them."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from train.record.statistics import (
    Outcome,
    Run,
    at_end,
    by_arm,
    confidence_interval,
    gathered_runs,
    paired_differences,
)
from train.study.tasks import TASKS, StudyTask


@dataclasses.dataclass(frozen=True)
class Difference:
    """The paired differences of an arm to `none` or another arm.

    Attributes:
      task: the task.
      arm: the arm's name.
      baseline: the other arm's name.
      values: arm minus baseline for each seed, `(pairs,)`.
    """

    task: StudyTask
    arm: str
    baseline: str
    values: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float]:
        return confidence_interval(self.values)

    @property
    def p(self) -> float:
        """The p-value of the paired t-test, two-sided."""
        from scipy import stats

        return float(stats.ttest_1samp(self.values, 0).pvalue)

    def answer(self, p: float) -> str:
        """Returns the plan's verdict on it, in words.

        Args:
          p: its p-value, after Holm's correction if it belongs to a family.
        """
        low, high = self.interval
        said = []
        if p < 0.05:
            said.append("helps" if self.mean < 0 else "harms")
        if -self.task.margin < low and high < self.task.margin:
            said.append("no difference that matters")
        return ", ".join(said) or "not settled"


def stated(found: Difference, scale: float = 1, digits: int = 4) -> str:
    """Returns a mean difference with its 95 % interval."""
    mean, low, high = (
        f"{scale * number:+.{digits}f}" for number in (found.mean, *found.interval)
    )
    return f"{mean} [{low}, {high}]"


def confirmed(root: pathlib.Path, task: StudyTask, part: str = "confirm") -> list[Run]:
    """Returns a task's finished runs in one part of the study, if there are any."""
    return gathered_runs(root / part, task.name)


def difference(
    task: StudyTask,
    runs: Sequence[Run],
    arm: str,
    outcome: Outcome,
    baseline: str = "none",
) -> Difference:
    """Returns the paired differences of an arm in an outcome."""
    arms = by_arm(runs)
    return Difference(
        task, arm, baseline, paired_differences(arms[arm], arms[baseline], outcome)
    )


def primary(root: pathlib.Path) -> list[Difference]:
    """Returns the primary comparisons of all confirmed tasks."""
    return [
        difference(task, runs, arm, at_end("test_loss"))
        for task in TASKS
        if (runs := confirmed(root, task))
        for arm in task.arms
    ]


def holm(p_values: Sequence[float], family: int) -> list[float]:
    """Returns the p-values after Holm's correction.

    Args:
      p_values: the p-values of the comparisons that were made.
      family: the number of planned comparisons. Those that are not made yet count as
        p = 1, so that no corrected p-value rises when they are made.

    References:
      Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (family - rank) * p_values[i]))
        corrected[i] = largest
    return corrected.tolist()
