"""What is run, in which order: every arm's own best rate, then fresh seeds at it."""

import dataclasses
from collections.abc import Iterator, Sequence

from train.study.limits.arms import ARMS, BIAS_ARMS, BIAS_PROBLEM
from train.study.limits.problems import Problem
from train.study.limits.search import Entry, best_rate, fresh
from train.study.limits.store import Store

BUDGETS = (1, 4)  # times a problem's steps
PRIMARY = ("none", "gradient")  # the arms of the primary comparisons
FASTER = 4.0  # times Adam's rate, where the search for Muon's begins


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of the study is run.

    Attributes:
      problems: all, or some.
      budgets: both, or the smaller.
      references: whether Muon and the faster biases are run too.
    """

    problems: Sequence[Problem]
    budgets: Sequence[int] = BUDGETS
    references: bool = True


def pairs(plan: Plan) -> Iterator[tuple[Problem, str]]:
    """Yields each problem with each optimizer that trains it."""
    for problem in plan.problems:
        for optimizer in problem.first_rates:
            yield problem, optimizer


def arms_of(plan: Plan, problem: Problem, optimizer: str) -> Iterator[str]:
    """Yields the arms of a problem and optimizer, `none` first."""
    for arm in ARMS[optimizer]:
        if plan.references or not arm.startswith("muon"):
            yield arm
    if plan.references and (problem.name, optimizer) == BIAS_PROBLEM:
        yield from BIAS_ARMS


def entries(plan: Plan) -> Iterator[Entry]:
    """Yields all arms: the smaller budget of all pairs first.

    Of each budget the arms of the primary comparisons first. Muon, the reference, has
    the smaller budget only, and comes last in it.
    """

    def place(entry: Entry) -> tuple[int, bool, bool]:
        budget = entry.steps // entry.problem.steps
        return budget, entry.arm.startswith("muon"), entry.arm not in PRIMARY

    found = [
        Entry(problem, optimizer, arm, budget * problem.steps)
        for problem, optimizer in pairs(plan)
        for arm in arms_of(plan, problem, optimizer)
        for budget in (plan.budgets[:1] if arm.startswith("muon") else plan.budgets)
    ]
    yield from sorted(found, key=place)


def first_rate(store: Store, entry: Entry) -> float:
    """Returns where the search for an arm's rate begins.

    At the best of the same arm's smaller budget, if there is one; else at that of
    `none`, which is run first; else at the problem's own.
    """
    smaller = dataclasses.replace(entry, steps=entry.problem.steps)
    none = dataclasses.replace(smaller, arm="none")
    for known in (smaller, none):
        if known != entry and (rate := chosen(store, known)):
            muon = entry.arm.startswith("muon") and known is none
            return rate * FASTER if muon else rate
    return entry.problem.first_rates[entry.optimizer]


def chosen(store: Store, entry: Entry) -> float | None:
    """Returns the rate at which an arm's fresh seeds were run; None if none were."""
    for record in store.part("fresh"):
        if record == record | entry.key("fresh", record["rate"]):
            return record["rate"]
    return None


def run_entry(store: Store, entry: Entry) -> dict:
    """Runs what is missing of an arm and returns the record of its fresh seeds."""
    rate = chosen(store, entry)
    if rate is None:
        rate = best_rate(store, entry, first_rate(store, entry))
    return fresh(store, entry, rate)
