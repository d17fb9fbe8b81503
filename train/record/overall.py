"""Many runs, one after the other: how far they are."""

import datetime
import pathlib
import time

import rich.console
import rich.progress

from train.record import workdir
from train.record.console import Metrics, epoch_line
from train.record.reporter import Reporter

REMEDY = "Go on by repeating the command."


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

    def epoch(self, run: str, metrics: Metrics, epochs: int) -> None:
        """Shows that a run has finished an epoch, and the time left for all runs."""
        self.done += 1
        seconds = (time.monotonic() - self.start) / self.done
        left = datetime.timedelta(seconds=round(seconds * (self.total - self.done)))
        label = f"{metrics['epoch']}/{epochs}"
        line = f"{run:16} {epoch_line(label, metrics['epoch_seconds'], metrics)}"
        self.progress.update(self.task, advance=1, description=run)
        if self.console.is_terminal:
            self.console.print(line, highlight=False)
        else:
            self.console.print(f"{line}   {left} left", highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", soft_wrap=True)


class Member(Reporter):
    """Keeps the record of one run of many, and shows its epochs among theirs."""

    def __init__(self, folder: workdir.Folder | pathlib.Path, overall: Overall):
        quiet = rich.console.Console(quiet=True)
        super().__init__(folder, quiet, lambda folder: REMEDY)
        self.overall = overall

    def epoch(self, metrics: Metrics, diagnostics: dict[str, dict[str, float]]) -> None:
        super().epoch(metrics, diagnostics)
        self.overall.epoch(self.workdir.name, metrics, self.config.epochs)

    def warn(self, text: str) -> None:
        self.overall.warn(text)
