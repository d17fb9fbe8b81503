"""The look of the study's pictures, on a light and on a dark background."""

import pathlib
from typing import Any

GROUND = {"light": "#ffffff", "dark": "#0d1117"}
INK = {"light": "#24292f", "dark": "#e6edf3"}
FAINT = {"light": "#57606a", "dark": "#9198a1"}  # contrast 6.4 and 6.2
# Blue and orange, distinct for every kind of colour vision; contrast at least 4.5.
COLORS = {
    "light": {"none": "#57606a", "gradient": "#0969da", "update": "#bc4c00"},
    "dark": {"none": "#9198a1", "gradient": "#4493f8", "update": "#f0883e"},
}
THEMES = tuple(GROUND)
NAMES = {"none": "without GC", "gradient": "GC", "update": "GC on the update"}


def settings(theme: str) -> dict[str, Any]:
    """Returns Matplotlib's settings for a theme: "light" or "dark"."""
    keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
    return dict.fromkeys((*keys, "ytick.color"), INK[theme])


def save(figure: Any, theme: str, path: pathlib.Path) -> None:
    """Writes a figure as a PNG whose bytes do not depend on when it is drawn."""
    figure.savefig(path, dpi=200, facecolor=GROUND[theme], metadata={"Software": None})
