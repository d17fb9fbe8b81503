"""The confirming runs: paired differences, what they say, and steps to the target."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from train.record.statistics import (
    Run,
    by_arm,
    confidence_interval,
    final,
    gathered_runs,
    paired_differences,
)
from train.study.tasks import TASKS, StudyTask

DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Difference:
    """The paired differences of an arm, against `none` or another one.

    Attributes:
      task: its task.
      arm: its name.
      baseline: the other one's.
      values: arm minus baseline of each seed, `(pairs,)`.
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
        """Returns what the plan says of it, in words.

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
    """Returns a task's finished runs of a part of the study, none if there are none."""
    return gathered_runs(root / part, task.name)


def difference(
    task: StudyTask, runs: Sequence[Run], arm: str, metric: str, baseline: str = "none"
) -> Difference:
    """Returns the paired differences of an arm in the last value of a metric."""
    arms = by_arm(runs)
    return Difference(
        task, arm, baseline, paired_differences(arms[arm], arms[baseline], metric)
    )


def primary(root: pathlib.Path) -> list[Difference]:
    """Returns the primary comparisons of all tasks that are confirmed."""
    return [
        difference(task, runs, arm, "test_loss")
        for task in TASKS
        if (runs := confirmed(root, task))
        for arm in task.arms
    ]


def holm(p_values: Sequence[float], family: int) -> list[float]:
    """Returns the p-values after Holm's correction.

    Args:
      p_values: of the comparisons that were made.
      family: the number of those that were planned. While some are not made yet, each
        p-value is multiplied by it, as Bonferroni's: never too small a correction.

    References:
      Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    missing = family - len(p_values)
    for rank, i in enumerate(order):
        factor = family - rank if not missing else family
        largest = max(largest, min(1.0, factor * p_values[i]))
        corrected[i] = largest
    return corrected.tolist()


def first_at(values: Sequence[float], target: float) -> int | None:
    """Returns the index of the first value at or below the target, None if none is."""
    return next((i for i, value in enumerate(values) if value <= target), None)


@dataclasses.dataclass(frozen=True)
class Race:
    """How soon an arm and `none` reach the target, pair by pair.

    Attributes:
      arm: its name.
      target: the loss to reach.
      ours: steps of the arm to the target, the whole run if not reached, `(pairs,)`.
      theirs: those of `none`.
      reached: of how many runs each reaches it.
    """

    arm: str
    target: float
    ours: np.ndarray
    theirs: np.ndarray
    reached: tuple[int, int]

    @property
    def ratio(self) -> float:
        """The ratio of restricted mean steps, arm over `none`."""
        return float(self.ours.mean() / self.theirs.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The ratio's 95 % bootstrap interval over pairs."""
        count = len(self.ours)
        drawn = np.random.default_rng(0).integers(0, count, (DRAWS, count))
        ratios = self.ours[drawn].mean(1) / self.theirs[drawn].mean(1)
        low, high = np.quantile(ratios, (0.025, 0.975))
        return float(low), float(high)

    @property
    def sign_p(self) -> float:
        """The p-value of the sign test, two-sided, without the ties."""
        from scipy import stats

        sooner = int((self.ours < self.theirs).sum())
        later = int((self.ours > self.theirs).sum())
        if not sooner + later:
            return 1.0
        return float(stats.binomtest(sooner, sooner + later).pvalue)

    @property
    def answer(self) -> str:
        low, high = self.interval
        if high < 1:
            return "faster"
        return "slower" if low > 1 else "not faster"


def race(task: StudyTask, runs: Sequence[Run], arm: str, target: float) -> Race:
    """Returns how soon an arm and `none` reach the target."""
    arms = by_arm(runs)
    by_seed = {
        name: {run.seed: steps_to(task, run, target) for run in arms[name]}
        for name in (arm, "none")
    }
    seeds = sorted(by_seed[arm].keys() & by_seed["none"].keys())
    pairs = [(by_seed[arm][seed], by_seed["none"][seed]) for seed in seeds]
    ours, theirs = (
        np.array([pair[side][0] for pair in pairs], np.float64) for side in (0, 1)
    )
    reached = tuple(sum(pair[side][1] for pair in pairs) for side in (0, 1))
    return Race(arm, target, ours, theirs, reached)


def steps_to(task: StudyTask, run: Run, target: float) -> tuple[int, bool]:
    """Returns the steps to the target, and whether it is reached; else all steps."""
    steps, losses = measured_at(task, run)
    i = first_at(losses, target)
    return (steps[-1], False) if i is None else (steps[i], True)


def measured_at(task: StudyTask, run: Run) -> tuple[list[int], list[float]]:
    """Returns the steps at which the target's metric was measured, and its values."""
    lines = run.evaluations or run.epochs
    steps = [line.get("step", line.get("epoch")) for line in lines]
    return steps, [line[task.target] for line in lines]


def target(root: pathlib.Path, task: StudyTask, rate: float) -> float:
    """Returns the target: the mean final loss of `none` at its rate in the sweep."""
    runs = [
        run
        for run in by_arm(confirmed(root, task, "sweep"))["none"]
        if run.rate == rate
    ]
    return float(final(runs, task.target).mean())
