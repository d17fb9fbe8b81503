"""What many runs show together: their records, paired differences and tables."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from train.record import archive
from train.record.metrics import Metric, metrics_in

CONFIDENCE = 0.95
ARMS = ("none", "gradient", "update", "placebo", "first", "then-none", "then-gc")


@dataclasses.dataclass(frozen=True)
class Run:
    """The record of one run, read back.

    `epochs` and `diagnostics` have one entry per epoch, `evaluations` one for each that
    was requested. The entries have the same names as in the files.
    """

    arm: str
    rate: float
    seed: int
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    diagnostics: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]] = ()


Outcome = Callable[[Run], float]  # the value by which a pair of runs is compared


def read_runs(folder: pathlib.Path) -> list[Run]:
    """Returns the finished runs in the folders of a comparison, in order."""
    paths = [path.parent for path in folder.glob("*-seed*/summary.json")]
    return in_order(read_run(path) for path in paths)


def gathered_runs(folder: pathlib.Path, comparison: str) -> list[Run]:
    """Returns the finished runs of a comparison from a folder's gathered records.

    Args:
      folder: the folder whose runs `train.record.archive` has gathered.
      comparison: the folder under it that `train.compare` wrote.
    """
    return in_order(
        run_of(name, record)
        for name, record in archive.read_archive(folder, comparison).items()
        if is_finished(record)
    )


def in_order(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (arm_order(run.arm), run.rate, run.seed))


def is_finished(record: archive.Record) -> bool:
    """Tells whether a run finished; one that diverged did not."""
    return "summary.json" in record


def read_run(path: pathlib.Path) -> Run:
    """Returns the finished run in a folder."""
    return run_of(path.name, archive.read_folder(path))


def run_of(name: str, record: archive.Record) -> Run:
    """Returns the finished run called `ARM-seedN` or `ARM-lrR-seedN`."""
    name = pathlib.PurePath(name).name
    arm, seed = re.fullmatch(r"(.+?)(?:-lr.+)?-seed(\d+)", name).groups()
    config, summary = record["config.json"], record["summary.json"]
    lines = (
        record.get(f"{name}.jsonl", [])
        for name in ("metrics", "diagnostics", "evaluations")
    )
    rate = config["config"]["learning_rate"]
    return Run(arm, rate, int(seed), config, summary, *lines)


def measured(runs: Sequence[Run]) -> dict[str, Metric]:
    """Returns the metrics that all runs have; without evaluation, only half of them."""
    first = runs[0].summary if runs else {}
    names = [n for n in first if all(run.summary.get(n) is not None for run in runs)]
    return metrics_in(names)


def headings(runs: Sequence[Run]) -> list[str]:
    """Returns a table's headings for the metrics that all runs have."""
    return [metric.long for metric in measured(runs).values()]


def arm_order(arm: str) -> tuple[int, str]:
    """Returns the sort key of an arm; the arms of subsets come last."""
    return (ARMS.index(arm) if arm in ARMS else len(ARMS)), arm


def by_arm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return arms


def final(runs: Sequence[Run], metric: str) -> np.ndarray:
    """Returns each run's last value of a metric, `(runs,)` in float64."""
    return np.array([run.summary[metric] for run in runs], np.float64)


def at_end(metric: str) -> Outcome:
    """Returns the outcome that gives a metric's last value."""
    return lambda run: run.summary[metric]


def last_epochs(metric: str, count: int) -> Outcome:
    """Returns the outcome that gives a metric's mean over the last epochs."""
    return lambda run: float(np.mean([line[metric] for line in run.epochs[-count:]]))


def paired_differences(
    runs: Sequence[Run], baseline: Sequence[Run], outcome: Outcome
) -> np.ndarray:
    """Returns run minus baseline for each seed that both have, in ascending order."""
    ours, theirs = ({run.seed: outcome(run) for run in arm} for arm in (runs, baseline))
    seeds = sorted(ours.keys() & theirs.keys())
    return np.array([ours[seed] - theirs[seed] for seed in seeds], np.float64)


