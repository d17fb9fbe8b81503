"""The study in one picture: loss over learning rate, and the difference beneath it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.study import sweep
from train.study.confirm import Difference
from train.study.tasks import StudyTask

NAMES = {"none": "without GC", "gradient": "GC", "update": "GC on the update"}
ACROSS = 2  # tasks side by side
REACH = 16  # margins above the best loss that a panel shows
GROUND = {"light": "#ffffff", "dark": "#0d1117"}
INK = {"light": "#24292f", "dark": "#e6edf3"}
COLORS = {
    "light": {"none": "#57606a", "gradient": "#0969da", "update": "#bc4c00"},
    "dark": {"none": "#9198a1", "gradient": "#4493f8", "update": "#f0883e"},
}


def draw(
    parts: Sequence[tuple[StudyTask, sweep.Losses, Sequence[Difference]]],
    theme: str,
    path: pathlib.Path,
) -> None:
    """Draws two panels a task into a PNG.

    Args:
      parts: each task with its sweep, and its confirmed differences if there are any.
      theme: "light" or "dark", the ground that the picture is for.
      path: of the PNG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colors = COLORS[theme]
    keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
    settings = dict.fromkeys((*keys, "ytick.color"), INK[theme])
    across = min(len(parts), ACROSS)
    down = -(-len(parts) // across)
    with mpl.rc_context(settings):
        figure = Figure(figsize=(4.8 * across, 4.3 * down), layout="constrained")
        places = figure.subfigures(down, across, squeeze=False).flat
        lines: dict[str, Any] = {}
        for place, (task, losses, confirmed) in zip(places, parts, strict=False):
            above, below = place.subplots(2, sharex=True, height_ratios=(3, 2))
            draw_losses(above, task, losses, colors)
            draw_differences(below, task, losses, confirmed, colors)
            place.align_ylabels()
            handles, labels = above.get_legend_handles_labels()
            lines |= dict(zip(labels, handles, strict=True))
        figure.legend(
            lines.values(),
            lines.keys(),
            frameon=False,
            ncols=len(lines),
            loc="outside lower center",
        )
        figure.savefig(
            path, dpi=130, facecolor=GROUND[theme], metadata={"Software": None}
        )


def draw_losses(
    panel: Any, task: StudyTask, losses: sweep.Losses, colors: dict[str, str]
) -> None:
    """Draws each arm's loss at each rate: means, a dot a run, the best in a ring."""
    for arm in ("none", *task.arms):
        rates, means = sweep.rates(losses, arm), sweep.means(losses, arm)
        panel.plot(rates, means, color=colors[arm], label=NAMES[arm], linewidth=1.6)
        for rate in rates:
            every = [*losses[arm, rate].values()]
            panel.plot([rate] * len(every), every, ".", color=colors[arm], alpha=0.6)
        panel.plot(
            sweep.best_rate(losses, arm), means.min(), "o", markersize=11,
            markerfacecolor="none", markeredgewidth=1.6, color=colors[arm],
        )  # fmt: skip
    network, _, optimizer = task.title.partition(", ")[2].partition(", ")
    panel.set_title(f"{task.title.partition(',')[0]}\n{network}, {optimizer}",
                    fontsize=10)  # fmt: skip
    lowest = min(sweep.means(losses, arm).min() for arm in ("none", *task.arms))
    low, high = panel.get_ylim()
    panel.set_ylim(bottom=max(low, lowest - task.margin))
    panel.set_ylim(top=min(high, lowest + REACH * task.margin))
    panel.set_ylabel("validation loss")
    finish(panel)


def draw_differences(
    panel: Any,
    task: StudyTask,
    losses: sweep.Losses,
    confirmed: Sequence[Difference],
    colors: dict[str, str],
) -> None:
    """Draws each arm's paired differences at each rate, over the band of the margin.

    The bars are 95 % intervals where both arms end within `REACH` margins of the best,
    by the deviation pooled over these rates. The diamonds, beside the best rate, are
    the confirmed differences of fresh seeds. A triangle is a run beyond the frame.
    """
    from scipy import stats

    panel.axhspan(-task.margin, task.margin, color="#8b949e", alpha=0.22, linewidth=0)
    panel.axhline(0, color=colors["none"], linewidth=1)
    edge = 1.2 * task.margin
    for i, arm in enumerate(task.arms):
        near = sweep.usable(losses, arm, REACH * task.margin)
        means = np.array([sweep.paired(losses, arm, rate).mean() for rate in near])
        deviation, freedom = sweep.pooled(losses, arm, near)
        half = stats.t.ppf(0.975, freedom) * deviation / np.sqrt(seeds_of(losses))
        panel.errorbar(
            beside(near, i), means, half, fmt="_", color=colors[arm], linewidth=1.2
        )
        edge = max(edge, 1.1 * (np.abs(means) + half).max())
    for i, found in enumerate(confirmed):
        rate = sweep.best_rate(losses, found.arm) * 1.2 * 1.08**i
        low, high = found.interval
        panel.errorbar(
            rate, found.mean, [[found.mean - low], [high - found.mean]],
            fmt="D", color=colors[found.arm], linewidth=2.4, markersize=6,
        )  # fmt: skip
        edge = max(edge, 1.1 * np.abs((low, high)).max())
    panel.set_ylim(-edge, edge)
    for i, arm in enumerate(task.arms):
        rates = sweep.rates(losses, arm)
        for rate, at in zip(rates, beside(rates, i), strict=True):
            draw_pairs(panel, at, sweep.paired(losses, arm, rate), colors[arm])
    panel.set_xlabel("learning rate")
    panel.set_ylabel("GC minus none")
    finish(panel)
    rates = sweep.rates(losses, "none")
    panel.set_xticks(rates, map("{:g}".format, rates))
    panel.minorticks_off()


def seeds_of(losses: sweep.Losses) -> int:
    """Returns the number of seeds of a whole sweep."""
    return len(next(iter(losses.values())))


def beside(rates: Sequence[float], arm: int) -> np.ndarray:
    """Returns where an arm's marks stand, so that those of two arms do not overlap."""
    return np.array(rates) * 1.06**arm


def draw_pairs(panel: Any, rate: float, values: np.ndarray, color: str) -> None:
    """Draws a dot for each pair, or a triangle at the edge that it is beyond."""
    _, edge = panel.get_ylim()
    for value in values:
        marker = "." if abs(value) <= edge else ("^" if value > 0 else "v")
        inside = np.clip(value, -0.96 * edge, 0.96 * edge)
        panel.plot(rate, inside, marker, color=color, alpha=0.6, markersize=6)


def finish(panel: Any) -> None:
    panel.set_xscale("log")
    panel.spines[["top", "right"]].set_visible(False)
    panel.patch.set_alpha(0)
