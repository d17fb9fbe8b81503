"""Measures how an epoch's time and memory grow with batch, image size and images.

    python -m benchmarks.scaling

Each row runs in its own process, which compiles the step and then trains an epoch on
random images. The model needs images of at least 94 pixels per side.
"""

import json
import subprocess
import sys

import tyro
from rich.console import Console
from rich.table import Table

BATCH, SIDE, IMAGES = 128, 300, 1027  # the published experiment's
ROWS = [
    *((batch, SIDE, IMAGES) for batch in (16, 64, 128, 256, 1024)),
    *((BATCH, side, IMAGES) for side in (150, 600)),
    *((BATCH, SIDE, images) for images in (512, 2054)),
]


def main() -> None:
    """Measures all rows and prints the table."""
    table = Table(
        "batch", "image side", "images", "epoch, s", "ms an image", "peak, GB"
    )
    for row in ROWS:
        command = [sys.executable, "-m", "benchmarks.epochs.single", *map(str, row)]
        output = subprocess.run(command, check=True, capture_output=True).stdout
        seconds, peak = json.loads(output)
        spent = (f"{seconds:.1f}", f"{1000 * seconds / row[-1]:.1f}")
        table.add_row(*map(str, row), *spent, f"{peak / 1e9:.2f}")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.scaling", description=__doc__)
