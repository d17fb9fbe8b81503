"""The page of the study, made from its records."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from train.record.statistics import markdown_table
from train.study.limits import cost, curvature, known, outcome, predictions
from train.study.limits.arms import WARMUP
from train.study.limits.comparisons import (
    Comparison,
    Point,
    beside_muon,
    comparisons,
    family,
    held_out_text,
    prediction_points,
    primary_p,
    times,
)
from train.study.limits.order import Plan
from train.study.limits.search import Entry
from train.study.limits.store import Store
from train.study.page import rates_of
from train.study.race import races

PICTURE = """<picture>
  <source media="(prefers-color-scheme: dark)" srcset="gain-dark.png">
  <img src="gain.png" width="440" alt="Steps that GC needs over the ratio of sharpness">
</picture>"""


def line(entry: Entry, record: dict[str, Any]) -> str:
    """Returns what a reader is told of an arm as it is run."""
    budget = entry.steps // entry.problem.steps
    loss = np.exp(np.log(outcome.finals(record)).mean())
    return (
        f"{entry.problem.name:14} {entry.optimizer:5} x{budget} {entry.arm:14} "
        f"rate {record['rate']:<10.4g} loss {loss:.4g}"
    )


def page(store: Store, plan: Plan, out: pathlib.Path) -> str:
    """Returns the page: what was found, the comparisons, the prediction."""
    found = list(comparisons(store, plan))
    points, is_planned = prediction_points(store, found), (out / "PLAN.md").exists()
    parts = [
        "# Networks that training limits: what Gradient Centralization gains",
        ("[The plan](PLAN.md) was committed before the first run. " * is_planned)
        + "All below is made from `runs.jsonl` by `python -m train.study.limits "
        "results/limits`, which also makes what is missing there.",
        *(path.read_text().strip() for path in out.glob("FINDING.md")),
        PICTURE,
        *primary_text(found, family(plan)),
        *sharpness_text(store, points),
        *prediction_text(found, points),
        *known_text(store, out.parent),
        *other_text(store, found),
        *muon_text(list(beside_muon(store, plan))),
    ]
    return "\n\n".join(parts) + "\n"


def primary_text(found: Sequence[Comparison], family: int) -> Iterator[str]:
    """Yields the table of the primary comparisons."""
    p_values = primary_p(found, family)
    yield "## GC on the gradient, and none"
    yield (
        "Final training loss and steps to the loss of tuned `none`, as factors: below "
        "1 GC is better. Means of ten seeds with 95 % intervals; the t-test's p, by "
        f"Holm for the {family} that were planned, with the sign-flip p beside it, "
        "uncorrected."
    )
    rows = [
        [
            found[i].problem.title, found[i].optimizer, str(found[i].budget),
            "{:.3g} and {:.3g}".format(*found[i].rates),
            times(found[i].train), f"{p:.2g} ({found[i].train.p:.2g})",
            found[i].train.answer(p),
            times(found[i].steps), f"{q:.2g} ({found[i].steps.p:.2g})",
            found[i].steps.answer(q), held_out_text(found[i]),
        ]
        for i, (p, q) in p_values.items()
    ]  # fmt: skip
    header = [
        "network", "optimizer", "budget", "rates, GC and none", "training loss", "p",
        "answer", "steps", "p", "answer", "held out",
    ]  # fmt: skip
    yield markdown_table(header, rows)


def other_text(store: Store, found: Sequence[Comparison]) -> Iterator[str]:
    """Yields the table of the other arms, which no family of tests holds."""
    yield "## The other arms, and none"
    yield (
        "Secondary: no p-value is corrected, and none is given. Seconds are those to "
        "the same loss: steps times what a step costs, timed in turn with `none`."
    )
    rows = [
        [
            one.problem.title, one.optimizer, str(one.budget), one.arm,
            "{:.3g} and {:.3g}".format(*one.rates), times(one.train), times(one.steps),
            seconds(store, one), held_out_text(one),
        ]
        for one in found
        if one.arm != "gradient"
    ]  # fmt: skip
    header = [
        "network", "optimizer", "budget", "arm", "rates", "training loss", "steps",
        "seconds", "held out",
    ]  # fmt: skip
    yield markdown_table(header, rows)


def muon_text(found: Sequence[Comparison]) -> Iterator[str]:
    """Yields the table of GC in front of Muon beside Muon alone."""
    if not found:
        return
    yield "## GC in front of Muon, and Muon alone"
    yield "Secondary too. Steps are those to the loss at which tuned Muon ends."
    rows = [
        [
            one.problem.title, str(one.budget), "{:.3g} and {:.3g}".format(*one.rates),
            times(one.train), times(one.steps), held_out_text(one),
        ]
        for one in found
    ]  # fmt: skip
    header = ["network", "budget", "rates", "training loss", "steps", "held out"]
    yield markdown_table(header, rows)


def seconds(store: Store, one: Comparison) -> str:
    """Returns an arm's seconds to the loss of `none`, as a factor, if timed."""
    step = cost.ratio(store, one.problem, one.optimizer, one.arm)
    return "-" if step is None else f"{np.exp(one.steps.mean) * step:.3f}"


