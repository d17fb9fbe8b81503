"""What is compared: each arm with `none`, and the gain with the ratio of sharpness."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from train.study import confirm
from train.study.limits import curvature, outcome
from train.study.limits.order import Plan, arms_of, chosen, pairs
from train.study.limits.outcome import Outcome
from train.study.limits.problems import Problem
from train.study.limits.search import Entry
from train.study.limits.store import Store


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


def beside_muon(store: Store, plan: Plan) -> Iterator[Comparison]:
    """Yields Muon with GC in front beside Muon alone, in the order of the plan."""
    for problem, optimizer in pairs(plan):
        for budget in plan.budgets:
            ours, theirs = (
                record_of(store, Entry(problem, optimizer, arm, budget * problem.steps))
                for arm in ("muon-gradient", "muon")
            )
            if ours and theirs:
                yield compared(
                    problem, optimizer, budget, "muon-gradient", ours, theirs
                )


def compared(
    problem: Problem, optimizer: str, budget: int, arm: str, ours: dict, theirs: dict
) -> Comparison:
    """Returns the outcomes of an arm, from its record and that of another."""
    return Comparison(
        problem, optimizer, budget, arm, (ours["rate"], theirs["rate"]),
        outcome.train_loss(ours, theirs), outcome.steps(ours, theirs),
        outcome.held_out(ours, theirs, problem.unit),
        tuple(float(np.mean(record["judged"])) for record in (ours, theirs)),
    )  # fmt: skip


def family(plan: Plan) -> int:
    """Returns the number of primary comparisons that were planned, run or not."""
    return 2 * len(plan.budgets) * len(list(pairs(plan)))


def primary_p(
    found: Sequence[Comparison], family: int
) -> dict[int, tuple[float, float]]:
    """Returns Holm's p of training loss and steps of each primary comparison.

    Args:
      found: all comparisons; those of GC on the gradient are primary.
      family: the number of those that were planned.

    Returns:
      The two p-values by the comparison's place in `found`.
    """
    primary = [i for i, one in enumerate(found) if one.arm == "gradient"]
    p_values = [p for i in primary for p in (found[i].train.t_p, found[i].steps.t_p)]
    corrected = iter(confirm.holm(p_values, family))
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
