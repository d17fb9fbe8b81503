"""The study in one picture: loss over learning rate, and the difference beneath it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.study import sweep
from train.study.confirm import Difference
from train.study.tasks import StudyTask

NAMES = {"none": "without GC", "gradient": "GC", "update": "GC on the update"}
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
    """Draws one column a task into a PNG.

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
    with mpl.rc_context(settings):
        figure = Figure(figsize=(4.2 * len(parts), 5.6), layout="constrained")
        rows = figure.subplots(
            2, len(parts), sharex="col", squeeze=False, height_ratios=(3, 2)
        )
        for (task, losses, confirmed), above, below in zip(parts, *rows, strict=True):
            draw_losses(above, task, losses, colors)
            draw_differences(below, task, losses, confirmed, colors)
        rows[0][0].set_ylabel("validation loss at the end")
        rows[1][0].set_ylabel("with GC minus without")
        most = max(rows[0], key=lambda panel: len(panel.get_legend_handles_labels()[0]))
        handles, labels = most.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            frameon=False,
            ncols=len(labels),
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
    finish(panel)


def draw_differences(
    panel: Any,
    task: StudyTask,
    losses: sweep.Losses,
    confirmed: Sequence[Difference],
    colors: dict[str, str],
) -> None:
    """Draws each arm's paired differences at each rate, over the band of the margin.

    The bars are 95 % intervals, by the deviation pooled over the rates about the best;
    the diamonds, beside the best rate, are the confirmed differences of fresh seeds.
    """
    from scipy import stats

    panel.axhspan(-task.margin, task.margin, color="#8b949e", alpha=0.22, linewidth=0)
    panel.axhline(0, color=colors["none"], linewidth=1)
    for i, arm in enumerate(task.arms):
        rates = sweep.rates(losses, arm)
        shifted = np.array(rates) * 1.06**i
        pairs = [sweep.paired(losses, arm, rate) for rate in rates]
        deviation, freedom = sweep.paired_deviation(losses, arm)
        half = stats.t.ppf(0.975, freedom) * deviation / np.sqrt(len(pairs[0]))
        panel.errorbar(
            shifted, [values.mean() for values in pairs], half,
            fmt="_", color=colors[arm], linewidth=1.2,
        )  # fmt: skip
        for rate, values in zip(shifted, pairs, strict=True):
            panel.plot([rate] * len(values), values, ".", color=colors[arm], alpha=0.6)
    for i, found in enumerate(confirmed):
        rate = sweep.best_rate(losses, found.arm) * 1.2 * 1.08**i
        low, high = found.interval
        panel.errorbar(
            rate, found.mean, [[found.mean - low], [high - found.mean]],
            fmt="D", color=colors[found.arm], linewidth=2.4, markersize=6,
        )  # fmt: skip
    panel.set_xlabel("learning rate")
    finish(panel)
    rates = sweep.rates(losses, "none")
    panel.set_xticks(rates, map("{:g}".format, rates))
    panel.minorticks_off()


def finish(panel: Any) -> None:
    panel.set_xscale("log")
    panel.spines[["top", "right"]].set_visible(False)
    panel.patch.set_alpha(0)
