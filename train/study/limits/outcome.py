"""What the records say: paired differences, steps to a loss, the prediction."""

import dataclasses
import math
from typing import Any

import numpy as np

from train.record.statistics import confidence_interval
from train.study.limits.training import END, POINTS
from train.study.race import sign_flip_p

MARGIN = math.log(1.05)  # in loss or steps
MARGIN_DB = 0.2
START = 0  # point of a curve whose loss a run that diverged counts at


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Paired differences of an arm and `none`; below 0 the arm is better.

    Attributes:
      values: of each seed: of the logarithm of a loss or of steps, or of dB.
      margin: the size of a difference that matters.
    """

    values: np.ndarray
    margin: float = MARGIN

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float]:
        return confidence_interval(self.values)

    @property
    def p(self) -> float:
        """The p-value of the sign-flip test, before Holm's correction."""
        return sign_flip_p(self.values)

    @property
    def t_p(self) -> float:
        """The p-value of the paired t-test, before Holm's correction."""
        from scipy import stats

        if not np.any(self.values):
            return 1.0
        return float(stats.ttest_1samp(self.values, 0).pvalue)

    def answer(self, p: float) -> str:
        """Returns what the plan says of it; `p` is corrected."""
        low, high = self.interval
        said = []
        if p < 0.05:
            said.append("better" if self.mean < 0 else "worse")
        if -self.margin < low and high < self.margin:
            said.append("no difference that matters")
        return ", ".join(said) or "not settled"


def finals(record: dict[str, Any]) -> np.ndarray:
    """Returns the final training losses; of a run that diverged, the first one."""
    curves = np.array(record["curves"], np.float64)
    ends = curves[:, -END:].mean(1)
    return np.where(np.isfinite(ends), ends, curves[:, START])


def train_loss(ours: dict[str, Any], theirs: dict[str, Any]) -> Outcome:
    """Returns the outcome in final training loss."""
    return Outcome(np.log(finals(ours)) - np.log(finals(theirs)))


def held_out(ours: dict[str, Any], theirs: dict[str, Any], unit: str) -> Outcome:
    """Returns the outcome in what the problem is judged by, on held-out examples."""
    a, b = (np.array(record["judged"], np.float64) for record in (ours, theirs))
    if unit.endswith("dB"):
        return Outcome(b - a, MARGIN_DB)
    return Outcome(np.log(a) - np.log(b))


def steps(ours: dict[str, Any], theirs: dict[str, Any]) -> Outcome:
    """Returns the outcome in steps to the loss at which `none` ends.

    Of each seed the logarithm of the ratio; a run that never gets there counts as a
    hundredth longer than all its steps.
    """
    goal = float(np.exp(np.log(finals(theirs)).mean()))
    counts = [np.log(arrival(np.array(one["curves"]), goal)) for one in (ours, theirs)]
    return Outcome(counts[0] - counts[1])


def arrival(curves: np.ndarray, goal: float) -> np.ndarray:
    """Returns the point at which each curve's mean of `END` first reaches a loss."""
    window = np.ones(END) / END
    smooth = np.stack([np.convolve(curve, window, "valid") for curve in curves])
    there = smooth <= goal
    first = there.argmax(1) + END
    return np.where(there.any(1), first, POINTS + 1).astype(np.float64)


def rank_correlation(
    x: np.ndarray, y: np.ndarray, draws: int = 10_000
) -> tuple[float, tuple[float, float]]:
    """Returns Spearman's rank correlation with its 95 % bootstrap interval."""
    from scipy import stats

    def spearman(rows: np.ndarray) -> float:
        return float(stats.spearmanr(x[rows], y[rows]).statistic)

    drawn = np.random.default_rng(0).integers(0, len(x), (draws, len(x)))
    several = [rows for rows in drawn if len(set(rows)) > 2]
    low, high = np.nanquantile([spearman(rows) for rows in several], (0.025, 0.975))
    return spearman(np.arange(len(x))), (float(low), float(high))
