"""Writes a run's metrics as TensorBoard event files, besides its record."""

import atexit
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from train.record.console import Metrics
from train.record.metrics import metrics_in
from train.record.reporter import Draw, Reporter

FOLDER = "tensorboard"


class TensorBoardReporter(Reporter):
    """Keeps a run's record and writes event files into its folder `tensorboard`.

    The steps are those of the run. The tags are `loss/train`, `accuracy/test`...,
    `epoch_seconds` and, for each kernel, `removed_energy/PATH` and `mean_drift/PATH`.
    """

    events: "Events | None" = None  # opened when there is something to write

    def resumed(self, steps: int, epochs_done: int, steps_done: int) -> None:
        super().resumed(steps, epochs_done, steps_done)
        self.steps_done = epochs_done * steps + steps_done

    def evaluation(
        self, step: int, seconds: float, metrics: Metrics, *, within_epoch: bool
    ) -> None:
        super().evaluation(step, seconds, metrics, within_epoch=within_epoch)
        if within_epoch:  # at its end, `epoch` reports the same
            self.write(step, by_tag(metrics))

    def epoch(self, metrics: Metrics, diagnostics: dict[str, dict[str, float]]) -> None:
        super().epoch(metrics, diagnostics)
        values = by_tag(metrics) | {"epoch_seconds": metrics["epoch_seconds"]}
        for name, leaves in diagnostics.items():
            values |= {f"{name}/{path}": value for path, value in leaves.items()}
        self.write(metrics["epoch"] * self.steps, values)

    def finish(self, test: Metrics, draw: Draw | None = None) -> None:
        if test:
            self.write(self.config.epochs * self.steps, by_tag(test))
        super().finish(test, draw)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by tag, at a step of the run."""
        if not self.workdir:
            return
        if self.events is None:
            self.events = Events(self.workdir / FOLDER, self.steps_done + 1)
        self.events.write(step, values)


def by_tag(metrics: Metrics) -> dict[str, float]:
    """Returns the available losses and scores by tag."""
    values = {}
    for name in metrics_in(metrics):
        split, _, kind = name.partition("_")
        if metrics[name] is not None:
            values[f"{kind}/{split}"] = metrics[name]
    return values


class Events:
    """A new event file, which is on disk up to the last event written."""

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Opens the file.

        Args:
          folder: where to put it, beside those of the run's earlier parts.
          first_step: from this step on, TensorBoard drops what those contain.
        """
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(exist_ok=True)
        self.writer = EventsWriter(str(folder / "events"), f".{first_step}")
        atexit.register(self.writer.close)
        self.put(first_step, session_log={"status": "START"})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by tag, at a step."""
        pairs = [{"tag": tag, "simple_value": x} for tag, x in values.items()]
        self.put(step, summary={"value": pairs})

    def put(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self.writer.write_event(Event(wall_time=time.time(), step=step, **content))
        self.writer.flush()
