"""What a run shows and leaves behind: terminal lines, records and curves."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax
import jax.numpy as jnp
import rich.console
import rich.progress
import rich.table
from flax import linen as nn

from optax_gc import describe
from train import checkpoint, workdir
from train.checkpoint import Progress
from train.command import UsageError
from train.config import Config
from train.data import Dataset

PACKAGES = ("jax", "jaxlib", "flax", "optax", "optax-gc", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl: means over the images of an epoch.

    The seconds are those of training only. The training metrics are taken during the
    epoch, with dropout and augmentation on, as Keras reports them. The test metrics
    are None where evaluation is off.
    """

    epoch: int
    epoch_seconds: float
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None


def environment() -> dict[str, Any]:
    """Returns what a run's numbers depend on beside its configuration."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "commit": commit(),
    }


def commit() -> str | None:
    """Returns the commit of this source tree, "-dirty" if changed, if git knows it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


class Reporter:
    """Shows a run on a console and keeps its record in a folder.

    Attributes:
      workdir: the folder; without one nothing is written.
      how_to_resume: what a user is told who has stopped the run.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        console: rich.console.Console,
        how_to_resume: str = "",
    ):
        self.workdir = folder
        self.console = console
        self.how_to_resume = how_to_resume
        self.history: list[Epoch] = []
        self.progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[status]}"),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    @property
    def after_divergence(self) -> str:
        """What a user is told whose run has diverged."""
        kept = "No epoch was finished"
        if self.history:
            epoch = self.history[-1].epoch
            kept = f"The checkpoint of epoch {epoch} is kept in {self.workdir}"
        return f"{kept}; try a lower --learning-rate."

    def say(self, text: str = "") -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def start(self, config: Config, dataset: Dataset) -> None:
        """Shows the data; writes config.json, or compares it with the one there.

        Raises:
          UsageError: if the run in the folder was on other images.
        """
        self.config, self.dataset_name = config, dataset.name
        self.steps = math.ceil(len(dataset.train) / config.batch_size)
        names = dataset.class_names
        classes = " or ".join(names) if len(names) < 5 else f"{len(names)} classes"
        self.say(f"Data     {dataset.name}: {dataset.reason}")
        self.say(
            f"         {len(dataset.train)} training and {len(dataset.test)} test "
            f"images, {dataset.image_shape} uint8, {classes}"
        )
        images = {
            "name": dataset.name,
            "reason": dataset.reason,
            "train_images": len(dataset.train),
            "test_images": len(dataset.test),
        }
        if self.workdir and (self.workdir / "config.json").exists():
            text = (self.workdir / "config.json").read_text()
            check_same_images(json.loads(text)["dataset"], images)
            return
        self.write_json(
            "config.json",
            {"config": dataclasses.asdict(config), "dataset": images, **environment()},
        )

    def model(
        self, model: nn.Module, params: Any, image_shape: tuple[int, ...]
    ) -> None:
        """Shows the layers, their parameters, and what is centralized."""
        self.say()
        self.console.print(layer_table(model, params, image_shape))
        if self.config.gc:
            self.say(f"\nGradient Centralization of the {self.config.placement}")
            self.say(str(describe(params)))
        else:
            self.say("\nNo Gradient Centralization")

    def resumed(self, progress: Progress) -> None:
        """Drops from the record what came after; shows how far the run was."""
        done = progress.epoch - 1
        if self.workdir:
            for name in ("metrics.jsonl", "diagnostics.jsonl"):
                path = self.workdir / name
                if path.exists():
                    workdir.write_lines(path, workdir.read_lines(path)[:done])
            lines = workdir.read_lines(self.workdir / "metrics.jsonl")
            self.history = [Epoch(**line) for line in lines]
        if progress.steps:
            step = f"step {progress.steps} of {self.steps}"
            self.say(f"\nGoing on after epoch {progress.epoch}, {step}")
        elif done:
            self.say(f"\nGoing on after epoch {done}")

    def compiled(self, seconds: float) -> None:
        """Shows the compilation time; opens the table of epochs."""
        self.compile_seconds = seconds
        device = jax.devices()[0].device_kind
        self.say(f"\nCompiled in {seconds:.1f} s for {device}\n")
        self.say(epoch_header())
        for epoch in self.history:
            self.say(epoch_line(epoch, self.config.epochs))
        self.progress.start()
        self.task = self.progress.add_task(
            f"epoch {len(self.history) + 1}/{self.config.epochs}",
            total=self.config.epochs * self.steps,
            completed=len(self.history) * self.steps,
            status=f"step 0/{self.steps}",
        )

    def step(self, progress: Progress) -> None:
        """Moves the progress bar."""
        loss, accuracy = (
            total / progress.images for total in (progress.loss, progress.correct)
        )
        self.progress.update(
            self.task,
            completed=(progress.epoch - 1) * self.steps + progress.steps,
            description=f"epoch {progress.epoch}/{self.config.epochs}",
            status=f"step {progress.steps}/{self.steps} loss {loss:.4f} "
            f"accuracy {accuracy:.4f}",
        )

    def epoch(self, epoch: Epoch, diagnostics: dict[str, dict[str, float]]) -> None:
        """Shows the epoch's line; appends to metrics.jsonl and diagnostics.jsonl.

        Args:
          epoch: its metrics.
          diagnostics: for each of them its value at each leaf, by path.
        """
        self.history.append(epoch)
        self.say(epoch_line(epoch, self.config.epochs))
        self.append("metrics.jsonl", dataclasses.asdict(epoch))
        self.append("diagnostics.jsonl", {"epoch": epoch.epoch, **diagnostics})

    def append(self, name: str, line: dict[str, Any]) -> None:
        if self.workdir:
            with (self.workdir / name).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def finish(self, params: Any) -> None:
        """Shows the result; writes params, summary.json and curves.png."""
        self.progress.stop()
        last = self.history[-1]
        total_seconds = sum(epoch.epoch_seconds for epoch in self.history)
        self.say(f"\nAccuracy: {last.train_accuracy:.4f}")
        self.say(f"Loss: {last.train_loss:.4f}")
        self.say(f"Training time: {total_seconds:.2f} s")
        if self.workdir is None:
            return
        checkpoint.save_params(self.workdir / "params", params)
        plot_curves(self.history, self.workdir / "curves.png")
        self.write_json(
            "summary.json",
            {
                **dataclasses.asdict(last),
                "total_seconds": total_seconds,
                "dataset": self.dataset_name,
                "gc": self.config.gc,
                "placement": self.config.placement if self.config.gc else "none",
                "seed": self.config.seed,
            },
        )
        files = sorted(path.name for path in self.workdir.iterdir())
        self.say(f"\nFiles in {self.workdir}: {', '.join(files)}")

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        if self.workdir:
            text = json.dumps(value, indent=2, default=str)
            workdir.write(self.workdir / name, text + "\n")


def check_same_images(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises a `UsageError` unless a run goes on with the images it began with."""
    differences = [
        f"{name} was {theirs[name]}, now {ours[name]}"
        for name in ("name", "train_images", "test_images")
        if theirs[name] != ours[name]
    ]
    if differences:
        raise UsageError(
            f"the run was on other images: {'; '.join(differences)}. "
            "Name theirs with --dataset and --data-dir."
        )


