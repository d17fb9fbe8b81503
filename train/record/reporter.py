"""A run as it goes: shown on a console, kept in a folder."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import rich.console
import rich.progress

from optax_gc import describe
from train.config import Config
from train.record import pictures, workdir
from train.record.about import About
from train.record.console import (
    Metrics,
    Overall,
    epoch_header,
    epoch_line,
    layer_table,
)
from train.record.environment import environment


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
        self.history: list[Metrics] = []
        self.compile_seconds: float | None = None
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
            done = self.history[-1]["epoch"]
            kept = f"The checkpoint of epoch {done} is kept in {self.workdir}"
        return f"{kept}; try a lower --learning-rate."

    def say(self, text: str = "") -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def start(self, config: Config, about: About) -> None:
        """Shows the data; writes config.json, or compares it with the one there.

        Raises:
          UsageError: if the run in the folder was on other data.
        """
        self.config, self.about = config, about
        self.say(f"Data     {about.name}: {about.reason}")
        self.say(f"         {about.text}")
        if self.workdir and (self.workdir / "config.json").exists():
            text = (self.workdir / "config.json").read_text()
            about.check_same(json.loads(text)["dataset"])
            return
        self.write_json(
            "config.json",
            {
                "config": dataclasses.asdict(config),
                "dataset": about.record,
                **environment(),
            },
        )

    def model(
        self, scores: Callable[..., Any], variables: Mapping[str, Any], examples: Any
    ) -> None:
        """Shows the layers, their parameters, and what is centralized."""
        self.say()
        batch = jax.tree.map(lambda x: x[:1], examples)
        self.console.print(layer_table(scores, variables, batch))
        if self.config.gc:
            self.say(f"\nGradient Centralization of the {self.config.placement}")
            self.say(str(describe(variables["params"])))
        else:
            self.say("\nNo Gradient Centralization")

    def resumed(self, steps: int, epochs_done: int, steps_done: int) -> None:
        """Drops from the record what came after; shows how far the run was.

        Args:
          steps: number of steps in an epoch.
          epochs_done: number of epochs that are finished.
          steps_done: number of steps of the next one that are.
        """
        self.steps = steps
        if self.workdir:
            for name in ("metrics.jsonl", "diagnostics.jsonl"):
                path = self.workdir / name
                if path.exists():
                    workdir.write_lines(path, workdir.read_lines(path)[:epochs_done])
            self.history = workdir.read_lines(self.workdir / "metrics.jsonl")
        if steps_done:
            step = f"step {steps_done} of {steps}"
            self.say(f"\nGoing on after epoch {epochs_done + 1}, {step}")
        elif epochs_done:
            self.say(f"\nGoing on after epoch {epochs_done}")

    def compiled(self, seconds: float, split: str) -> None:
        """Shows the compilation time; opens the table of epochs, with this split's."""
        self.compile_seconds = seconds
        device = jax.devices()[0].device_kind
        self.say(f"\nCompiled in {seconds:.1f} s for {device}\n")
        self.say(epoch_header(split))
        for metrics in self.history:
            self.say(epoch_line(metrics, self.config.epochs))
        self.progress.start()
        self.task = self.progress.add_task(
            f"epoch {len(self.history) + 1}/{self.config.epochs}",
            total=self.config.epochs * self.steps,
            completed=len(self.history) * self.steps,
            status=f"step 0/{self.steps}",
        )

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Moves the progress bar; loss and accuracy are the epoch's so far."""
        self.progress.update(
            self.task,
            completed=(epoch - 1) * self.steps + step,
            description=f"epoch {epoch}/{self.config.epochs}",
            status=f"step {step}/{self.steps} loss {loss:.4f} accuracy {accuracy:.4f}",
        )

    def epoch(self, metrics: Metrics, diagnostics: dict[str, dict[str, float]]) -> None:
        """Shows the epoch's line; appends to metrics.jsonl and diagnostics.jsonl.

        Args:
          metrics: the epoch's line of metrics.jsonl. The seconds are those of training
            only. The training metrics are means over the epoch's examples, taken as it
            went, with dropout and augmentation on, as Keras reports them. The held-out
            metrics are None where evaluation is off.
          diagnostics: for each of them its value at each leaf, by path.
        """
        self.history.append(metrics)
        self.say(epoch_line(metrics, self.config.epochs))
        self.append("metrics.jsonl", metrics)
        self.append("diagnostics.jsonl", {"epoch": metrics["epoch"], **diagnostics})

    def append(self, name: str, line: Mapping[str, Any]) -> None:
        if self.workdir:
            with (self.workdir / name).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Shows the result; writes summary.json and curves.png."""
        self.progress.stop()
        last = self.history[-1]
        total_seconds = sum(metrics["epoch_seconds"] for metrics in self.history)
        self.say(f"\nAccuracy: {last['train_accuracy']:.4f}")
        self.say(f"Loss: {last['train_loss']:.4f}")
        self.say(f"Training time: {total_seconds:.2f} s")
        if self.workdir is None or self.is_written():
            return
        pictures.plot_run(self.history, self.workdir / "curves.png")
        self.write_json(
            "summary.json",
            {
                **last,
                "total_seconds": total_seconds,
                "compile_seconds": self.compile_seconds,
                "dataset": self.about.name,
                "gc": self.config.gc,
                "placement": self.config.placement if self.config.gc else "none",
                "seed": self.config.seed,
            },
        )
        files = sorted(path.name for path in self.workdir.iterdir())
        self.say(f"\nFiles in {self.workdir}: {', '.join(files)}")

    def is_written(self) -> bool:
        """Tells whether the run had ended before and nothing was trained now."""
        written = (self.workdir / "summary.json").exists()
        return written and self.compile_seconds is None

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        if self.workdir:
            text = json.dumps(value, indent=2, default=str)
            workdir.write(self.workdir / name, text + "\n")


class Member(Reporter):
    """Keeps the record of one run of many, and shows its epochs among theirs."""

    def __init__(self, folder: pathlib.Path, overall: Overall):
        remedy = "Go on by repeating the command."
        super().__init__(folder, rich.console.Console(quiet=True), remedy)
        self.overall = overall

    def epoch(self, metrics: Metrics, diagnostics: dict[str, dict[str, float]]) -> None:
        super().epoch(metrics, diagnostics)
        self.overall.epoch(self.workdir.name, metrics, self.config.epochs)

    def warn(self, text: str) -> None:
        self.overall.console.print(f"warning: {text}", soft_wrap=True)
