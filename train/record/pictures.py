"""Pictures of one run and of many runs."""

import contextlib
import logging
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from train.faults import first_line
from train.record.console import Metrics
from train.record.metrics import metrics_in, sentence
from train.record.statistics import (
    Run,
    by_arm,
    by_rate,
    final,
    measured,
)

ERROR_SHOWN = 0.2  # of a range of 1; a common scale, so that pictures compare
ENERGY = (
    "Share of the energy of each kernel's gradient that GC removes, or would remove if "
    "it were on: the larger, the more GC changes"
)
DRIFT = (
    "Drift of each kernel's fan-in means since the start: under SGD, GC should leave "
    "only rounding"
)
# Distinct for every kind of color vision, with a contrast of 4.5 or more on white.
BLUE, ORANGE, GRAY, BLACK = "#0969da", "#bc4c00", "#57606a", "#24292f"
LINES = [(color, dash) for dash in ("-", "--", ":", "-.") for color in
         (BLUE, ORANGE, BLACK)]  # fmt: skip
SPLITS = {"train": (GRAY, "o"), "validation": (BLUE, "s"), "test": (ORANGE, "D")}
LOOKS = {
    "none": (GRAY, "-"), "gradient": (BLUE, "-"), "update": (ORANGE, "-"),
    "placebo": (BLACK, "--"), "first": (BLACK, ":"), "then-none": (GRAY, "-"),
    "then-gc": (BLUE, "-"),
}  # fmt: skip
NAMES = {"none": "without GC", "gradient": "GC on the gradient",
         "update": "GC on the update"}  # fmt: skip


def look(arm: str) -> tuple[str, str]:
    """Returns the color and the dashes of an arm's line; a subset's follow its name."""
    subsets = LINES[3:]
    return LOOKS.get(arm) or subsets[sum(arm.encode()) % len(subsets)]


@contextlib.contextmanager
def unless_undrawn(warn: Callable[[str], None]) -> Iterator[None]:
    """Skips the pictures drawn inside, with a warning, if drawing fails.

    They are made from the record, so without them nothing is lost.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its folders
    try:
        yield
    except Exception as error:  # from a backend, a font or a disk
        why = first_line(error)
        warn(f"no picture was drawn ({why}). The figures are recorded.")


def color(arm: str) -> str:
    """Returns the color of an arm."""
    return look(arm)[0]


def series(runs: Sequence[Run], metric: str) -> np.ndarray:
    """Returns a metric of every epoch, `(runs, epochs)`."""
    return np.array([[epoch[metric] for epoch in run.epochs] for run in runs])


def layer_series(runs: Sequence[Run], name: str) -> dict[str, np.ndarray]:
    """Returns a diagnostic of every layer, averaged over runs, `(epochs,)` each."""
    layers = runs[0].diagnostics[0][name]
    return {
        layer: np.mean([[d[name][layer] for d in run.diagnostics] for run in runs], 0)
        for layer in layers
    }


def tidy(panels: Iterable[Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)


def plot_curves(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Draws each arm's metrics over the epochs: mean, and a band of one deviation."""
    from matplotlib.figure import Figure

    # A test split that was opened once has no curve.
    metrics = {k: v for k, v in measured(runs).items() if k in runs[0].epochs[0]}
    columns = len(metrics) // 2  # training, and held-out where it was measured
    figure = Figure(figsize=(5 * columns, 6.4), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False).T.flat
    for panel, (name, metric) in zip(panels, metrics.items(), strict=True):
        for arm, members in by_arm(runs).items():
            values = series(members, name)
            epochs, mean = 1 + np.arange(values.shape[1]), values.mean(0)
            deviation = values.std(0, ddof=1) if len(values) > 1 else 0 * mean
            label = f"{arm} (n = {len(members)})"
            panel.plot(epochs, mean, color=color(arm), ls=look(arm)[1], label=label)
            panel.fill_between(
                epochs, mean - deviation, mean + deviation,
                color=color(arm), alpha=0.18, linewidth=0,
            )  # fmt: skip
        panel.set_title(sentence(metric.drawn))
    tidy(figure.axes)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def plot_rates(runs: Sequence[Run], metric: str, path: pathlib.Path) -> None:
    """Draws a final metric over the learning rate: a dot per run, a line per arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for arm, members in by_arm(runs).items():
        rates = by_rate(members)
        means = [final(at_rate, metric).mean() for at_rate in rates.values()]
        panel.plot(list(rates), means, color=color(arm), ls=look(arm)[1], label=arm)
        every = [run.rate for run in members]
        panel.plot(every, final(members, metric), ".", color=color(arm), alpha=0.5)
    panel.set_xscale("log")
    panel.set_xlabel("learning rate")
    panel.set_ylabel(measured(runs)[metric].drawn)
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def plot_layers(
    runs: Sequence[Run], name: str, title: str, path: pathlib.Path, scale: str
) -> None:
    """Draws a diagnostic of each layer over the epochs, one panel per arm.

    The title says what is drawn and what to expect.
    """
    from matplotlib.figure import Figure

    arms = by_arm(runs)
    width = max(3.6 * len(arms) + 1.2, 6)
    figure = Figure(figsize=(width, 3.9), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, (arm, members) in zip(panels, arms.items(), strict=True):
        for i, (layer, values) in enumerate(layer_series(members, name).items()):
            line, dash = LINES[i % len(LINES)]
            label = layer.removesuffix("/kernel")
            epochs = 1 + np.arange(len(values))
            panel.plot(epochs, values, label=label, color=line, ls=dash)
        panel.set_title(NAMES.get(arm, arm))
        panel.set_yscale(scale)
        if scale == "linear":
            panel.set_ylim(0, 1)
    tidy(panels)
    figure.suptitle(textwrap.fill(title, int(11 * width)))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center",
                  frameon=False)  # fmt: skip
    figure.savefig(path, dpi=130)


def plot_times(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Draws the seconds of every epoch as dots, and their median, for each arm."""
    from matplotlib.figure import Figure

    arms = by_arm(runs)
    figure = Figure(figsize=(5, 1 + 0.5 * len(arms)), layout="constrained")
    panel = figure.subplots()
    for row, (arm, members) in enumerate(arms.items()):
        seconds = series(members, "epoch_seconds").ravel()
        height = row + np.linspace(-0.2, 0.2, len(seconds))
        panel.plot(seconds, height, ".", color=color(arm), alpha=0.5)
        panel.plot([np.median(seconds)] * 2, [row - 0.35, row + 0.35], color="black")
    panel.set_yticks(range(len(arms)), list(arms))
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.set_xlabel("training seconds per epoch; the line is the median")
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def plot_all(runs: Sequence[Run], folder: pathlib.Path) -> None:
    """Draws the four pictures of a comparison into its folder."""
    plot_curves(runs, folder / "curves.png")
    plot_layers(runs, "removed_energy", ENERGY, folder / "energy.png", "linear")
    plot_layers(runs, "mean_drift", DRIFT, folder / "drift.png", "log")
    plot_times(runs, folder / "times.png")


