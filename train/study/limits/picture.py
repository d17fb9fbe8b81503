"""The study in one picture: the gain in steps over the ratio of sharpness."""

import pathlib
from typing import Any

import numpy as np

from train.study import theme as looks
from train.study.limits.order import Plan
from train.study.limits.page import Point, comparisons, prediction_points
from train.study.limits.store import Store

MARKS = {"adam": "o", "sgd": "D"}
COLORS = {"adam": "gradient", "sgd": "update"}  # of the theme


def draw(store: Store, plan: Plan, out: pathlib.Path) -> None:
    """Draws the picture for a light ground and for a dark one."""
    points = prediction_points(store, list(comparisons(store, plan)))
    for theme, name in (("light", "gain.png"), ("dark", "gain-dark.png")):
        draw_gain(points, theme, out / name)


def draw_gain(points: list[Point], theme: str, path: pathlib.Path) -> None:
    """Draws a mark a pair: its ratio of sharpness, and the steps that GC needs."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**looks.settings(theme), "font.size": 9}):
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        panel = figure.subplots()
        panel.axhspan(1 / 1.05, 1.05, color=looks.FAINT[theme], alpha=0.2, linewidth=0)
        panel.axhline(1, color=looks.FAINT[theme], linewidth=1)
        for point in points:
            draw_point(panel, point, theme)
        panel.set_xlabel("sharpness without GC over that with GC, early in training")
        panel.set_ylabel("steps to the same loss, GC over none")
        panel.set_xscale("log")
        panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        panel.spines[["top", "right"]].set_visible(False)
        panel.patch.set_alpha(0)
        looks.save(figure, theme, path)


def draw_point(panel: Any, point: Point, theme: str) -> None:
    """Draws a pair with its interval and its name."""
    one = point.comparison
    color = looks.COLORS[theme][COLORS[one.optimizer]]
    mean, (low, high) = np.exp(one.steps.mean), np.exp(one.steps.interval)
    panel.plot([point.early] * 2, [low, high], color=color, linewidth=1.6)
    panel.plot(point.early, mean, MARKS[one.optimizer], color=color, markersize=5)
    panel.annotate(
        one.problem.name, (point.early, mean), xytext=(5, 2), fontsize=7,
        textcoords="offset points",
    )  # fmt: skip
