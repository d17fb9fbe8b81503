"""The study's page and pictures, made from its records.

    python -m train.study results

rewrites `README.md`, `study.png`, `study-dark.png` and `sweep.png`. FINDING.md there is
written by hand, and a test compares its figures with the records.
"""

import argparse
import json
import pathlib

from train.config import expanded
from train.study import page, picture, sweep, sweep_picture
from train.study.confirm import primary
from train.study.control import controls
from train.study.tasks import TASKS


def main() -> None:
    """Rewrites the page and the pictures of the study in a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m train.study", description=main.__doc__
    )
    parser.add_argument("root", type=expanded, help="such as results")
    draw(root := parser.parse_args().root)
    (root / "README.md").write_text(page.page(root))


def draw(root: pathlib.Path) -> None:
    """Draws the study's pictures into its folder."""
    rates = page.rates_of(json.loads((root / "choice.json").read_text()))
    rows = picture.planned(primary(root), rates)
    groups = [("Planned: each arm at its own rate", rows)]
    if rows := picture.controlled(controls(root)):
        groups.append(("Control: one rate, or calmer rates", rows))
    picture.draw(groups, "light", root / "study.png")
    picture.draw(groups, "dark", root / "study-dark.png")
    swept = [(task, sweep.read_sweep(root, task)) for task in TASKS]
    sweep_picture.draw(swept, root / "sweep.png")


if __name__ == "__main__":
    main()
