"""Shows a run on a console and records it in a folder as it goes."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import rich.console
import rich.progress

from optax_gc import describe
from train import faults
from train.config import Config
from train.faults import Failure
from train.record import pictures, shares, terminal, workdir
from train.record.about import About
from train.record.console import (
    Metrics,
    epoch_header,
    epoch_line,
    layer_table,
)
from train.record.environment import environment, unused_card
from train.record.metrics import metrics_in, sentence
from train.record.shares import Shares

Draw = Callable[[Metrics, pathlib.Path], None]


def title(config: Config) -> str:
    """Returns the title of a run's picture: its task, arm, rate and seed."""
    task = config.prefix.strip("-") or "horses"
    rate = f"{config.optimizer} at {config.learning_rate:g}"
    return f"{sentence(task)}: {arm(config)}, {rate}, seed {config.seed}"


def arm(config: Config) -> str:
    """Returns a run's arm in words."""
    if not config.gc and not config.placebo:
        return "without GC"
    kind = "GC" if config.gc else "placebo"
    kernels = [
        *(f"of {pattern}" for pattern in config.gc_only),
        *(f"except {pattern}" for pattern in config.gc_not),
    ]
    return " ".join([f"{kind} on the {config.placement}", *kernels])


class Reporter:
    """Shows a run on a console and keeps its record in a folder.

    The folder is made when training begins, so a run that cannot start leaves nothing
    behind.
    """

    def __init__(
        self,
        folder: workdir.Folder | pathlib.Path | None,
        console: rich.console.Console,
        remedy: Callable[[pathlib.Path], str] = lambda folder: "",
    ):
        """Makes a reporter.

        Args:
          folder: the run's folder; without one, nothing is written.
          console: where to show the run.
          remedy: maps the folder to a message for a user who stopped the run.
        """
        named = isinstance(folder, pathlib.Path)
        self.folder = workdir.Folder(folder) if named else folder
        self.console = console
        self.remedy = remedy
        self.history: list[Metrics] = []
        self.shares = Shares()
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
    def workdir(self) -> pathlib.Path | None:
        """The folder; for a new run it may still change until the run has begun."""
        return self.folder and self.folder.path

    @property
    def how_to_resume(self) -> str:
        """What to tell a user who stopped the run."""
        return self.remedy(self.workdir) if self.workdir else ""

    @property
    def after_divergence(self) -> str:
        """What to tell a user whose run diverged."""
        kept = "No epoch was finished"
        if self.history:
            done = self.history[-1]["epoch"]
            kept = f"The checkpoint of epoch {done} is kept in {self.workdir}"
        return f"{kept}; try a lower --learning-rate."

    def say(self, text: str = "", indent: str = "") -> None:
        """Shows a text; in a terminal its lines are broken between words."""
        if self.console.is_terminal:
            text = terminal.fitted(text, self.columns, indent)
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @property
    def columns(self) -> int:
        """The most columns that a line may take."""
        return max(terminal.NARROWEST, self.console.width)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def start(self, config: Config, about: About) -> None:
        """Shows the data, and checks that the run in the folder used the same.

        Raises:
          UsageError: if that run used other data.
          Failure: if another process owns the folder, or its record is damaged.
        """
        self.config, self.about = config, about
        if card := unused_card():
            self.warn(card)
        self.say(f"Data     {about.name}: {about.reason}", indent=" " * 9)
        self.say(f"         {about.text}", indent=" " * 9)
        if self.workdir and (self.workdir / workdir.CONFIG).exists():
            about.check_same(workdir.read_config(self.folder.own())["dataset"])

    def model(
        self,
        scores: Callable[..., Any],
        variables: Mapping[str, Any],
        examples: Any,
        axes: Any,
    ) -> None:
        """Shows the layers, their parameters, and what is centralized.

        Args:
          scores: a function of variables and examples that runs the network.
          variables: the network's variables.
          examples: some examples, of which one is used.
          axes: what is centralized over which axes, as for `optax_gc.describe`.
        """
        self.say()
        batch = jax.tree.map(lambda x: x[:1], examples)
        self.console.print(layer_table(scores, variables, batch))
        if not self.config.gc and not self.config.placebo:
            self.say("\nNo Gradient Centralization")
            return
        name = "Gradient Centralization" if self.config.gc else "Placebo"
        self.say(f"\n{name} of the {self.config.placement}")
        report = str(describe(variables["params"], axes))
        self.say(terminal.fitted_report(report, self.columns))

    def resumed(self, steps: int, epochs_done: int, steps_done: int) -> None:
        """Shows how far the run is, and drops what the record has beyond that.

        Args:
          steps: number of steps in an epoch.
          epochs_done: number of finished epochs.
          steps_done: number of finished steps in the next epoch.
        """
        self.steps = steps
        if self.workdir:
            self.go_on_with(self.workdir, epochs_done, epochs_done * steps + steps_done)
        if steps_done:
            step = f"step {steps_done} of {steps}"
            self.say(f"\nContinuing in epoch {epochs_done + 1}, after {step}")
        elif epochs_done:
            self.say(f"\nContinuing after epoch {epochs_done}")

    def go_on_with(self, folder: pathlib.Path, epochs: int, steps: int) -> None:
        """Takes over the record of a run's first epochs and steps; drops the rest.

        Raises:
          Failure: if it is damaged, or has epochs but no checkpoint.
        """
        kept = {
            folder / name: workdir.lines_until(folder / name, key, last)
            for name, key, last in (
                ("metrics.jsonl", "epoch", epochs),
                ("diagnostics.jsonl", "epoch", epochs),
                ("evaluations.jsonl", "step", steps),
            )
        }
        if not steps and len(workdir.read_lines(folder / "metrics.jsonl")) > 1:
            raise Failure(
                f"{folder} has a run's record but none of its checkpoints. Restore its "
                "folder checkpoints from a copy, or train again in another folder."
            )
        self.history = kept[folder / "metrics.jsonl"]
        if len(self.history) < epochs:
            self.warn(
                f"{folder / 'metrics.jsonl'} has {len(self.history)} of the {epochs} "
                "epochs that are done. The curves and the training time leave out the "
                "others."
            )
        if not self.shares.load(folder, steps):
            self.warn(f"{folder / shares.FILE} is damaged; its shares so far are lost.")
        for path, lines in kept.items():
            if path.exists():
                workdir.write_lines(path, lines)

    def begin(self) -> None:
        """Makes the folder of a new run, and writes config.json.

        Raises:
          Failure: if another process owns the folder.
          OSError: if it cannot be written.
        """
        if self.folder is None:
            return
        with faults.uninterrupted():
            path = self.folder.begin() / workdir.CONFIG
            if not path.exists():
                record = {
                    "config": dataclasses.asdict(self.config),
                    "dataset": self.about.record,
                    **environment(),
                }
                workdir.write_json(path, record)

    def compiled(self, seconds: float, names: Collection[str]) -> None:
        """Shows the compilation time, and starts the table of epochs and metrics."""
        self.compile_seconds = seconds
        device = jax.devices()[0].device_kind
        self.say(f"\nCompiled in {seconds:.1f} s for {device}\n")
        self.say("\n".join(epoch_header(names, self.columns)))
        for metrics in self.history:
            self.show_epoch(metrics)
        self.progress.start()
        self.task = self.progress.add_task(
            f"epoch {len(self.history) + 1}/{self.config.epochs}",
            total=self.config.epochs * self.steps,
            completed=len(self.history) * self.steps,
            status=f"step 0/{self.steps}",
        )

    def step(
        self,
        epoch: int,
        step: int,
        metrics: Metrics,
        removed: Mapping[str, float],
    ) -> None:
        """Moves the progress bar.

        Args:
          epoch: the epoch, from 1.
          step: number of its finished steps.
          metrics: the training metrics of the epoch so far.
          removed: the share that each kernel's gradient lost in the step, by path.
        """
        self.shares.append(removed)
        figures = " ".join(
            f"{metric.spoken} {metric.figure(metrics[name])}"
            for name, metric in metrics_in(metrics).items()
        )
        self.progress.update(
            self.task,
            completed=(epoch - 1) * self.steps + step,
            description=f"epoch {epoch}/{self.config.epochs}",
            status=f"step {step}/{self.steps} {figures}",
        )

    def evaluation(
        self, step: int, seconds: float, metrics: Metrics, *, within_epoch: bool
    ) -> None:
        """Appends to evaluations.jsonl; shows the evaluation if no epoch's line will.

        Args:
          step: number of the run's finished steps.
          seconds: the training time of the epoch so far.
          metrics: the training metrics of the epoch so far, and the held-out ones.
          within_epoch: whether the epoch continues.
        """
        before = sum(metrics["epoch_seconds"] for metrics in self.history)
        line = {"step": step, "seconds": before + seconds, **metrics}
        self.append("evaluations.jsonl", line)
        if within_epoch:
            label = f"{step / self.steps:.2f}/{self.config.epochs}"
            self.say(epoch_line(label, seconds, metrics, self.columns))

    def epoch(self, metrics: Metrics, diagnostics: dict[str, dict[str, float]]) -> None:
        """Shows the epoch's line; appends to metrics.jsonl and diagnostics.jsonl.

        Args:
          metrics: the epoch's line of metrics.jsonl. The seconds are those of training
            only. The training metrics are means over the epoch's examples, taken during
            training, with dropout and augmentation, as Keras reports them. The held-out
            metrics are None if evaluation is off.
          diagnostics: the value of each diagnostic at each leaf, by path.
        """
        self.history.append(metrics)
        self.show_epoch(metrics)
        self.append("metrics.jsonl", metrics)
        self.append("diagnostics.jsonl", {"epoch": metrics["epoch"], **diagnostics})

    def show_epoch(self, metrics: Metrics) -> None:
        label = f"{metrics['epoch']}/{self.config.epochs}"
        self.say(epoch_line(label, metrics["epoch_seconds"], metrics, self.columns))

    def save_shares(self) -> None:
        """Writes removed.npz up to the current step."""
        if self.workdir:
            self.shares.save(self.workdir)

    def append(self, name: str, line: Mapping[str, Any]) -> None:
        if self.workdir:
            with faults.uninterrupted(), (self.workdir / name).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def finish(self, test: Metrics, draw: Draw | None = None) -> None:
        """Shows the result; writes summary.json and curves.png.

        Args:
          test: the metrics of the test split, if it was evaluated now.
          draw: a function of the run's last metrics and its folder that draws more.
        """
        self.progress.stop()
        if not self.history:
            raise Failure(
                f"metrics.jsonl in {self.workdir} lacks the last epoch. Restore it "
                "from a copy."
            )
        last = self.history[-1]
        centralizes = self.config.gc or self.config.placebo
        total_seconds = sum(metrics["epoch_seconds"] for metrics in self.history)
        self.show_figures(last, test)
        self.say(f"Training time: {total_seconds:.2f} s")
        if self.workdir is None or self.had_ended:
            return
        self.write_json(
            "summary.json",
            {
                **last,
                **test,
                "total_seconds": total_seconds,
                "compile_seconds": self.compile_seconds,
                "dataset": self.about.name,
                "gc": self.config.gc,
                "placement": self.config.placement if centralizes else "none",
                "seed": self.config.seed,
            },
        )
        with faults.uninterrupted(), pictures.unless_undrawn(self.warn):
            path = self.workdir / "curves.png"
            pictures.plot_run(self.history, path, title(self.config))
            if draw is not None:
                draw({**last, **test}, self.workdir)
        names = sorted(path.name for path in self.workdir.iterdir())
        files = [name for name in names if not name.startswith(".")]
        self.say(f"\nFiles in {self.workdir}: {', '.join(files)}")

    def show_figures(self, last: Metrics, test: Metrics) -> None:
        """Shows the last epoch's training metrics and those of the test split."""
        values = {**last, **test}
        known = metrics_in(values)
        trained = [name for name, metric in known.items() if metric.split == "train"]
        self.say()
        for name in (*reversed(trained), *test):
            metric = known[name]
            self.say(f"{sentence(metric.spoken)}: {metric.figure(values[name])}")

    @property
    def had_ended(self) -> bool:
        """Whether the run had already ended, so that nothing was trained now."""
        summary = self.workdir and self.workdir / "summary.json"
        return bool(summary) and summary.exists() and self.compile_seconds is None

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        if self.workdir:
            workdir.write_json(self.workdir / name, value)
