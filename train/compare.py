"""Command line: the same training with and without GC, over paired seeds.

    python -m train.compare --seeds 5

Within a seed all arms share the initial parameters, the order of the images, their
augmentation and dropout. A finished run is never repeated; call it again to go on.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Literal

import tyro

from train import command, config, horses
from train.config import prepare_jax
from train.faults import Stop, UsageError
from train.horses import Config, Training
from train.record import workdir

Arm = Literal["none", "gradient", "update"]
Protocol = Literal["paired", "published"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Training):
    """Compares arms: no GC, GC on the gradient, GC on the optimizer's update."""

    protocol: Protocol = "paired"
    """All arms from fresh parameters, or on from a first run, as in the example."""

    arms: tuple[Arm, ...] = ("none", "gradient", "update")
    """Arms of the paired protocol."""

    seeds: int = 5
    """Number of seeds; they count from --first-seed."""

    first_seed: int = 0
    """The first seed."""

    out: pathlib.Path = pathlib.Path("runs/compare")
    """Folder for the runs' records, one folder a run, and the pictures."""


def plan(options: Comparison) -> dict[str, Config]:
    """Returns the configuration of every run by its name, in the order to run them."""
    shared = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(Training)
    }
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = paired if options.protocol == "paired" else published
    named = {
        f"{name}-seed{seed}": arm for seed in seeds for name, arm in runs(options, seed)
    }
    return {
        name: Config(**shared, **arm, workdir=options.out / name, resume=True)
        for name, arm in named.items()
    }


def paired(options: Comparison, seed: int) -> list[tuple[str, dict]]:
    """Returns the arms of a seed, each from the same fresh parameters."""
    placed = {"none": {"gc": False}, "gradient": {"gc": True}}
    placed["update"] = {"gc": True, "placement": "update"}
    return [(arm, {**placed[arm], "seed": seed}) for arm in options.arms]


def published(options: Comparison, seed: int) -> list[tuple[str, dict]]:
    """Returns the example's two halves, and the second half without GC."""
    first = options.out / f"first-seed{seed}"
    # Another seed for the second half: it is to see new augmentation and dropout.
    on = {"seed": seed + 1000, "init_from": first}
    return [
        ("first", {"gc": False, "seed": seed}),
        ("then-gc", {"gc": True, **on}),
        ("then-none", {"gc": False, **on}),
    ]


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    options = tyro.cli(Comparison, args=args, prog="python -m train.compare")
    return command.run(functools.partial(compare, options), debug=options.debug)


def compare(options: Comparison, stop: Stop) -> None:
    """Runs what is not finished yet and shows the outcome of all."""
    check_options(options)
    runs = plan(options)
    for run in runs.values():
        # A later half starts from a first one that need not be there yet.
        config.Config.check(run)
        workdir.claim(run)
    prepare_jax()
    run_all(options, runs, stop)
    show(options)


def check_options(options: Comparison) -> None:
    """Raises a `UsageError` that names the first option out of its range."""
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {options.seeds}.")
    if not options.arms or len(set(options.arms)) < len(options.arms):
        raise UsageError(
            f"--arms must name each arm once, got {' '.join(options.arms) or 'none'}."
        )


def run_all(options: Comparison, runs: dict[str, Config], stop: Stop) -> None:
    """Runs what is not finished yet, showing how far it is and the time left."""
    import rich.console

    from train.engine import fit
    from train.record import overall

    open_runs = [
        run for run in runs.values() if not (run.workdir / "summary.json").exists()
    ]
    screen = rich.console.Console()
    screen.print(f"{len(runs) - len(open_runs)} of {len(runs)} runs are finished.")
    if not open_runs:
        return
    dataset = horses.load_data(options)
    progress = overall.Overall(screen, sum(map(epochs_left, open_runs)))
    with progress.progress:
        for run in open_runs:
            member = overall.Member(run.workdir, progress)
            fit.fit(run, horses.task(run, dataset), member, stop)


def epochs_left(run: Config) -> int:
    """Returns how many epochs a run has still to do."""
    done = workdir.read_lines(run.workdir / "metrics.jsonl")
    return run.epochs - len(done)


def show(options: Comparison) -> None:
    """Prints the tables and draws the pictures of the finished runs."""
    from train.record import pictures, statistics

    runs = statistics.read_runs(options.out)
    baseline = "none" if options.protocol == "paired" else "then-none"
    tables = {
        "Last epoch, mean and standard deviation over seeds": statistics.arms_table(
            runs
        ),
        "Paired differences, with the 95 % t-interval of their mean": (
            statistics.differences_table(runs, baseline)
        ),
        "Every run": statistics.raw_table(runs),
    }
    for title, (header, rows) in tables.items():
        if rows:
            print(f"\n{title}\n\n{statistics.terminal_table(header, rows)}")
    pictures.plot_all(runs, options.out)
    print(f"\nPictures in {options.out}: curves.png, drift.png, energy.png, times.png")


if __name__ == "__main__":
    sys.exit(main())
