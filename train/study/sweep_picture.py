"""The sweep as panels: the loss of every run over the learning rate."""

import pathlib
from collections.abc import Sequence
from typing import Any

from train.study import sweep
from train.study import theme as looks
from train.study.tasks import StudyTask

ACROSS = 2  # tasks side by side
REACH = 16  # margins above the best loss that a panel shows


def draw(parts: Sequence[tuple[StudyTask, sweep.Losses]], path: pathlib.Path) -> None:
    """Draws a panel with the sweep of each task into a PNG for a light background."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    across = min(len(parts), ACROSS)
    down = -(-len(parts) // across)
    with mpl.rc_context(looks.settings("light")):
        figure = Figure(figsize=(4.6 * across, 3.2 * down + 0.6), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False)
        for panel, (task, losses) in zip(panels.flat, parts, strict=False):
            draw_losses(panel, task, losses, looks.COLORS["light"])
        for panel in panels[:, 0]:
            panel.set_ylabel("loss on tuning data")
        figure.suptitle("Every run of the sweep: lower is better", fontweight="bold")
        figure.legend(
            handles=handles(), frameon=False, ncols=3, loc="outside lower center"
        )
        looks.save(figure, "light", path)


def handles() -> list[Any]:
    """Returns the legend's entries: a line for each arm, then each mark."""
    from matplotlib.lines import Line2D

    colors = looks.COLORS["light"]
    plain = {"linestyle": "none", "color": looks.INK["light"]}
    arms = [
        Line2D([], [], color=colors[arm], label=f"{name}: mean of two seeds")
        for arm, name in looks.NAMES.items()
    ]
    return [
        *arms,
        Line2D([], [], marker=".", label="a run", **plain),
        Line2D([], [], marker="^", label="a run above the frame", **plain),
        Line2D([], [], marker="o", markersize=10, markerfacecolor="none",
               label="the rate that was chosen", **plain),
    ]  # fmt: skip


def draw_losses(
    panel: Any, task: StudyTask, losses: sweep.Losses, colors: dict[str, str]
) -> None:
    """Draws each arm's loss at each rate: means, a dot per run, a ring for the best."""
    arms = ("none", *task.arms)
    every = [loss for by_seed in losses.values() for loss in by_seed.values()]
    lowest = min(sweep.means(losses, arm).min() for arm in arms)
    top = min(max(every), lowest + REACH * task.margin)
    space = 0.05 * (top - min(every))
    for i, arm in enumerate(arms):
        rates, means = sweep.rates(losses, arm), sweep.means(losses, arm)
        panel.plot(rates, means, color=colors[arm], linewidth=1.6)
        best = sweep.best_rate(losses, arm)
        panel.plot(
            best, means.min(), "o", markersize=10, markerfacecolor="none",
            markeredgewidth=1.6, color=colors[arm],
        )  # fmt: skip
        for rate in rates:
            for loss in losses[arm, rate].values():
                mark, at = ("^", top + space) if loss > top else (".", loss)
                panel.plot(rate * 1.05 ** (i - 1), at, mark, color=colors[arm])
    panel.set_ylim(min(every) - space, top + 2 * space)
    network, _, optimizer = task.title.partition(", ")[2].partition(", ")
    name = task.title.partition(",")[0]
    panel.set_title(f"{name}\n{network}, {optimizer}", fontsize=10)
    panel.set_xlabel("learning rate")
    panel.set_xscale("log")
    rates = sweep.rates(losses, "none")
    panel.set_xticks(rates, map("{:g}".format, rates))
    panel.minorticks_off()
    panel.spines[["top", "right"]].set_visible(False)
    panel.patch.set_alpha(0)
