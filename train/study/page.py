"""The study's page as Markdown."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from train.record.statistics import (
    Run,
    arms_table,
    by_arm,
    markdown_table,
    raw_table,
)
from train.study import confirm, sweep
from train.study.choose import resolution_text
from train.study.confirm import Difference
from train.study.mechanism import mechanism_text
from train.study.seconds import seconds_text
from train.study.tasks import TASKS, StudyTask

FAMILY = sum(len(task.arms) for task in TASKS)
PICTURE = "![Loss over learning rate of each arm, and paired differences](study.png)"


def page(root: pathlib.Path) -> str:
    """Returns the page: what was found, then each part from its records."""
    choices = json.loads((root / "choice.json").read_text())
    found = confirm.primary(root)
    parts = [
        "# Tuned against tuned: does Gradient Centralization help?",
        "[The plan](PLAN.md) was committed before the first run. All "
        'below "Every number" is made from the records in this folder by '
        "`python -m train.study results`, and these by [these commands](COMMANDS.md). "
        "An earlier, smaller study is in [first/](first/README.md).",
        PICTURE,
        *(path.read_text().strip() for path in root.glob("FINDING.md")),
        "## Every number",
        *primary_text(found),
    ]
    for task in TASKS:
        losses = sweep.read_sweep(root, task)
        if sweep.is_whole(losses, task):
            parts += task_text(root, task, losses, choices.get(task.name))
    parts += mechanism_text(root)
    return "\n\n".join(parts) + "\n"


def primary_text(found: Sequence[Difference]) -> Iterator[str]:
    """Yields the table of the primary comparisons."""
    yield "### The primary comparisons"
    yield (
        "Test loss at the last step, each arm at its own rate, arm minus `none`. "
        f"{len(found)} of the {FAMILY} that were planned are made; the p-values are "
        f"corrected for all {FAMILY}."
    )
    corrected = confirm.holm([one.p for one in found], FAMILY)
    rows = [
        [
            one.task.title,
            one.arm,
            str(len(one.values)),
            confirm.stated(one),
            f"{p:.2g}",
            f"{one.task.margin:g}",
            one.answer(p),
        ]
        for one, p in zip(found, corrected, strict=True)
    ]
    header = ["task", "arm", "pairs", "difference", "p, Holm", "margin", "answer"]
    yield markdown_table(header, rows)


def task_text(
    root: pathlib.Path, task: StudyTask, losses: sweep.Losses, choice: dict | None
) -> Iterator[str]:
    """Yields a task's section: its sweep, choice, confirming runs, race and rest."""
    yield f"### {task.title}"
    yield from sweep_text(task, losses)
    if choice is None:
        yield "The rates are not chosen yet."
        return
    rates = ", ".join(f"{rate:g} (`{arm}`)" for arm, rate in choice["rates"].items())
    yield f"Chosen, and committed before the confirming runs: {rates}."
    yield " ".join(resolution_text(losses, task, arm) for arm in task.arms)
    runs = confirm.confirmed(root, task)
    if runs:
        yield from confirmed_text(task, runs)
        goal = confirm.target(root, task, choice["rates"]["none"])
        yield from race_text(task, runs, goal)
        yield from seconds_text(root, task, runs, goal)
    half = confirm.confirmed(root, task, "half")
    if half:
        yield "Half the budget, test loss and accuracy:"
        yield differences_table(task, half, ["gradient"])


def sweep_text(task: StudyTask, losses: sweep.Losses) -> Iterator[str]:
    """Yields the sweep's table, and the arms' sensitivity to the rate."""
    arms = ("none", *task.arms)
    rows = [
        [f"{rate:g}"]
        + [
            ", ".join(f"{loss:.4f}" for loss in losses[arm, rate].values())
            for arm in arms
        ]
        for rate in sweep.rates(losses, "none")
    ]
    yield f"Sweep, {task.chosen_by.replace('_', ' ')} at the last step, each seed:"
    yield markdown_table(["learning rate", *arms], rows)
    rows = []
    for arm in arms:
        interval = "-"
        if arm != "none":
            low, high = sweep.sensitivity_interval(losses, arm)
            interval = f"[{low:+.4f}, {high:+.4f}]"
        width = f"{sweep.width(losses, arm, task.margin):g}"
        rows.append([arm, f"{sweep.sensitivity(losses, arm):.4f}", interval, width])
    yield (
        "Sensitivity to the rate: mean over the rates less the best; its difference to "
        "`none`, by bootstrap over the seeds; largest over smallest rate within the "
        "margin of the best:"
    )
    yield markdown_table(["arm", "sensitivity", "minus `none`", "range"], rows)


def confirmed_text(task: StudyTask, runs: Sequence[Run]) -> Iterator[str]:
    """Yields the tables of the confirming runs."""
    header, rows = arms_table(runs)
    times = [
        i for i, name in enumerate(header) if "seconds" in name or name == "median"
    ]
    kept = [i for i in range(len(header)) if i not in times]
    yield "Confirming runs, mean ± standard deviation over fresh seeds:"
    yield markdown_table(
        [header[i] for i in kept], [[row[i] for i in kept] for row in rows]
    )
    arms = [arm for arm in task.arms if arm in by_arm(runs)]
    yield "Paired differences, with the 95 % t-interval of their mean:"
    yield differences_table(task, runs, arms)
    header, rows = raw_table(runs)
    yield "Every run:"
    yield markdown_table(header[:-1], [row[:-1] for row in rows])


def differences_table(task: StudyTask, runs: Sequence[Run], arms: Sequence[str]) -> str:
    """Returns the table of the arms' differences in test loss and accuracy."""
    rows = []
    for arm in arms:
        for metric in ("test_loss", "test_accuracy"):
            found = confirm.difference(task, runs, arm, metric)
            every = ", ".join(f"{value:+.4f}" for value in found.values)
            name = metric.replace("_", " ")
            rows.append(
                [
                    arm,
                    name,
                    str(len(found.values)),
                    confirm.stated(found),
                    f"{found.p:.2g}",
                    every,
                ]
            )
    header = ["arm", "metric", "pairs", "mean difference", "p, alone", "each pair"]
    return markdown_table(header, rows)


def race_text(task: StudyTask, runs: Sequence[Run], goal: float) -> Iterator[str]:
    """Yields the table of steps to the target."""
    unit = "steps" if any(run.evaluations for run in runs) else "epochs"
    yield (
        f"{unit.capitalize()} to the target, a {task.target.replace('_', ' ')} of "
        f"{goal:.4f} (the mean end of `none` in the sweep):"
    )
    rows = []
    for arm in task.arms:
        if arm not in by_arm(runs):
            continue
        race = confirm.race(task, runs, arm, goal)
        low, high = race.interval
        reached = "{} and {} of {}".format(*race.reached, len(race.ours))
        rows.append(
            [
                arm, f"{race.ours.mean():.0f}", f"{race.theirs.mean():.0f}", reached,
                f"{race.ratio:.3f} [{low:.3f}, {high:.3f}]", f"{race.sign_p:.2g}",
                race.answer,
            ]
        )  # fmt: skip
    header = [
        "arm", f"mean {unit}", "of `none`", "reached", "ratio", "p, sign test",
        "answer",
    ]  # fmt: skip
    yield markdown_table(header, rows)