def confidence_interval(differences: np.ndarray) -> tuple[float, float]:
    """Returns the two-sided 95 % t-interval of the mean of paired differences.

    Its ends are NaN for fewer than two differences.
    """
    from scipy import stats

    if len(differences) < 2:
        return (float("nan"), float("nan"))
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def spread(values: np.ndarray, digits: int = 4) -> str:
    """Returns the mean and the sample standard deviation, or the only value."""
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arms_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows of each arm's final metrics and times per epoch."""
    header = ["arm", "n", *headings(runs), "seconds an epoch, least", "median"]
    rows = []
    for arm, members in by_arm(runs).items():
        seconds = np.array([e["epoch_seconds"] for run in members for e in run.epochs])
        metrics = [
            spread(final(members, name), metric.digits)
            for name, metric in measured(runs).items()
        ]
        times = [f"{seconds.min():.1f}", f"{np.median(seconds):.1f}"]
        rows.append([arm, str(len(members)), *metrics, *times])
    return header, rows


def differences_table(
    runs: Sequence[Run], baseline: str
) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows of each arm's paired differences to the baseline."""
    header = ["arm", "metric", "n", "mean difference", "95 % interval", "each seed"]
    arms = by_arm(runs)
    others = [arm for arm in arms if arm != baseline] if baseline in arms else []
    rows = []
    for arm in others:
        for name, metric in measured(runs).items():
            values = paired_differences(arms[arm], arms[baseline], at_end(name))
            mean, low, high, *each = (
                metric.number(value, "+")
                for value in (values.mean(), *confidence_interval(values), *values)
            )
            rows.append(
                [
                    f"{arm} - {baseline}", metric.long, str(len(values)), mean,
                    f"[{low}, {high}]" if len(values) > 1 else "-", ", ".join(each),
                ]
            )  # fmt: skip
    return header, rows


def raw_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows of the final metrics of every run."""
    header = ["arm", "seed", *headings(runs), "training seconds"]
    rows = []
    for run in runs:
        metrics = [
            metric.number(run.summary[name]) for name, metric in measured(runs).items()
        ]
        seconds = f"{run.summary['total_seconds']:.0f}"
        rows.append([run.arm, str(run.seed), *metrics, seconds])
    return header, rows


def chosen_by(runs: Sequence[Run]) -> str:
    """Returns the metric by which a rate is chosen; never one of the test split."""
    return "validation_loss" if "validation_loss" in measured(runs) else "train_loss"


def by_rate(runs: Iterable[Run]) -> dict[float, list[Run]]:
    rates: dict[float, list[Run]] = {}
    for run in runs:
        rates.setdefault(run.rate, []).append(run)
    return dict(sorted(rates.items()))


def rates_table(runs: Sequence[Run], metric: str) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows of each arm's metric at each rate, with counts."""
    arms, digits = by_arm(runs), measured(runs)[metric].digits
    rows = []
    for rate in by_rate(runs):
        cells = []
        for members in arms.values():
            at_rate = [run for run in members if run.rate == rate]
            cell = f"{spread(final(at_rate, metric), digits)} (n = {len(at_rate)})"
            cells.append(cell if at_rate else "-")
        rows.append([f"{rate:g}", *cells])
    return ["learning rate", *arms], rows


def at_best_rates(runs: Sequence[Run], metric: str) -> list[Run]:
    """Returns each arm's runs at the rate with its lowest mean of a metric.

    Only the rates with the most seeds of the arm are considered.
    """
    best = []
    for members in by_arm(runs).values():
        rates = by_rate(members).values()
        most = max(map(len, rates))
        whole = [at_rate for at_rate in rates if len(at_rate) == most]
        best += min(whole, key=lambda at_rate: final(at_rate, metric).mean())
    return best