def known_text(store: Store, root: pathlib.Path) -> Iterator[str]:
    """Yields the tables of the first study's networks.

    Args:
      store: the records.
      root: the folder of the first study.
    """
    records = store.part(known.PART)
    if not records or not (root / "choice.json").exists():
        return
    rates = rates_of(json.loads((root / "choice.json").read_text()))
    early = {
        record["problem"]: record["ratio"]
        for record in records
        if (record["arm"], record["steps"]) == ("none", WARMUP)
    }
    yield "## The first study's networks"
    yield (
        "The ratio after 5 % of the steps of tuned `none`, and the ratio of steps that "
        "[that study](../README.md) found. They are not in the correlation."
    )
    rows = [
        [one.task.title, one.arm, f"{early[one.task.name]:.2f}", one.stated]
        for one in races(root, rates)
        if one.task.name in early
    ]
    yield markdown_table(["network", "arm", "ratio", "steps"], rows)
    yield (
        "Along a run of seed 0: the largest eigenvalue of the Hessian, that with GC, "
        "and their ratio, after a share of the steps."
    )
    along = [
        [
            record["problem"], record["arm"], f"{record['steps']:.0%}",
            f"{record['plain']:.3g}", f"{record['centralized']:.3g}",
            f"{record['ratio']:.2f}",
        ]
        for record in records
    ]  # fmt: skip
    header = ["network", "run of", "after", "sharpness", "with GC", "ratio"]
    yield markdown_table(header, along)


def sharpness_text(store: Store, points: Sequence[Point]) -> Iterator[str]:
    """Yields the table of sharpness and gain, and their rank correlation."""
    yield "## Told beforehand?"
    yield (
        "The ratio of the largest eigenvalue of the loss's Hessian to that on what "
        "centralizing leaves (`optax_gc.sharpness`), along tuned `none` after 5 % of "
        "the steps and at the start, and the gain in steps of GC at budget 1."
    )
    rows = [
        [
            point.comparison.problem.title, point.comparison.optimizer,
            f"{point.early:.2f}", f"{point.start:.2f}", times(point.comparison.steps),
            times(point.update.steps) if point.update else "-",
        ]
        for point in sorted(points, key=lambda point: point.early)
    ]  # fmt: skip
    header = [
        "network", "optimizer", "ratio", "at the start", "steps", "GC on the update",
    ]  # fmt: skip
    yield markdown_table(header, rows)
    products = [
        sum(pair)
        for record in store.part(curvature.EARLY)
        for pair in record["products"]
    ]
    if products:
        yield (
            f"A ratio took {min(products)} to {max(products)} products of the Hessian "
            "with a vector, to 2 %."
        )
    if len(points) >= predictions.FEWEST:
        value, (low, high) = predictions.correlation(points, "start")
        yield (
            "Spearman's rank correlation of the gain with the ratio at the start: "
            f"{value:.2f} [{low:.2f}, {high:.2f}], {len(points)} pairs."
        )


def prediction_text(
    found: Sequence[Comparison], points: Sequence[Point]
) -> Iterator[str]:
    """Yields the table of the plan's predictions."""
    yield "## The plan's predictions"
    yield (
        "A prediction holds, or fails, if the whole 95 % interval says so, for S2, S3 "
        "and S5 in every pair; else it is open."
    )
    rows = [list(one) for one in predictions.verdicts(found, points)]
    yield markdown_table(["name", "predicted", "found", "verdict"], rows)
