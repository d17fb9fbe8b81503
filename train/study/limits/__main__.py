"""The study of networks that training limits, from its first run to its page.

    python -m train.study.limits results/limits

runs what is missing, in about six hours of two cores, and goes on where it stopped;
then it writes `README.md` and the pictures anew. `--quick` runs two networks at the
smaller budget, in five to fifteen minutes, for a reader who doubts the figure:

    python -m train.study.limits --quick runs/limits
"""

import argparse
import functools
import pathlib

from train.command import ends
from train.config import default_data_dir, expanded, prepare_jax

QUICK = ("hopper", "mlp")


def main() -> int:
    """Runs what is missing, writes the page, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.study.limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=expanded, help="folder of the records")
    parser.add_argument(
        "--quick", action="store_true", help="two networks, the smaller budget"
    )
    parser.add_argument(
        "--data-dir", type=expanded, default=default_data_dir(),
        help="folder of TensorFlow Datasets (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of a failure"
    )
    args = parser.parse_args()
    prepare_jax()
    work = functools.partial(run, args.out, args.data_dir, quick=args.quick)
    return ends.run(lambda stop: work(), debug=args.debug)


def run(out: pathlib.Path, data_dir: pathlib.Path, *, quick: bool) -> None:
    """Runs what is missing and writes the page and the pictures."""
    from train.study.limits import cost, curvature, fits, known, order, page, picture
    from train.study.limits.problems import problems
    from train.study.limits.store import Store

    every = problems(data_dir)
    if quick:
        some = [problem for problem in every if problem.name in QUICK]
        plan = order.Plan(some, budgets=(1,), references=False)
    else:
        plan = order.Plan(every)
    store = Store(out / "runs.jsonl")
    for entry in order.entries(plan):
        record = order.run_entry(store, entry)
        print(page.line(entry, record), flush=True)
        if (entry.arm, entry.steps) == ("none", entry.problem.steps):
            for part in (curvature.EARLY, curvature.START):
                curvature.measure(store, entry.problem, entry.optimizer, part)
    for problem in plan.problems:
        if problem.name == fits.PROBLEM:
            fits.measure(store, problem)
    if plan.references:
        for one in known.KNOWN:
            known.measure(store, one, data_dir)
        for problem in plan.problems:
            if "adam" in problem.first_rates:
                cost.measure(store, problem)
    (out / "README.md").write_text(page.page(store, plan, out))
    picture.draw(store, plan, out)


if __name__ == "__main__":
    ends.entry(main)
