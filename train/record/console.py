"""What a run shows in a terminal: its layers, its epochs, its progress."""

import datetime
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import rich.console
import rich.progress
import rich.table
from flax import linen as nn

Metrics = Mapping[str, Any]  # one line of metrics.jsonl

NAMES = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
}


def layer_table(
    scores: Callable[..., Any], variables: Any, examples: Any
) -> rich.table.Table:
    """Returns a table of the layers in their order: output, kernel, parameters.

    Args:
      scores: from variables and examples to what the network makes of them.
      variables: those of a Flax module, with "params" among them.
      examples: a batch; only its shapes are used.
    """
    calls: dict[tuple[str, ...], str] = {}

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        calls[context.module.path] = str(getattr(output, "shape", ("",))[1:])
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(scores, variables, examples)
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("Layer", "Output", "Kernel"):
        table.add_column(name)
    table.add_column("Parameters", justify="right")
    for path, output in calls.items():
        leaves = own_leaves(variables["params"], path)
        if leaves:
            kernel = max(leaves.values(), key=lambda leaf: leaf.ndim).shape
            count = sum(leaf.size for leaf in leaves.values())
            table.add_row("/".join(path), output, str(kernel), f"{count:,}")
    total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    table.add_row("total", "", "", f"{total:,}")
    return table


def own_leaves(params: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """Returns the arrays that the module at `path` has itself, by name."""
    for key in path:
        params = params.get(key, {})
    return {k: leaf for k, leaf in params.items() if not isinstance(leaf, Mapping)}


def columns(keys: Iterable[str]) -> dict[str, int]:
    """Returns the columns of the table of epochs, and their widths."""
    names = [name for key, name in NAMES.items() if key in keys]
    return {"epoch": 7, "time": 9} | {name: max(8, len(name) + 1) for name in names}


def epoch_header(split: str) -> str:
    """Returns the head of the table of epochs, with metrics of a held-out split."""
    keys = ("train_loss", "train_accuracy", f"{split}_loss", f"{split}_accuracy")
    return " ".join(name.rjust(width) for name, width in columns(keys).items())


def epoch_line(metrics: Metrics, epochs: int) -> str:
    """Returns the row of the table of epochs; a dash stands for no evaluation."""
    cells = [f"{metrics['epoch']}/{epochs}", f"{metrics['epoch_seconds']:.2f} s"]
    values = [metrics[key] for key in NAMES if key in metrics]
    cells += ["-" if value is None else f"{value:.4f}" for value in values]
    widths = columns(metrics).values()
    return " ".join(
        cell.rjust(width) for cell, width in zip(cells, widths, strict=True)
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

    def epoch(self, run: str, metrics: Metrics, epochs: int) -> None:
        """Shows that a run has finished an epoch, and the time left for all runs."""
        self.done += 1
        seconds = (time.monotonic() - self.start) / self.done
        left = datetime.timedelta(seconds=round(seconds * (self.total - self.done)))
        line = f"{run:16} {epoch_line(metrics, epochs)}"
        self.progress.update(self.task, advance=1, description=run)
        if self.console.is_terminal:
            self.console.print(line, highlight=False)
        else:
            self.console.print(f"{line}   {left} left", highlight=False, soft_wrap=True)
