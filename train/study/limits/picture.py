"""The study in one picture: two fits, and the gain over the ratio of sharpness."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.study import theme as looks
from train.study.limits import fits
from train.study.limits.comparisons import Point, comparisons, prediction_points
from train.study.limits.order import Plan
from train.study.limits.store import Store

MARKS = {"adam": "o", "sgd": "D"}
COLORS = {"adam": "gradient", "sgd": "update"}  # of the theme
LABELS = {"adam": "Adam, GC on the gradient", "sgd": "SGD, GC on the gradient"}
TITLES = {"none": "without GC", "gradient": "with GC"}
NAMES = {
    "hopper": "photograph", "brain": "MRI", "hills": "elevation",
    "layernorm": "LayerNorm", "siren": "SIREN", "mlp": "MLP", "cnn": "CNN",
    "cnn-batchnorm": "CNN, BatchNorm", "cnn-layernorm": "CNN, LayerNorm",
    "pinn": "physics-informed",
}  # fmt: skip
RIGHT_OF = (5, 2, "left")  # where a name stands: points to the right and up, alignment
PLACES = {  # of those that have more room elsewhere
    ("brain", "adam"): (-5, 2, "right"),
    ("cnn", "adam"): (-5, 2, "right"),
    ("cnn", "sgd"): (5, -10, "left"),
    ("cnn-batchnorm", "adam"): (-5, 8, "right"),
    ("cnn-batchnorm", "sgd"): (7, -17, "right"),
    ("cnn-layernorm", "sgd"): (-17, 19, "left"),
    ("hopper", "adam"): (-5, 2, "right"),
    ("layernorm", "adam"): (-5, -11, "right"),
    ("mlp", "adam"): (-5, 2, "right"),
}
TICKS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.4, 1.7, 2, 3, 5, 10)
FILES = {"light": "gain.png", "dark": "gain-dark.png"}


def draw(store: Store, plan: Plan, out: pathlib.Path) -> None:
    """Draws the picture for a light ground and for a dark one."""
    points = prediction_points(store, list(comparisons(store, plan)))
    fitted = fits.read(store)
    for theme, name in FILES.items():
        draw_all(fitted, points, theme, out / name)


def draw_all(
    fitted: Mapping[str, tuple[np.ndarray, float]],
    points: Sequence[Point],
    theme: str,
    path: pathlib.Path,
) -> None:
    """Draws the fits side by side, if there are any, above the gains."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**looks.settings(theme), "font.size": 9}):
        figure = Figure(figsize=(4.6, 6.2 if fitted else 3.7), layout="constrained")
        below = figure
        if fitted:
            above, below = figure.subfigures(2, 1, height_ratios=(2.5, 3.7))
            panels = above.subplots(1, len(fitted))
            for panel, arm in zip(panels, fitted, strict=True):
                draw_fit(panel, arm, *fitted[arm])
        draw_gain(below.subplots(), points, theme)
        looks.save(figure, theme, path)


def draw_fit(panel: Any, arm: str, image: np.ndarray, psnr: float) -> None:
    """Draws a fitted picture under its arm and its PSNR."""
    panel.imshow(image, interpolation="nearest")
    panel.set_title(f"{TITLES[arm]}: {psnr:.1f} dB", fontsize=9)
    panel.set_axis_off()


def draw_gain(panel: Any, points: Sequence[Point], theme: str) -> None:
    """Draws a mark a pair: its ratio of sharpness, and the steps that GC needs."""
    from matplotlib.ticker import NullFormatter

    panel.axhspan(1 / 1.05, 1.05, color=looks.FAINT[theme], alpha=0.2, linewidth=0)
    panel.axhline(1, color=looks.FAINT[theme], linewidth=1)
    panel.set_xscale("log")
    panel.set_yscale("log")
    for point in points:
        draw_point(panel, point, theme)
    panel.set_xlim(min(panel.get_xlim()[0], 0.99))  # from 1, which is the least
    panel.set_xlabel("sharpness without GC over that with it, early in training")
    panel.set_ylabel("steps to the same loss, with GC over without")
    for axis in (panel.xaxis, panel.yaxis):
        low, high = axis.get_view_interval()
        ticks = [x for x in TICKS if low <= x <= high]
        axis.set_ticks(ticks, [f"{x:g}" for x in ticks])
        axis.set_minor_formatter(NullFormatter())
    panel.spines[["top", "right"]].set_visible(False)
    panel.patch.set_alpha(0)
    panel.legend(
        handles=handles(theme), frameon=False, fontsize=8, ncols=2,
        loc="lower left", bbox_to_anchor=(-0.02, 1),
    )  # fmt: skip


def draw_point(panel: Any, point: Point, theme: str) -> None:
    """Draws a pair with its interval and its name."""
    one = point.comparison
    color = looks.COLORS[theme][COLORS[one.optimizer]]
    mean, (low, high) = np.exp(one.steps.mean), np.exp(one.steps.interval)
    panel.plot([point.early] * 2, [low, high], color=color, linewidth=1.6)
    panel.plot(point.early, mean, MARKS[one.optimizer], color=color, markersize=5)
    if point.update:
        panel.plot(point.early, np.exp(point.update.steps.mean), **hollow(color))
    x, y, alignment = PLACES.get((one.problem.name, one.optimizer), RIGHT_OF)
    panel.annotate(
        NAMES.get(one.problem.name, one.problem.name), (point.early, mean),
        xytext=(x, y), ha=alignment, textcoords="offset points", fontsize=7,
    )  # fmt: skip


def hollow(color: str) -> dict[str, Any]:
    """Returns how GC on the update is marked."""
    return {
        "marker": "o", "markersize": 5, "color": color, "fillstyle": "none",
        "linestyle": "none",
    }  # fmt: skip


def handles(theme: str) -> list[Any]:
    """Returns what the legend shows."""
    from matplotlib.lines import Line2D

    colors = {name: looks.COLORS[theme][COLORS[name]] for name in MARKS}
    filled = [
        Line2D(
            [], [], marker=MARKS[name], color=color, linewidth=1.6, label=LABELS[name]
        )
        for name, color in colors.items()
    ]
    label = "Adam, GC on the update"
    return [*filled, Line2D([], [], label=label, **hollow(colors["adam"]))]
