"""The study's page as Markdown."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from train.record.statistics import (
    Run,
    arms_table,
    at_end,
    by_arm,
    markdown_table,
    measured,
    raw_table,
)
from train.study import confirm, sweep
from train.study.calm import calm_text
from train.study.choose import resolution_text
from train.study.confirm import Difference
from train.study.control import control_text
from train.study.floor import floor_text
from train.study.mechanism import mechanism_text
from train.study.race import Race, races
from train.study.seconds import seconds_text
from train.study.tasks import TASKS, StudyTask

EVERY = ("train_loss", "validation_loss")
TEST = ("test_loss", "test_accuracy")
FAMILY = sum(len(task.arms) for task in TASKS)
PICTURES = (
    "![Paired differences of all comparisons, in units of their margin](study.png)",
    "![Loss of every run of the sweep over the learning rate](sweep.png)",
)


def page(root: pathlib.Path) -> str:
    """Returns the page: what was found, then each part from its records."""
    choices = json.loads((root / "choice.json").read_text())
    found = confirm.primary(root)
    parts = [
        "# Tuned against tuned: does Gradient Centralization help?",
        "[The plan](PLAN.md) was committed before the first run. Everything under "
        '"Every number" is made from the records in this folder by '
        "`python -m train.study results`, and the records by "
        "[these commands](COMMANDS.md). "
        "An earlier, smaller study is in [first/](first/README.md).",
        PICTURES[0],
        *(path.read_text().strip() for path in root.glob("FINDING.md")),
        "## Every number",
        *primary_text(found),
        *races_text(races(root, rates_of(choices))),
        "### The sweep",
        PICTURES[1],
    ]
    for task in TASKS:
        losses = sweep.read_sweep(root, task)
        if sweep.is_whole(losses, task):
            parts += task_text(root, task, losses, choices.get(task.name))
    for text in (calm_text, control_text, floor_text, mechanism_text):
        parts += text(root)
    return "\n\n".join(parts) + "\n"


def primary_text(found: Sequence[Difference]) -> Iterator[str]:
    """Yields the table of the primary comparisons."""
    yield "### The primary comparisons"
    yield (
        "Test loss at the last step, arm minus `none`, each arm at its own rate. "
        f"{len(found)} of the {FAMILY} planned comparisons are made; the p-values are "
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


def rates_of(choices: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Returns the chosen rates by task and arm."""
    return {name: choice["rates"] for name, choice in choices.items()}


def races_text(found: Sequence[Race]) -> Iterator[str]:
    """Yields the table of steps to the target."""
    yield "### Steps to the target"
    yield (
        "The target is the mean loss at which `none` ended in the sweep: validation "
        "loss, or training loss for the horses. The ratio is that of the steps to the "
        "target, arm over `none`, with its 95 % interval; p is from the sign-flip "
        f"test, corrected for all {FAMILY}. Pairs counts those in which the arm was "
        "sooner, later or level."
    )
    corrected = confirm.holm([one.p for one in found], FAMILY)
    rows = [
        [
            one.task.title, one.arm, f"{one.target:.4f}",
            "{} and {} of {}".format(*one.reached, len(one.ours)), one.pairs,
            one.stated, f"{one.p:.2g}" if one.is_run else "-",
            f"{p:.2g}" if one.is_run else "-", one.answer(p),
        ]
        for one, p in zip(found, corrected, strict=True)
    ]  # fmt: skip
    header = [
        "task", "arm", "target", "it and `none` reach it", "pairs", "ratio", "p, alone",
        "p, Holm", "answer",
    ]  # fmt: skip
    yield markdown_table(header, rows)


def task_text(
    root: pathlib.Path, task: StudyTask, losses: sweep.Losses, choice: dict | None
) -> Iterator[str]:
    """Yields a task's section: its sweep, choice, confirming runs and the rest."""
    yield f"### {task.title}"
    yield from sweep_text(task, losses)
    if choice is None:
        yield "The rates have not been chosen yet."
        return
    rates = ", ".join(f"{rate:g} (`{arm}`)" for arm, rate in choice["rates"].items())
    yield f"Chosen, and committed before the confirming runs: {rates}."
    yield " ".join(resolution_text(losses, task, arm) for arm in task.arms)
    if runs := confirm.confirmed(root, task):
        yield from confirmed_text(task, runs)
        yield from seconds_text(root, task)
    if half := confirm.confirmed(root, task, "half"):
        yield "Half the budget, test loss and accuracy:"
        yield differences_table(task, half, ["gradient"], TEST)


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
        each = [f"{value:+.4f}" for value in sweep.sensitivities(losses, arm)]
        width = f"{sweep.width(losses, arm, task.margin):g}"
        minus = "-" if arm == "none" else ", ".join(each)
        rows.append([arm, f"{sweep.sensitivity(losses, arm):.4f}", minus, width])
    yield (
        "Sensitivity to the rate: the mean over the rates minus the best; for each "
        "seed, that minus that of `none`; the largest over the smallest rate within "
        "the margin of the "
        "best:"
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
    yield differences_table(task, runs, arms, [*EVERY, *TEST])
    header, rows = raw_table(runs)
    yield "Every run:"
    yield markdown_table(header[:-1], [row[:-1] for row in rows])


def differences_table(
    task: StudyTask, runs: Sequence[Run], arms: Sequence[str], metrics: Sequence[str]
) -> str:
    """Returns the table of the arms' differences in the metrics that all runs have."""
    rows = []
    for arm in arms:
        for metric in filter(measured(runs).__contains__, metrics):
            found = confirm.difference(task, runs, arm, at_end(metric))
            every = ", ".join(f"{value:+.4f}" for value in found.values)
            name = metric.replace("_", " ").replace("train ", "training ")
            pairs = str(len(found.values))
            rows.append(
                [arm, name, pairs, confirm.stated(found), f"{found.p:.2g}", every]
            )
    header = ["arm", "metric", "pairs", "mean difference", "p, alone", "each pair"]
    return markdown_table(header, rows)
