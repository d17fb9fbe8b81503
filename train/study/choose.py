"""Writes down each arm's learning rate before the confirming runs.

    python -m train.study.choose results fashion

reads the sweep of a task, prints what eight pairs can show, and adds its choice to
`results/choice.json`. A choice that is written is never changed.
"""

import argparse
import json
import sys

from train.config import expanded
from train.record import workdir
from train.study import sweep
from train.study.tasks import TASKS, StudyTask

PAIRS = 8


def choice(losses: sweep.Losses, task: StudyTask) -> dict:
    """Returns the choice for a task and its grounds, for `choice.json`."""
    arms = ("none", *task.arms)
    return {
        "metric": task.chosen_by,
        "rates": {arm: sweep.best_rate(losses, arm) for arm in arms},
        "means": {
            arm: dict(
                zip(
                    map("{:g}".format, sweep.rates(losses, arm)),
                    sweep.means(losses, arm).tolist(),
                    strict=True,
                )
            )
            for arm in arms
        },
    }


def resolution_text(losses: sweep.Losses, task: StudyTask, arm: str) -> str:
    """Returns what eight pairs can show, in words."""
    deviation, freedom = sweep.paired_deviation(losses, arm)
    shown = sweep.resolvable(deviation, PAIRS)
    relation = "above" if shown > task.margin else "within"
    return (
        f"{arm} - none: paired deviation {deviation:.4f} ({freedom} degrees of "
        f"freedom); {PAIRS} pairs show a difference of {shown:.4f}, {relation} the "
        f"margin of {task.margin:g}."
    )


def wrong(losses: sweep.Losses, arm: str) -> str | None:
    """Returns why an arm's rate cannot be chosen yet, None if it can."""
    if not sweep.is_bracketed(losses, arm):
        return (
            f"the best rate of {arm} must lie within the sweep, got its edge "
            f"{sweep.best_rate(losses, arm):g}. Add the next rate for all arms."
        )
    return None


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.study.choose", description=main.__doc__
    )
    parser.add_argument("root", type=expanded, help="such as results")
    parser.add_argument("task", choices=[task.name for task in TASKS])
    args = parser.parse_args()
    (task,) = (task for task in TASKS if task.name == args.task)
    losses = sweep.read_sweep(args.root, task)
    arms = ("none", *task.arms)
    if not sweep.is_whole(losses, task):
        print(
            f"error: the sweep of {task.name} must have every arm at every rate with "
            f"every seed, got {sum(map(len, losses.values()))} runs. Finish it first.",
            file=sys.stderr,
        )
        return 1
    for arm in arms:
        fault = wrong(losses, arm)
        if fault:
            print(f"error: {fault}", file=sys.stderr)
            return 1
    path = args.root / "choice.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    chosen.setdefault(task.name, choice(losses, task))
    workdir.write_json(path, chosen)
    print("\n".join(resolution_text(losses, task, arm) for arm in task.arms))
    print(f"{task.name}: {chosen[task.name]['rates']}, in {path}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
