"""The study in one picture: a row per comparison, in units of its margin."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from train.study import confirm
from train.study import theme as looks
from train.study.confirm import Difference
from train.study.control import Found, corrected_p

WIDTH = 4.4  # inches: 9-point letters are 10 pixels high on a screen of 390 pixels
REACH = 5.0  # margins to each side
UNIT = 0.43  # inches per row
MARKS = {"gradient": "o", "update": "D"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A comparison as shown in the picture.

    Attributes:
      name: what was trained, and how.
      detail: pairs and rates.
      found: the paired differences.
      is_settled: whether the plan's rule gives a verdict.
    """

    name: str
    detail: str
    found: Difference
    is_settled: bool


def planned(
    found: Sequence[Difference], rates: Mapping[str, Mapping[str, float]]
) -> list[Row]:
    """Returns the rows of the primary comparisons.

    Args:
      found: all of them.
      rates: the chosen ones, by task and arm.
    """
    corrected = confirm.holm([one.p for one in found], len(found))
    return [
        row(
            one.task.label,
            (rates[one.task.name][one.arm], rates[one.task.name]["none"]),
            f"{len(one.values)} pairs",
            one,
            p,
        )
        for one, p in zip(found, corrected, strict=True)
    ]


def controlled(made: Sequence[Found]) -> list[Row]:
    """Returns the rows of the control."""
    return [
        row(
            one.control.text,
            one.control.rates,
            f"{one.control.count} {one.control.unit}",
            one.difference,
            p,
        )
        for one, p in zip(made, corrected_p(made), strict=True)
    ]


def row(
    name: str, rates: tuple[float, float], count: str, found: Difference, p: float
) -> Row:
    """Returns a comparison's row; `p` is corrected for its family."""
    ours, theirs = rates
    at = f"{ours:g}" if ours == theirs else f"{ours:g} and {theirs:g}"
    return Row(name, f"{count} at {at}", found, found.answer(p) != "not settled")


def draw(
    groups: Sequence[tuple[str, Sequence[Row]]], theme: str, path: pathlib.Path
) -> None:
    """Draws the comparisons of each group, under its title, into a PNG.

    A mark is the mean difference, filled if the comparison is settled, and the line is
    its 95 % interval; an arrow means that it continues outside the frame. The band is
    the margin.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = sum(len(group) for _, group in groups)
    height = UNIT * (rows + 0.75 * len(groups)) + 1.25
    with mpl.rc_context({**looks.settings(theme), "font.size": 9}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panel = figure.subplots()
        panel.axvspan(-1, 1, color=looks.FAINT[theme], alpha=0.2, linewidth=0)
        panel.axvline(0, color=looks.FAINT[theme], linewidth=1)
        place = 0.0
        for title, group in groups:
            panel.text(-REACH, place, title, fontweight="bold", va="center")
            place += 0.75
            for row in group:
                draw_row(panel, row, place, theme)
                place += 1
        finish(panel, place, theme)
        figure.legend(
            handles=handles(theme), frameon=False, ncols=2, loc="outside lower center",
            fontsize=8,
        )  # fmt: skip
        looks.save(figure, theme, path)


def draw_row(panel: Any, row: Row, place: float, theme: str) -> None:
    """Draws a comparison, with its label above its interval."""
    margin = row.found.task.margin
    color = looks.COLORS[theme][row.found.arm]
    low, high = (end / margin for end in row.found.interval)
    panel.text(-REACH, place - 0.17, row.name, va="center")
    panel.text(REACH, place - 0.17, row.detail, va="center", ha="right",
               color=looks.FAINT[theme], fontsize=8)  # fmt: skip
    at = place + 0.22
    panel.plot([max(low, -REACH), min(high, REACH)], [at, at], color=color, lw=2.2)
    for end, marker in ((low, "<"), (high, ">")):
        if abs(end) > REACH:
            panel.plot(REACH if end > 0 else -REACH, at, marker, color=color, ms=5)
    panel.plot(
        row.found.mean / margin, at, MARKS[row.found.arm], markersize=7, color=color,
        markerfacecolor=color if row.is_settled else looks.GROUND[theme],
        markeredgewidth=1.8, zorder=3,
    )  # fmt: skip


def finish(panel: Any, bottom: float, theme: str) -> None:
    """Draws the axis, and explains its ends and the marks."""
    panel.set_ylim(bottom + 0.1, -0.55)
    panel.set_xlim(-1.04 * REACH, 1.04 * REACH)
    panel.set_yticks([])
    panel.set_xticks(range(-4, 5, 2))
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.patch.set_alpha(0)
    for side, words in (
        (-1, "$\\leftarrow$ GC better"),
        (1, "GC worse $\\rightarrow$"),
    ):
        panel.text(
            side * REACH, bottom - 0.2, words, ha="right" if side > 0 else "left",
            va="center", fontweight="bold",
        )  # fmt: skip
    panel.set_xlabel("loss with GC minus loss without it, in margins", fontsize=8)


def handles(theme: str) -> list[Any]:
    """Returns the legend's entries: a mark for each arm, then what the marks mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colors, ink = looks.COLORS[theme], looks.INK[theme]
    marks = [
        Line2D([], [], marker=mark, color=colors[arm], linewidth=2.2, label=name)
        for arm, mark, name in (
            ("gradient", MARKS["gradient"], "GC on the gradient, 95 % interval"),
            ("update", MARKS["update"], "GC on the update"),
        )
    ]
    empty = {"marker": "o", "color": ink, "linestyle": "none"}
    return [
        *marks,
        Line2D([], [], **empty, label="filled: settled"),
        Line2D([], [], **empty, markerfacecolor="none", label="open: not settled"),
        Patch(color=looks.FAINT[theme], alpha=0.2, label="too small to matter"),
    ]
