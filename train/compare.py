"""Command line: compares training with and without GC, over paired seeds.

    python -m train.compare --seeds 5

Within a seed all arms share the initial parameters, the order of the examples, their
augmentation and dropout. A finished run is never repeated; call it again to go on.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence

from train import (
    command,
    config,
    fashion,
    faults,
    horses,
    image,
    jobs,
    plan,
    shakespeare,
)
from train.config import Config
from train.faults import Stop
from train.options import read
from train.record import workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(horses.Training, plan.Options):
    """Compares arms: no GC, GC on the gradient, GC on the optimizer's update."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionComparison(fashion.Training, plan.Options):
    """Compares arms on Fashion-MNIST: no GC, GC on the gradient, on the update."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShakespeareComparison(shakespeare.Training, plan.Options):
    """Compares arms on tiny Shakespeare: no GC, GC on the gradient, on the update."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageComparison(image.Training, plan.Options):
    """Compares arms on an image's pixels: no GC, GC on the gradient, on the update."""


COMPARISONS = {
    "horses": Comparison,
    "fashion": FashionComparison,
    "shakespeare": ShakespeareComparison,
    "image": ImageComparison,
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    args = list(sys.argv[1:] if args is None else args)
    options = read(options_of(args), args, "python -m train.compare")
    return command.run(functools.partial(compare, options), debug=options.debug)


def options_of(args: Sequence[str]) -> type[plan.Options]:
    """Returns the options of the task that a command line names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", default="horses")
    named, _ = parser.parse_known_args(args)
    return COMPARISONS.get(named.task, Comparison)


def compare(options: plan.Options, stop: Stop) -> None:
    """Runs what is not finished yet and shows the outcome of all."""
    options.check()
    runs = plan.plan(options)
    plan.check_out(options.out)
    for run in runs.values():
        # A later half starts from a first one that need not be there yet.
        config.Config.check(run)
        workdir.check(run, "--out")
    config.prepare_jax()
    with workdir.Folder(options.out) as folder:
        folder.own()
        run_all(options, runs, stop)
        show(options)


def run_all(options: plan.Options, runs: Mapping[str, Config], stop: Stop) -> None:
    """Runs what is not finished yet, showing how far it is and the time left."""
    import rich.console

    from train.record.overall import Overall

    open_runs = [run for run in runs.values() if not workdir.is_over(run.workdir)]
    screen = rich.console.Console()
    screen.print(f"{len(runs) - len(open_runs)} of {len(runs)} runs are finished.")
    if not open_runs:
        return
    names = [run.workdir.name for run in open_runs]
    overall = Overall(screen, sum(map(epochs_left, open_runs)), names)
    with overall.progress:
        if options.jobs == 1:
            jobs.one_by_one(options.task, options, open_runs, overall, stop)
        else:
            jobs.some_at_a_time(options.task, options, open_runs, overall, stop)


def epochs_left(run: Config) -> int:
    """Returns how many epochs a run has still to do."""
    done = workdir.read_lines(run.workdir / "metrics.jsonl")
    return run.epochs - len(done)


def show(options: plan.Options) -> None:
    """Prints the tables and draws the pictures of the finished runs."""
    from train.record import pictures, statistics, terminal
    from train.record.metrics import sentence

    runs = statistics.read_runs(options.out)
    if not runs:
        print("\nNo run came to its end.")
        return
    columns = terminal.width()
    tables, pictured = {}, ["curves.png", "drift.png", "energy.png", "times.png"]
    at = ""
    if len(plan.rates(options)) > 1:
        metric = statistics.chosen_by(runs)
        name = statistics.measured(runs)[metric].long
        tables[f"{sentence(name)} at each learning rate"] = statistics.rates_table(
            runs, metric
        )
        with pictures.unless_undrawn(warn):
            pictures.plot_rates(runs, metric, options.out / "rates.png")
            pictured.append("rates.png")
        runs = statistics.at_best_rates(runs, metric)
        at = f", each arm at the rate of its lowest {name}"
    baseline = "none" if options.protocol == "paired" else "then-none"
    tables |= {
        f"Last epoch, mean and standard deviation over seeds{at}": (
            statistics.arms_table(runs)
        ),
        f"Paired differences, with the 95 % t-interval of their mean{at}": (
            statistics.differences_table(runs, baseline)
        ),
        f"Every run{at}": statistics.raw_table(runs),
    }
    for title, (header, rows) in tables.items():
        if rows:
            table = terminal.terminal_table(header, rows, columns)
            print(f"\n{terminal.fitted(title, columns)}\n\n{table}")
    with faults.uninterrupted(), pictures.unless_undrawn(warn):
        pictures.plot_all(runs, options.out)
        shown = f"\nPictures in {options.out}: {', '.join(pictured)}"
        print(terminal.fitted(shown, columns))


def warn(text: str) -> None:
    """Tells the user of something that is no failure."""
    print(f"warning: {text}")


if __name__ == "__main__":
    command.entry(main)
