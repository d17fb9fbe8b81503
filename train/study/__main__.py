"""The study's page and pictures, made from its records.

    python -m train.study results

writes `README.md`, `study.png` and `study-dark.png` anew. FINDING.md there is written
by hand, and a test compares its figures with the records.
"""

import argparse
import pathlib

from train.study import page, picture, sweep
from train.study.confirm import primary
from train.study.tasks import TASKS


def main() -> None:
    """Writes the page and the pictures of the study below a folder anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=pathlib.Path, help="such as results")
    root = parser.parse_args().root
    confirmed = primary(root)
    parts = [
        (task, losses, [found for found in confirmed if found.task is task])
        for task in TASKS
        if sweep.is_whole(losses := sweep.read_sweep(root, task), task)
    ]
    picture.draw(parts, "light", root / "study.png")
    picture.draw(parts, "dark", root / "study-dark.png")
    (root / "README.md").write_text(page.page(root))


if __name__ == "__main__":
    main()
