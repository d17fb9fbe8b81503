"""The progress of many runs, one after another."""

import datetime
import pathlib
import time
from collections.abc import Collection

import rich.console
import rich.progress

from train.record import workdir
from train.record.console import Metrics, epoch_header, epoch_line
from train.record.reporter import Reporter
from train.record.terminal import NARROWEST, fitted, shortened

REMEDY = "Repeat the command to continue."
NAME_WIDTH = 16


class Overall:
    """Progress over many runs: one line per epoch, and in a terminal a bar below."""

    def __init__(
        self, console: rich.console.Console, epochs: int, runs: Collection[str] = ()
    ):
        """Starts with nothing done.

        Args:
          console: where to show the progress.
          epochs: the number of epochs in all runs together.
          runs: the names of the runs, if known.
        """
        self.console = console
        self.name_width = max(map(len, runs), default=NAME_WIDTH)
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
        if self.done == 1:
            self.show_header(metrics)
        label, available = f"{metrics['epoch']}/{epochs}", self.available
        line = epoch_line(label, metrics["epoch_seconds"], metrics, available)
        name = shortened(run, self.columns - len(line) - 1)
        self.progress.update(self.task, advance=1, description=run)
        rest = "" if self.console.is_terminal else f"{left!s:>10}"
        self.show(f"{name:{self.longest(len(line))}} {line}{rest}")

    def show_header(self, metrics: Metrics) -> None:
        """Shows the head of the table of epochs."""
        *above, last = epoch_header(metrics, self.available)
        widest = self.longest(len(last))
        for line in above:
            self.show(f"{'':{widest}} {line}")
        rest = "" if self.console.is_terminal else f"{'left':>10}"
        self.show(f"{'run':{widest}} {last}{rest}")

    @property
    def columns(self) -> int:
        """The most columns that a line may take; a pipe has room for all names."""
        return max(NARROWEST, self.console.width) if self.console.is_terminal else 1000

    @property
    def available(self) -> int:
        """The most columns that the figures may take beside the names of the runs."""
        return max(NARROWEST, self.console.width) - self.name_width - 1

    def longest(self, line: int) -> int:
        """Returns the width of the names' column beside a line of figures."""
        return min(self.name_width, self.columns - line - 1)

    def show(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.show(fitted(f"warning: {text}", self.columns))


class Member(Reporter):
    """Keeps the record of one run of many, and shows its epochs among the others'."""

    def __init__(self, folder: workdir.Folder | pathlib.Path, overall: Overall):
        quiet = rich.console.Console(quiet=True)
        super().__init__(folder, quiet, lambda folder: REMEDY)
        self.overall = overall

    def epoch(self, metrics: Metrics, diagnostics: dict[str, dict[str, float]]) -> None:
        super().epoch(metrics, diagnostics)
        self.overall.epoch(self.workdir.name, metrics, self.config.epochs)

    def warn(self, text: str) -> None:
        self.overall.warn(text)