class Overall:
    """Progress over many runs: a bar in a terminal, else a line an epoch."""

    def __init__(self, console: rich.console.Console, epochs: int):
        self.console = console
        self.done = 0
        self.total = epochs
        self.start = time.monotonic()
        self.progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=epochs)

    def epoch(self, run: str, epoch: Epoch, epochs: int) -> None:
        """Shows that a run has finished an epoch, and the time left for all runs."""
        self.done += 1
        seconds = (time.monotonic() - self.start) / self.done
        left = datetime.timedelta(seconds=round(seconds * (self.total - self.done)))
        line = f"{run:16} {epoch_line(epoch, epochs)}"
        self.progress.update(self.task, advance=1, description=run)
        if self.console.is_terminal:
            self.console.print(line, highlight=False)
        else:
            self.console.print(f"{line}   {left} left", highlight=False, soft_wrap=True)


class Member(Reporter):
    """Keeps the record of one run of many, and shows its epochs among theirs."""

    def __init__(self, folder: pathlib.Path, overall: Overall):
        remedy = "Go on by repeating the command."
        super().__init__(folder, rich.console.Console(quiet=True), remedy)
        self.overall = overall

    def epoch(self, epoch: Epoch, diagnostics: dict[str, dict[str, float]]) -> None:
        super().epoch(epoch, diagnostics)
        self.overall.epoch(self.workdir.name, epoch, self.config.epochs)

    def warn(self, text: str) -> None:
        self.overall.console.print(f"warning: {text}", soft_wrap=True)


def layer_table(
    model: nn.Module, params: Any, image_shape: tuple[int, ...]
) -> rich.table.Table:
    """Returns a table of the layers in their order: output, kernel, parameters."""
    calls: list[tuple[str, tuple[int, ...]]] = []

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        calls.append((context.module.name, output.shape[1:]))
        return output

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        jax.eval_shape(model.apply, {"params": params}, images)
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("Layer", "Output", "Kernel"):
        table.add_column(name)
    table.add_column("Parameters", justify="right")
    for name, shape in calls:
        leaves = params.get(name, {})
        if leaves:
            count = sum(leaf.size for leaf in leaves.values())
            table.add_row(name, str(shape), str(leaves["kernel"].shape), f"{count:,}")
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    table.add_row("total", "", "", f"{total:,}")
    return table


COLUMNS = (
    ("epoch", 7), ("time", 9), ("loss", 8), ("accuracy", 9),
    ("test loss", 10), ("test accuracy", 14),
)  # fmt: skip


def epoch_header() -> str:
    return " ".join(name.rjust(width) for name, width in COLUMNS)


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """Returns the row of the table of epochs; a dash stands for no evaluation."""
    metrics = (
        epoch.train_loss, epoch.train_accuracy, epoch.test_loss, epoch.test_accuracy,
    )  # fmt: skip
    cells = [f"{epoch.epoch}/{epochs}", f"{epoch.epoch_seconds:.2f} s"]
    cells += ["-" if metric is None else f"{metric:.4f}" for metric in metrics]
    return " ".join(
        cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)
    )


def plot_curves(history: list[Epoch], path: pathlib.Path) -> None:
    """Draws loss, accuracy and time per epoch into a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    epochs = [epoch.epoch for epoch in history]
    for panel, metric in zip(panels, ("loss", "accuracy"), strict=False):
        for split, label in (("train", "training"), ("test", "held-out")):
            values = [getattr(epoch, f"{split}_{metric}") for epoch in history]
            if None not in values:
                panel.plot(epochs, values, marker="o", markersize=3.5, label=label)
        panel.set_title(metric.capitalize())
        panel.legend(frameon=False)
    panels[2].bar(epochs, [epoch.epoch_seconds for epoch in history], color="0.6")
    panels[2].set_title("Training time, seconds")
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
