"""Steps to the target: which arm gets there first, and whether that is certain."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from train.record.statistics import Run, by_arm, confidence_interval, final
from train.study.confirm import confirmed
from train.study.tasks import TASKS, StudyTask

LEVEL = 0.05
EXACT = 2**16  # sign assignments; beyond this many, as many are drawn


def sign_flip_p(values: np.ndarray) -> float:
    """Returns the p-value of the mean of paired differences, two-sided.

    Under the null hypothesis the arms of a pair could be swapped, so each difference
    could have either sign. The p-value is the share of all assignments of signs whose
    mean is at least as far from 0. It is exact for up to 16 pairs that are not ties;
    for more, it is estimated from 65,536 random assignments.
    """
    from scipy import stats

    values = values[values != 0]  # the sign of a tie says nothing
    if not len(values):
        return 1.0
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True,
        n_resamples=EXACT, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


@dataclasses.dataclass(frozen=True)
class Race:
    """How soon an arm and `none` reach the target, pair by pair.

    Attributes:
      task: the task.
      arm: the arm's name.
      target: the loss to reach.
      ours: the arm's steps to the target, `(pairs,)`. A run that does not reach it
        counts as one evaluation more than all its steps, later than any that does.
      theirs: the steps of `none`.
      reached: how many runs of each reach it.
    """

    task: StudyTask
    arm: str
    target: float
    ours: np.ndarray
    theirs: np.ndarray
    reached: tuple[int, int]

    @property
    def is_run(self) -> bool:
        """Whether any run of either arm reaches the target."""
        return any(self.reached)

    @property
    def logarithms(self) -> np.ndarray:
        """The logarithm of each pair's ratio of steps, arm over `none`."""
        return np.log(self.ours / self.theirs)

    @property
    def ratio(self) -> float:
        """The ratio of steps, arm over `none`, as the geometric mean over the pairs."""
        return float(np.exp(self.logarithms.mean()))

    @property
    def interval(self) -> tuple[float, float]:
        """The ratio's 95 % interval, from Student's t on the logarithms."""
        low, high = np.exp(confidence_interval(self.logarithms))
        return float(low), float(high)

    @property
    def p(self) -> float:
        """The p-value of the sign-flip test; 1 if there was no race."""
        return sign_flip_p(self.logarithms) if self.is_run else 1.0

    def answer(self, p: float) -> str:
        """Returns the plan's verdict on it, in words.

        Args:
          p: its p-value after Holm's correction over all races.
        """
        if not self.is_run:
            return "-"
        if p >= LEVEL:
            return "not settled"
        return "faster" if self.ratio < 1 else "slower"

    @property
    def stated(self) -> str:
        """The ratio with its interval, or "-" if there was no race."""
        low, high = self.interval
        return f"{self.ratio:.3f} [{low:.3f}, {high:.3f}]" if self.is_run else "-"

    @property
    def pairs(self) -> str:
        """The numbers of pairs in which the arm was sooner, later and level."""
        counts = [int((np.sign(self.logarithms) == sign).sum()) for sign in (-1, 1, 0)]
        return ", ".join(map(str, counts))


def race(task: StudyTask, runs: Sequence[Run], arm: str, target: float) -> Race:
    """Returns how soon an arm and `none` reach the target."""
    arms = by_arm(runs)
    ours, theirs = (
        {run.seed: steps_to(task, run, target) for run in arms[name]}
        for name in (arm, "none")
    )
    seeds = sorted(ours.keys() & theirs.keys())
    pairs = np.array([(ours[seed], theirs[seed]) for seed in seeds], np.float64)
    steps, reached = pairs[..., 0].T, pairs[..., 1].sum(0).astype(int)
    return Race(task, arm, target, *steps, tuple(reached.tolist()))


def steps_to(task: StudyTask, run: Run, target: float) -> tuple[int, bool]:
    """Returns the steps to the target, and whether it is reached.

    If it is not, they are one evaluation more than the run has.
    """
    steps, losses = measured_at(task, run)
    for step, loss in zip(steps, losses, strict=True):
        if loss <= target:
            return step, True
    return steps[-1] + (steps[-1] - steps[-2]), False


def measured_at(task: StudyTask, run: Run) -> tuple[list[int], list[float]]:
    """Returns the steps at which the target's metric was measured, and its values."""
    lines = run.evaluations or run.epochs
    steps = [line.get("step", line.get("epoch")) for line in lines]
    return steps, [line[task.target] for line in lines]


def target(root: pathlib.Path, task: StudyTask, rate: float) -> float:
    """Returns the target: the mean final loss of `none` at its rate in the sweep."""
    swept = by_arm(confirmed(root, task, "sweep"))["none"]
    return float(final([run for run in swept if run.rate == rate], task.target).mean())


def races(root: pathlib.Path, rates: Mapping[str, Mapping[str, float]]) -> list[Race]:
    """Returns the races of all confirmed tasks.

    Args:
      root: the study's folder.
      rates: the chosen rates, by task and arm.
    """
    return [
        race(task, runs, arm, target(root, task, rates[task.name]["none"]))
        for task in TASKS
        if (runs := confirmed(root, task))
        for arm in task.arms
    ]
