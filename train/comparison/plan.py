"""The runs of a comparison: arms x learning rates x seeds."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

from train import fashion, horses, image, shakespeare
from train.config import Config, Paths
from train.faults import UsageError

TASKS = {
    "horses": horses,
    "fashion": fashion,
    "shakespeare": shakespeare,
    "image": image,
}
ARMS: dict[str, dict[str, Any]] = {
    "none": {"gc": False},
    "gradient": {"gc": True},
    "update": {"gc": True, "placement": "update"},
    "placebo": {"placebo": True},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Paths):
    """The options of a comparison besides those of its runs."""

    task: Literal["horses", "fashion", "shakespeare", "image"] = "horses"
    """What to train; with --help, this shows the task's own options."""

    protocol: Literal["paired", "published"] = "paired"
    """paired: all arms start from fresh parameters; published: arms continue from a
    first run, as in the Keras example."""

    arms: tuple[str, ...] = ("none", "gradient", "update")
    """What to compare with the paired protocol: none (without GC), gradient, update,
    placebo, or the gradient of the kernels in a subset (only-NAME) or of all others
    (not-NAME)."""

    subsets: tuple[str, ...] = ()
    """Named subsets of kernels, each NAME=PATTERN[,PATTERN...]; first=Conv_0/* names
    the first convolution."""

    learning_rates: tuple[float, ...] = ()
    """Rates at which to run each arm; by default, the one of --learning-rate."""

    seeds: int = 5
    """Number of seeds, counted from --first-seed."""

    first_seed: int = 0
    """The first seed."""

    jobs: int = 1
    """Runs to train at a time, each on its share of the cores."""

    out: pathlib.Path = pathlib.Path("runs/compare")
    """Folder for the pictures and the records, with one folder for each run."""

    def check(self) -> None:
        """Raises a `UsageError` that names the first option that is out of range."""
        for name in ("seeds", "jobs"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"--{name} must be at least 1, got {getattr(self, name)}."
                )
        for option, one, values in (
            ("--arms", "arm", self.arms),
            ("--learning-rates", "rate", self.learning_rates),
        ):
            if len(set(values)) < len(values):
                got = " ".join(map(str, values))
                raise UsageError(f"{option} must name each {one} once, got {got}.")
        if not self.arms:
            raise UsageError(
                f"--arms must name at least one of {', '.join(ARMS)}, got nothing."
            )
        for rate in self.learning_rates:
            if not 0 < rate < float("inf"):
                raise UsageError(
                    f"--learning-rates must be positive numbers, got {rate}."
                )
        if self.protocol == "published":
            self.check_published()

    def check_published(self) -> None:
        """Raises a `UsageError` if an option does not suit the published protocol."""
        if self.task != "horses":
            raise UsageError(
                f"--protocol published needs --task horses, got {self.task}."
            )
        for name in ("arms", "subsets"):
            values = getattr(self, name)
            if values != getattr(Options, name):
                raise UsageError(
                    f"--{name} needs --protocol paired, got {' '.join(values)}. The "
                    "published protocol has its own arms: first, then-gc, then-none."
                )


def check_out(out: pathlib.Path) -> None:
    """Raises a `UsageError` unless a comparison may be kept in a folder."""
    if not out.exists():
        return
    names = [path.name for path in out.iterdir()] if out.is_dir() else [out.name]
    seen = [name for name in names if not name.startswith(".")]
    if seen and not any("-seed" in name or name == "curves.png" for name in seen):
        raise UsageError(
            f"--out must be a new or empty folder or a comparison's folder, got {out}, "
            "which is neither."
        )


def rates(options: Any) -> tuple[float, ...]:
    """Returns the learning rates of the comparison."""
    return options.learning_rates or (options.learning_rate,)


def plan(options: Any) -> dict[str, Config]:
    """Returns the configuration of every run by name, in the order in which they run.

    All arms and rates of a seed come before the next seed, so that a coarse picture of
    the whole is available early.

    Args:
      options: an `Options` that is the task's `Training`, too.
    """
    task = TASKS[options.task]
    shared = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(task.Training)
    }
    runs = paired if options.protocol == "paired" else published
    return {
        name: task.Config(**{**shared, **arm}, workdir=options.out / name, resume=True)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for rate in rates(options)
        for name, arm in runs(options, seed, rate)
    }


def paired(
    options: Any, seed: int, rate: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name and options of a seed's arms, from the same fresh parameters."""
    for arm in options.arms:
        fields = {**arm_options(options, arm), "seed": seed, "learning_rate": rate}
        yield run_name(options, arm, seed, rate), fields


def published(
    options: Any, seed: int, rate: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the Keras example's two halves, and the second half without GC."""
    first = run_name(options, "first", seed, rate)
    yield first, {"gc": False, "seed": seed, "learning_rate": rate}
    for arm, gc in (("then-gc", True), ("then-none", False)):
        # Another seed, so that the second half sees new augmentation and dropout.
        fields = {"gc": gc, "seed": seed + 1000, "init_from": options.out / first}
        yield run_name(options, arm, seed, rate), fields | {"learning_rate": rate}


def run_name(options: Any, arm: str, seed: int, rate: float) -> str:
    """Returns the name of a run's folder, with the rate if there are several."""
    if len(rates(options)) == 1:
        return f"{arm}-seed{seed}"
    return f"{arm}-lr{rate:g}-seed{seed}"


def arm_options(options: Options, arm: str) -> dict[str, Any]:
    """Returns the options that define an arm.

    Raises:
      UsageError: if there is no such arm.
    """
    if arm in ARMS:
        return ARMS[arm]
    named = {name: patterns.split(",") for name, patterns in subsets(options)}
    kind, _, name = arm.partition("-")
    if kind not in ("only", "not") or name not in named:
        raise UsageError(
            f"--arms must name {', '.join(ARMS)}, only-NAME or not-NAME, where NAME is "
            f"one of --subsets ({', '.join(named) or 'none'}), got {arm}."
        )
    return {"gc": True, f"gc_{kind}": tuple(named[name])}


def subsets(options: Options) -> Iterator[tuple[str, str]]:
    """Yields the name of each subset of kernels and its patterns."""
    for subset in options.subsets:
        name, equals, patterns = subset.partition("=")
        if not (name and equals and patterns):
            raise UsageError(
                f"--subsets must be NAME=PATTERN[,PATTERN...], got {subset}."
            )
        yield name, patterns
