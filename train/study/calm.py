"""The horses over more than their last epoch, computed after the plan."""

import pathlib
from collections.abc import Iterator

import numpy as np

from train.record.statistics import (
    Run,
    by_arm,
    by_rate,
    last_epochs,
    markdown_table,
)
from train.study.confirm import Difference, confirmed, difference, stated
from train.study.tasks import TASKS, StudyTask

EPOCHS = 5  # the last epochs, whose mean is calmer than the last one
COUNTS = (1, 2, 3, 5)


def of_folds(values: np.ndarray) -> np.ndarray:
    """Returns the mean difference of each fold, whose two seeds are adjacent."""
    return values.reshape(-1, 2).mean(1)


def best_rate(runs: list[Run], count: int) -> float:
    """Returns the rate with the lowest mean held-out loss over the last epochs."""
    outcome = last_epochs("test_loss", count)
    means = {
        rate: np.mean([outcome(run) for run in at_rate])
        for rate, at_rate in by_rate(runs).items()
    }
    return min(means, key=means.__getitem__)


def calm_text(root: pathlib.Path) -> Iterator[str]:
    """Yields the section on the horses' last epochs."""
    tasks = [task for task in TASKS if task.name.startswith("horses")]
    yield "### The horses over more than their last epoch"
    yield (
        "This was not planned, but computed when all results were known. At a constant "
        "rate the loss swings from epoch to epoch, so the mean of several epochs says "
        "more than the last one. The rate of each arm with the lowest held-out loss in "
        "the sweep (fold 0, two seeds), by the mean of the last epochs:"
    )
    counts = [f"last {count}" for count in COUNTS]
    rows = [
        [task.title, arm, *(f"{best_rate(runs, count):g}" for count in COUNTS)]
        for task in tasks
        for arm, runs in by_arm(confirmed(root, task, "sweep")).items()
    ]
    yield markdown_table(["task", "arm", *counts], rows)
    yield (
        "The confirming runs at the chosen rates, GC minus `none`, by the mean of the "
        "last epochs, with the 95 % interval over pairs and over folds:"
    )
    header = ["task", "metric", "epochs", "over 8 pairs", "over 4 folds"]
    yield markdown_table(
        header, [row for task in tasks for row in difference_rows(root, task)]
    )


def difference_rows(root: pathlib.Path, task: StudyTask) -> Iterator[list[str]]:
    """Yields a row for each metric and number of last epochs."""
    for metric in ("train_loss", "test_loss", "test_accuracy"):
        for count in COUNTS:
            found = averaged(root, task, metric, count)
            folds = Difference(task, found.arm, found.baseline, of_folds(found.values))
            name = metric.replace("_", " ").replace("train ", "training ")
            yield [task.title, name, f"last {count}", stated(found), stated(folds)]


def averaged(
    root: pathlib.Path, task: StudyTask, metric: str, count: int
) -> Difference:
    """Returns GC's differences in a metric's mean over the last epochs."""
    outcome = last_epochs(metric, count)
    return difference(task, confirmed(root, task), "gradient", outcome)
