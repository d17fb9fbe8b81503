"""What the plan predicted, beside what the records say of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from train.study.limits import outcome
from train.study.limits.arms import BIAS_PROBLEM
from train.study.limits.comparisons import Comparison, Point, times
from train.study.limits.outcome import MARGIN, Outcome

FEWEST = 8  # pairs, of which a rank correlation and its bootstrap say something
SMALL, LARGE = 1.1, 2.0  # ratios of sharpness
NORMED = ("cnn-batchnorm", "cnn-layernorm")  # beside "cnn"


class Verdict(NamedTuple):
    """A prediction and what became of it.

    Attributes:
      name: that of the plan.
      predicted: what.
      found: the figures that decide.
      verdict: "holds", "fails" or "open"; "-" where nothing was there to decide.
    """

    name: str
    predicted: str
    found: str
    verdict: str


def verdicts(found: Sequence[Comparison], points: Sequence[Point]) -> list[Verdict]:
    """Returns each prediction of the plan, as far as it is run."""
    return [
        correlated(points),
        *by_ratio(points),
        *with_normalization(found),
        shortened(found),
        *the_reason(found),
    ]


def decided(low: float, high: float, limit: float) -> str:
    """Returns whether an interval says that a value is above a limit."""
    return "holds" if low > limit else "fails" if high < limit else "open"


def correlated(points: Sequence[Point]) -> Verdict:
    """S1: the ratio orders the pairs by their gain in steps."""
    predicted = "the ratio after 5 % of the steps and the gain in steps rise together"
    if len(points) < FEWEST:
        return Verdict("S1", predicted, "too few pairs", "-")
    value, (low, high) = correlation(points, "early")
    text = f"rank correlation {value:.2f} [{low:.2f}, {high:.2f}], {len(points)} pairs"
    return Verdict("S1", predicted, text, decided(low, high, 0))


def correlation(
    points: Sequence[Point], when: str
) -> tuple[float, tuple[float, float]]:
    """Returns the rank correlation of the gain and the ratio at a time."""
    gains = np.array([-point.comparison.steps.mean for point in points])
    ratios = np.array([getattr(point, when) for point in points])
    return outcome.rank_correlation(ratios, gains)


def by_ratio(points: Sequence[Point]) -> Iterator[Verdict]:
    """S2 and S3: a small ratio and no gain, a large one and a gain."""
    small = [point for point in points if point.early < SMALL]
    large = [point for point in points if point.early >= LARGE]
    for name, chosen, predicted in (
        ("S2", small, f"no gain in steps beyond the margin below a ratio of {SMALL}"),
        ("S3", large, f"a gain in steps beyond the margin from a ratio of {LARGE:g}"),
    ):
        losses = [point.comparison.steps.interval for point in chosen]
        if name == "S2":  # the whole interval above the margin's better end
            said = [decided(low, high, -MARGIN) for low, high in losses]
        else:
            said = [decided(-high, -low, MARGIN) for low, high in losses]
        counts = [
            f"{verdict} in {said.count(verdict)}" for verdict in dict.fromkeys(said)
        ]
        yield Verdict(
            name, predicted, ", ".join(counts) or "no pair has such a ratio",
            worst(said),
        )  # fmt: skip


def worst(said: Sequence[str]) -> str:
    """Returns the verdict on a prediction that must hold everywhere."""
    return next((one for one in ("fails", "open", "holds") if one in said), "-")


def with_normalization(found: Sequence[Comparison]) -> Iterator[Verdict]:
    """S4: what is normalized gains less, by the seeds' differences."""
    gains = {
        (one.problem.name, one.optimizer): one.steps.values
        for one in found
        if (one.arm, one.budget) == ("gradient", 1)
    }
    for (name, optimizer), values in gains.items():
        if name in NORMED and ("cnn", optimizer) in gains:
            difference = Outcome(values - gains["cnn", optimizer])
            low, high = difference.interval
            yield Verdict(
                "S4", f"{name} gains less in steps than cnn ({optimizer})",
                f"{times(difference)} times the ratio of steps",
                decided(low, high, 0),
            )  # fmt: skip


def shortened(found: Sequence[Comparison]) -> Verdict:
    """S5: who only shortens the steps gains nothing that matters."""
    ends = [
        (one.train.interval, f"{one.problem.name} ({one.optimizer}, {one.budget})")
        for one in found
        if one.arm == "shorten"
    ]
    better = [name for (_, high), name in ends if high < -MARGIN]
    predicted = "`shorten` is nowhere better in training loss by more than the margin"
    text = f"better in {len(better)} of {len(ends)}"
    text += f": {', '.join(better)}" if better else ""
    is_safe = all(low > -MARGIN for (low, _), _ in ends)
    return Verdict(
        "S5", predicted, text, "fails" if better else "holds" if is_safe else "open"
    )


def the_reason(found: Sequence[Comparison]) -> Iterator[Verdict]:
    """The reason: the mean, not the length; and a fast bias takes half of the gain."""
    losses = {
        (one.problem.name, one.optimizer, one.budget, one.arm): one.train
        for one in found
    }
    for (name, optimizer, budget, arm), gc in losses.items():
        rest = losses.get((name, optimizer, budget, "bias-gradient"))
        if arm != "gradient" or (name, optimizer) != BIAS_PROBLEM or not rest:
            continue
        fast = losses[name, optimizer, budget, "bias"]
        left = Outcome(rest.values - fast.values)
        share = left.mean / gc.mean
        yield Verdict(
            "bias", "with fast biases GC gains at most half as much (logarithm of the "
            f"training loss; {name}, {optimizer}, budget {budget})",
            f"{share:.2f} of it: {times(left)} instead of {times(gc)}",
            decided(*Outcome(left.values - gc.values / 2).interval, 0),
        )  # fmt: skip
