"""The predictions on where GC acts: arms that centralize different kernels."""

import dataclasses
import pathlib
from collections.abc import Iterator

from train.record.statistics import (
    Run,
    at_end,
    by_arm,
    gathered_runs,
    markdown_table,
    paired_differences,
)
from train.study.confirm import Difference, confirmed, stated
from train.study.tasks import TASKS

PART = "mechanism"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The plan's prediction about two arms at the same rate.

    Attributes:
      name: its name in the plan's table.
      task: the task's name.
      text: the arms in words.
      arm: the arm in question, in the folder `mechanism/TASK`.
      baseline: the other arm, among the confirming runs.
      equal: whether they should be equal; None if nothing is predicted.
      folder: the folder of both arms, if it is another one.
    """

    name: str
    task: str
    text: str
    arm: str
    baseline: str
    equal: bool | None
    folder: str | None = None


PREDICTIONS = (
    Prediction(
        "M1", "shakespeare", "GC only on the kernels after a LayerNorm, and none",
        "only-norm", "none", True,
    ),
    Prediction(
        "M2", "shakespeare", "GC on all kernels but those, and on all",
        "not-norm", "gradient", True,
    ),
    Prediction(
        "M3", "shakespeare", "RMSNorm instead of LayerNorm: GC, and none",
        "gradient", "none", None, "shakespeare-rms",
    ),
    *(
        Prediction(
            "M4", task, "GC only on the first convolution and the head, and on all",
            "only-ends", "gradient", None,
        )
        for task in ("fashion", "horses-sgd", "horses-rmsprop")
    ),
    *(
        Prediction(
            "M5", task.name, "a random direction instead of the mean, and none",
            "placebo", "none", True,
        )
        for task in TASKS
    ),
)  # fmt: skip


def pair_of(root: pathlib.Path, prediction: Prediction) -> Difference | None:
    """Returns a prediction's paired differences; None if its runs do not exist."""
    task = next(task for task in TASKS if task.name == prediction.task)
    if prediction.folder:
        runs = theirs = gathered_runs(root / PART, prediction.folder)
    else:
        runs, theirs = confirmed(root, task, PART), confirmed(root, task)
    ours, others = by_arm(runs), by_arm(theirs)
    if prediction.arm not in ours or prediction.baseline not in others:
        return None
    values = paired_differences(
        same_rate(ours[prediction.arm], others[prediction.baseline], prediction),
        others[prediction.baseline],
        at_end(task.chosen_by),
    )
    return Difference(task, prediction.arm, prediction.baseline, values)


def same_rate(ours: list[Run], theirs: list[Run], prediction: Prediction) -> list[Run]:
    """Returns our runs, after checking that they ran at the other arm's rate.

    RMSNorm's arms are not at the same rate: each is at its own.
    """
    if prediction.folder is None and {run.rate for run in ours} != {
        run.rate for run in theirs
    }:
        raise ValueError(f"{prediction.name} of {prediction.task}: the rates differ.")
    return ours


def answer(found: Difference) -> str:
    """Returns the plan's verdict: equal, different, both or not settled."""
    low, high = found.interval
    said = []
    if low > 0 or high < 0:
        said.append("different")
    if -found.task.margin < low and high < found.task.margin:
        said.append("equal within the margin")
    return ", ".join(said) or "not settled"


def verdict(prediction: Prediction, found: Difference) -> str:
    """Returns whether it came as predicted."""
    if prediction.equal is None:
        return "none was made"
    said = answer(found)
    if "equal" in said:
        return "holds"
    return "fails" if said == "different" else "-"


def mechanism_text(root: pathlib.Path) -> Iterator[str]:
    """Yields the section on the predictions whose runs exist."""
    pairs = [(one, pair_of(root, one)) for one in PREDICTIONS]
    rows = [
        [
            one.name, one.task, one.text, str(len(found.values)), stated(found),
            f"{found.task.margin:g}", answer(found), verdict(one, found),
        ]
        for one, found in pairs
        if found is not None
    ]  # fmt: skip
    if not rows:
        return
    yield "### Where it acts"
    left = [f"{one.name} ({one.task})" for one, found in pairs if found is None]
    missing = f" Not run: {', '.join(left)}." if left else ""
    yield (
        "Validation loss at the last step (for horses, on the fold's held-out images), "
        f"the first of two arms minus the second.{missing}"
    )
    header = [
        "", "task", "arms", "pairs", "difference", "margin", "answer", "prediction",
    ]  # fmt: skip
    yield markdown_table(header, rows)
