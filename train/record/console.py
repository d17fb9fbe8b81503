"""What a run shows in a terminal: its layers, its epochs, its progress."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import rich.console
import rich.table
from flax import linen as nn

from train.record import terminal
from train.record.metrics import metrics_in

Metrics = Mapping[str, Any]  # one line of metrics.jsonl


def layer_table(
    scores: Callable[..., Any], variables: Any, examples: Any
) -> rich.table.Table:
    """Returns a table of the layers in order: output, kernel, parameters.

    Args:
      scores: a function of variables and examples that runs the network.
      variables: the variables of a Flax module, including "params".
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
    """Returns the arrays that belong to the module at `path` itself, by name."""
    for key in path:
        params = params.get(key, {})
    return {k: leaf for k, leaf in params.items() if not isinstance(leaf, Mapping)}


def columns(names: Collection[str], available: int) -> dict[str, int]:
    """Returns the columns of the table of epochs, and their widths.

    Headings take one line, or one line per word if there is no room.
    """
    metrics = metrics_in(names).values()
    widths = {
        metric.short: max(8, len(metric.short) + 1, metric.digits + 4)
        for metric in metrics
    }
    fixed = {"epoch": 7, "time": 9}
    if sum([*fixed.values(), *widths.values()]) + len(widths) + 1 > available:
        widths = {
            metric.short: max(
                8, max(map(len, metric.short.split())) + 1, metric.digits + 4
            )
            for metric in metrics
        }
    return fixed | widths


def epoch_header(names: Collection[str], available: int) -> list[str]:
    """Returns the head of the table of epochs, whose lines have these metrics.

    Args:
      names: the names of the metrics.
      available: the columns that a line may take.
    """
    heads = {
        name: terminal.heading(name, width - 1)
        for name, width in columns(names, available).items()
    }
    height = max(map(len, heads.values()))
    filled = [[""] * (height - len(lines)) + lines for lines in heads.values()]
    widths = columns(names, available).values()
    return [
        " ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in zip(*filled, strict=True)
    ]


def epoch_line(label: str, seconds: float, metrics: Metrics, available: int) -> str:
    """Returns a row of the table of epochs; a dash stands for no evaluation."""
    cells = [label, f"{seconds:.2f} s"]
    for name, metric in metrics_in(metrics).items():
        value = metrics[name]
        cells.append("-" if value is None else metric.number(value))
    widths = columns(metrics, available).values()
    return " ".join(
        cell.rjust(width) for cell, width in zip(cells, widths, strict=True)
    )
