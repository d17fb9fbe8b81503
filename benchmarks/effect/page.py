"""Makes tables and a picture of the shares from their record."""

import pathlib
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.effect.networks import ROOT
from train.study import theme

RECORD = ROOT / "docs" / "removed.json"
SMALLEST = 1e-6  # a share below this is shown as 0
ORDER = (
    "LayerNorm",
    "RMSNorm",
    "attention",
    "ReLU between BatchNorms",
    "GELU",
    "ReLU",
    "images, standardized",
    "images",
)


def percent(share: float) -> str:
    """Returns a share below 99.5 % in percent, without the sign, in 1 or 2 digits."""
    if share < SMALLEST:
        return "0"
    return f"{100 * share:.{1 if share < 0.001 else 2}g}"


def span(shares: list[float]) -> str:
    """Returns the smallest and largest share in percent, or one if they agree."""
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def by_input(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the kernels' rows by what feeds them, with the least removed first."""
    return {
        what: [row for row in record["kernels"] if row["behind"] == what]
        for what in ORDER
    }


def markdown(record: dict[str, Any]) -> str:
    """Returns the table of shares in percent by what feeds a kernel."""
    lines = ["| after | kernels | chance, % | at the start, % | trained, % |"]
    lines.append("|---|---|---|---|---|")
    for what, kernels in by_input(record).items():
        spans = (
            span([1 / row["fan_in"] for row in kernels]),
            *(span([row[key] for row in kernels]) for key in ("start", "end")),
        )
        lines.append(f"| {' | '.join((what, str(len(kernels)), *spans))} |")
    return "\n".join(lines)


def show(record: dict[str, Any]) -> None:
    """Prints the shares of every kernel, in one table per network."""
    for training in record["trainings"]:
        name, steps, loss = (training[key] for key in ("network", "steps", "loss"))
        title = f"{name}: loss {loss} after {steps} steps"
        table = Table("kernel", "after", title=title, title_justify="left", box=None)
        for heading in ("fan-in", "chance, %", "at the start, %", "trained, %"):
            table.add_column(heading, justify="right")
        for row in record["kernels"]:
            if row["network"] == name:
                shares = map(percent, (1 / row["fan_in"], row["start"], row["end"]))
                names = row["kernel"], row["behind"], str(row["fan_in"])
                table.add_row(*names, *shares)
        Console(width=88).print(table, "")


def plot(record: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the shares by what feeds a kernel, for light and for dark pages."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for look in theme.THEMES:
        with mpl.rc_context(theme.settings(look)):
            figure = Figure(figsize=(6.8, 4.8), layout="constrained")
            draw_shares(figure.add_subplot(), by_input(record), look)
            title = "GC removes nearly nothing after a LayerNorm, most on images"
            figure.suptitle(title, weight="bold")
            file = path if look == "light" else path.with_stem(f"{path.stem}-{look}")
            theme.save(figure, look, file)


def draw_shares(panel: Any, groups: dict[str, list[dict[str, Any]]], look: str) -> None:
    """Draws a line for each group: its kernels at the start, trained, and by chance.

    Kernels are drawn at different heights, so that equal shares remain visible.
    """
    ink, orange = theme.INK[look], theme.COLORS[look]["update"]
    for y, kernels in enumerate(groups.values()):
        start, end = ([100 * row[key] for row in kernels] for key in ("start", "end"))
        chance = np.mean([100 / row["fan_in"] for row in kernels])
        heights = y + np.linspace(-0.25, 0.25, len(kernels))
        panel.hlines(y, 0, max(start + end), theme.FAINT[look], lw=0.8)
        marks = [
            panel.scatter(start, heights, 30, "none", edgecolors=orange),
            panel.scatter(end, heights, 30, orange, lw=0),
            panel.scatter([chance], [y], 300, ink, marker="|", lw=2),
        ]
        panel.text(104, y, f"{span([row['end'] for row in kernels])} %", va="center")
    names = "a kernel at the start", "trained, range at the right", "chance: 1 / fan-in"
    panel.legend(marks, names, loc="upper right", frameon=False)
    panel.set_yticks(range(len(groups)), groups)
    panel.set(xlim=(-2, 102), ylim=(len(groups) - 0.4, -0.6))
    panel.set_xlabel("share of the gradient's squared norm that GC removes, %")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(left=False)
    panel.patch.set_visible(False)  # the background is the figure's
