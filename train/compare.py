"""Command line: compares training with and without GC, over paired seeds.

    python -m train.compare --seeds 5

With the same seed, all arms share the initial parameters, the order of the examples,
augmentation and dropout. Repeat the command to continue: it skips finished runs.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence

from train import config, fashion, horses, image, shakespeare
from train.command import ends
from train.command.options import read
from train.comparison import jobs, outcome, plan
from train.config import Config
from train.faults import Stop
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
    return ends.run(functools.partial(compare, options), debug=options.debug)


def options_of(args: Sequence[str]) -> type[plan.Options]:
    """Returns the options of the task that a command line names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", default="horses")
    named, _ = parser.parse_known_args(args)
    return COMPARISONS.get(named.task, Comparison)


def compare(options: plan.Options, stop: Stop) -> None:
    """Trains the runs that are not finished yet and shows the outcome of all runs."""
    options.check()
    runs = plan.plan(options)
    plan.check_out(options.out)
    for run in runs.values():
        # A second half starts from a first half that need not exist yet.
        config.Config.check(run)
        workdir.check(run, "--out")
    config.prepare_jax()
    with workdir.Folder(options.out) as folder:
        folder.own()
        run_all(options, runs, stop)
        outcome.show(options)


def run_all(options: plan.Options, runs: Mapping[str, Config], stop: Stop) -> None:
    """Trains the runs that are not finished yet, and shows progress and time left."""
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
    """Returns how many epochs a run still has to do."""
    done = workdir.read_lines(run.workdir / "metrics.jsonl")
    return run.epochs - len(done)


if __name__ == "__main__":
    ends.entry(main)
