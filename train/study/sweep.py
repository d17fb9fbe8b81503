"""The sweep over learning rates: each arm's losses, best rate and sensitivity."""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from train.record import archive
from train.study.tasks import StudyTask

Losses = Mapping[tuple[str, float], Mapping[int, float]]  # by arm and rate, by seed


def read_sweep(root: pathlib.Path, task: StudyTask) -> Losses:
    """Returns the final loss of each finished run of a sweep.

    A run that diverged, or ended above the initial loss, counts as the initial loss.
    """
    found: dict[tuple[str, float], dict[int, float]] = {}
    records = archive.read_archive(root / "sweep", task.name)
    for name in sorted(records):
        config = records[name]["config.json"]["config"]
        summary = records[name].get("summary.json", {})  # none if it diverged
        loss = min(task.start, summary.get(task.chosen_by, math.inf))
        arm = re.fullmatch(r".+/(.+)-lr.+", name)[1]
        found.setdefault((arm, config["learning_rate"]), {})[config["seed"]] = loss
    return found


def is_whole(losses: Losses, task: StudyTask) -> bool:
    """Tells whether all arms have the same rates, and all rates the same seeds."""
    of_arms = {tuple(rates(losses, arm)) for arm in ("none", *task.arms)}
    seeds = {tuple(sorted(by_seed)) for by_seed in losses.values()}
    return len(of_arms) == 1 == len(seeds) and len(*seeds) > 1


def rates(losses: Losses, arm: str) -> list[float]:
    """Returns the rates of an arm, ascending."""
    return sorted(rate for name, rate in losses if name == arm)


def means(losses: Losses, arm: str) -> np.ndarray:
    """Returns the mean loss over the seeds at each of an arm's rates, `(rates,)`."""
    return np.array(
        [np.mean([*losses[arm, rate].values()]) for rate in rates(losses, arm)]
    )


def best_rate(losses: Losses, arm: str) -> float:
    """Returns the rate with an arm's lowest mean loss."""
    return rates(losses, arm)[int(means(losses, arm).argmin())]


def is_bracketed(losses: Losses, arm: str) -> bool:
    """Tells whether an arm's best rate is neither its first nor its last."""
    return 0 < means(losses, arm).argmin() < len(rates(losses, arm)) - 1


def paired(losses: Losses, arm: str, rate: float) -> np.ndarray:
    """Returns an arm's loss minus that of `none` at a rate, `(seeds,)`."""
    ours, theirs = losses[arm, rate], losses["none", rate]
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours)])


def paired_deviation(losses: Losses, arm: str) -> tuple[float, int]:
    """Returns the standard deviation of paired differences, and its degrees of freedom.

    It is pooled within the rates from the one below the lower of the two arms' best
    rates to the one above the higher.
    """
    of_both = sorted(set(rates(losses, arm)) & set(rates(losses, "none")))
    best = sorted(of_both.index(best_rate(losses, name)) for name in ("none", arm))
    return pooled(losses, arm, of_both[max(best[0] - 1, 0) : best[1] + 2])


def pooled(losses: Losses, arm: str, near: Sequence[float]) -> tuple[float, int]:
    """Returns the deviation of pairs within some rates, and its degrees of freedom."""
    differences = [paired(losses, arm, rate) for rate in near]
    freedom = sum(len(values) - 1 for values in differences)
    squares = sum(((values - values.mean()) ** 2).sum() for values in differences)
    return float(np.sqrt(squares / freedom)), freedom


def resolvable(deviation: float, pairs: int, power: float = 0.8) -> float:
    """Returns the smallest mean difference that a paired t-test can show.

    Args:
      deviation: the standard deviation of the paired differences.
      pairs: the number of pairs.
      power: the probability of showing it with its sign, at level 0.05, two-sided.
    """
    from scipy import optimize, stats

    critical = stats.t.ppf(0.975, pairs - 1)

    def excess(effect: float) -> float:
        shift = effect * np.sqrt(pairs)
        return stats.nct.sf(critical, pairs - 1, shift) - power

    return deviation * float(optimize.brentq(excess, 1e-3, 5))


def sensitivity(losses: Losses, arm: str) -> float:
    """Returns an arm's mean loss over its rates, minus the loss at the best rate."""
    values = means(losses, arm)
    return float(values.mean() - values.min())


def width(losses: Losses, arm: str, margin: float) -> float:
    """Returns the ratio of the largest to the smallest rate within the margin."""
    values = means(losses, arm)
    near = np.array(rates(losses, arm))[values <= values.min() + margin]
    return float(near.max() / near.min())


def sensitivities(losses: Losses, arm: str) -> list[float]:
    """Returns an arm's sensitivity minus that of `none`, for each seed."""
    seeds = sorted(losses["none", rates(losses, "none")[0]])
    return [
        sensitivity(alone, arm) - sensitivity(alone, "none")
        for alone in (of_seed(losses, seed) for seed in seeds)
    ]


def of_seed(losses: Losses, seed: int) -> Losses:
    """Returns the losses of one seed."""
    return {key: {seed: by_seed[seed]} for key, by_seed in losses.items()}
