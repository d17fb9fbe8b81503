"""The page of the study, made from its records."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from train.record.statistics import markdown_table
from train.study import confirm
from train.study.limits import cost, curvature, known, outcome
from train.study.limits.arms import WARMUP
from train.study.limits.order import Plan, arms_of, chosen, pairs
from train.study.limits.outcome import Outcome
from train.study.limits.problems import Problem
from train.study.limits.search import Entry
from train.study.limits.store import Store
from train.study.page import rates_of
from train.study.race import races

FEWEST = 8  # pairs, of which a rank correlation and its bootstrap say something


class Comparison(NamedTuple):
    """An arm beside `none`, at a budget.

    Attributes:
      problem, optimizer, budget, arm: which.
      rates: the arm's best and that of `none`.
      train, steps, held_out: the outcomes.
      values: the held-out figures of the arm and of `none`, mean over seeds.
    """

    problem: Problem
    optimizer: str
    budget: int
    arm: str
    rates: tuple[float, float]
    train: Outcome
    steps: Outcome
    held_out: Outcome
    values: tuple[float, float]


def record_of(store: Store, entry: Entry) -> dict[str, Any] | None:
    """Returns the record of an arm's fresh seeds, None if they are not run."""
    rate = chosen(store, entry)
    return None if rate is None else store.get(entry.key("fresh", rate))


def comparisons(store: Store, plan: Plan) -> Iterator[Comparison]:
    """Yields each arm that is run beside `none`, in the order of the plan."""
    for problem, optimizer in pairs(plan):
        for budget in plan.budgets:
            steps = budget * problem.steps
            none, *others = [
                (arm, record_of(store, Entry(problem, optimizer, arm, steps)))
                for arm in arms_of(plan, problem, optimizer)
            ]
            for arm, record in others:
                if record and none[1]:
                    yield compared(problem, optimizer, budget, arm, record, none[1])


def compared(
    problem: Problem, optimizer: str, budget: int, arm: str, ours: dict, theirs: dict
) -> Comparison:
    """Returns the outcomes of an arm, from its record and that of `none`."""
    return Comparison(
        problem, optimizer, budget, arm, (ours["rate"], theirs["rate"]),
        outcome.train_loss(ours, theirs), outcome.steps(ours, theirs),
        outcome.held_out(ours, theirs, problem.unit),
        tuple(float(np.mean(record["judged"])) for record in (ours, theirs)),
    )  # fmt: skip


def primary_p(found: Sequence[Comparison]) -> dict[int, tuple[float, float]]:
    """Returns Holm's p of training loss and steps of each primary comparison.

    Args:
      found: all comparisons; those of GC on the gradient are primary.

    Returns:
      The two p-values by the comparison's place in `found`.
    """
    primary = [i for i, one in enumerate(found) if one.arm == "gradient"]
    p_values = [p for i in primary for p in (found[i].train.t_p, found[i].steps.t_p)]
    corrected = iter(confirm.holm(p_values, len(p_values)))
    return {i: (next(corrected), next(corrected)) for i in primary}


def times(found: Outcome) -> str:
    """Returns a mean logarithm as a factor, with its interval."""
    mean, low, high = map(factor, (found.mean, *found.interval))
    return f"{mean} [{low}, {high}]"


def factor(logarithm: float) -> str:
    """Returns a logarithm as a factor: with three decimals, or two digits if small."""
    value = np.exp(logarithm)
    return f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def held_out_text(one: Comparison) -> str:
    """Returns the held-out outcome: in dB, more is better, else as a factor."""
    if one.problem.unit.endswith("dB"):
        low, high = (-end for end in reversed(one.held_out.interval))
        return f"{-one.held_out.mean:+.2f} [{low:+.2f}, {high:+.2f}] dB"
    return times(one.held_out)


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
    found, is_planned = list(comparisons(store, plan)), (out / "PLAN.md").exists()
    parts = [
        "# Networks that training limits: what Gradient Centralization gains",
        ("[The plan](PLAN.md) was committed before the first run. " * is_planned)
        + "All below is made from `runs.jsonl` by `python -m train.study.limits "
        "results/limits`, which also makes what is missing there.",
        *(path.read_text().strip() for path in out.glob("FINDING.md")),
        "![Gain in steps over the ratio of sharpness](gain.png)",
        *primary_text(found),
        *prediction_text(store, found),
        *known_text(store, out.parent),
        *other_text(store, found),
    ]
    return "\n\n".join(parts) + "\n"


def primary_text(found: Sequence[Comparison]) -> Iterator[str]:
    """Yields the table of the primary comparisons."""
    p_values = primary_p(found)
    yield "## GC on the gradient, and none"
    yield (
        "Final training loss and steps to the loss of tuned `none`, as factors: below "
        "1 GC is better. Means of ten seeds with 95 % intervals; the t-test's p, by "
        f"Holm for {2 * len(p_values)}, with the sign-flip p beside it, uncorrected."
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


class Point(NamedTuple):
    """A pair in the prediction: its ratios of sharpness and its outcome in steps.

    Attributes:
      comparison: of GC on the gradient at the smaller budget.
      early, start: the ratios along `none`.
      update: the same comparison of GC on the update, if there is one.
    """

    comparison: Comparison
    early: float
    start: float
    update: Comparison | None


def prediction_points(store: Store, found: Sequence[Comparison]) -> list[Point]:
    """Returns the pairs whose sharpness is measured, at the smaller budget."""
    points = []
    smaller = {
        (one.problem.name, one.optimizer, one.arm): one
        for one in found
        if one.budget == 1
    }
    for (name, optimizer, arm), one in smaller.items():
        entry = Entry(one.problem, one.optimizer, "none", one.problem.steps)
        records = [
            store.get(entry.key(part, one.rates[1]))
            for part in (curvature.EARLY, curvature.START)
        ]
        if arm == "gradient" and all(records):
            update = smaller.get((name, optimizer, "update"))
            points.append(Point(one, *map(curvature.ratio, records), update))
    return points


def prediction_text(store: Store, found: Sequence[Comparison]) -> Iterator[str]:
    """Yields the table of sharpness and gain, and their rank correlation."""
    points = sorted(prediction_points(store, found), key=lambda point: point.early)
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
        ]
        for point in points
    ]  # fmt: skip
    yield markdown_table(
        ["network", "optimizer", "ratio", "at the start", "steps"], rows
    )
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
    if len(points) >= FEWEST:
        gains = np.array([-point.comparison.steps.mean for point in points])
        for name in ("early", "start"):
            ratios = np.array([getattr(point, name) for point in points])
            value, (low, high) = outcome.rank_correlation(ratios, gains)
            when = "after 5 % of the steps" if name == "early" else "at the start"
            yield (
                f"Spearman's rank correlation of the gain with the ratio {when}: "
                f"{value:.2f} [{low:.2f}, {high:.2f}], {len(points)} pairs."
            )