def plot_reconstruction(
    image: np.ndarray, fit: np.ndarray, title: str, path: pathlib.Path
) -> None:
    """Draws an image, a fit of it, and the error, side by side.

    Args:
      image: `(H, W, C)` with values in [0, 1], where C is 1 or 3.
      fit: like the image; values outside the range are clipped.
      title: the title above all three.
      path: the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    error = np.abs(fit - image).mean(-1)
    for panel, name, shown in zip(
        panels, ("Image", "Fit"), (image, np.clip(fit, 0, 1)), strict=False
    ):
        panel.imshow(shown, cmap="gray", vmin=0, vmax=1)
        panel.set_title(name)
    drawn = panels[2].imshow(error, cmap="magma", vmin=0, vmax=ERROR_SHOWN)
    panels[2].set_title("Absolute error")
    ticks = np.linspace(0, ERROR_SHOWN, 5)
    figure.colorbar(drawn, ax=panels[2], shrink=0.8, extend="max", ticks=ticks)
    for panel in panels:
        panel.set_axis_off()
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def plot_run(history: Sequence[Metrics], path: pathlib.Path, title: str) -> None:
    """Draws loss, score and time per epoch into a PNG.

    Args:
      history: the lines of metrics.jsonl.
      path: the PNG.
      title: what was run.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    epochs = [epoch["epoch"] for epoch in history]
    metrics = metrics_in(history[0])
    kinds = dict.fromkeys(metric.kind for metric in metrics.values())
    for panel, kind in zip(panels, kinds, strict=False):
        for name, metric in metrics.items():
            values = [epoch[name] for epoch in history]
            if metric.kind == kind and None not in values:
                line, mark = SPLITS[metric.split]
                label = metric.drawn.removesuffix(f" {kind}")
                panel.plot(epochs, values, color=line, marker=mark, ms=4, label=label)
        panel.set_title(sentence(kind))
        panel.legend(frameon=False)
    panels[2].bar(epochs, [epoch["epoch_seconds"] for epoch in history], color="0.6")
    panels[2].set_title("Training time, seconds")
    tidy(panels)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
