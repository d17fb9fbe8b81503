"""Shows how an epoch's time and memory grow with batch, image size and images.

python -m benchmarks.scaling

Each row is a process of its own that compiles the step and then trains an epoch on
random images. The model needs images of at least 94 pixels a side.
"""

import json
import resource
import subprocess
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import commands
from train.config import prepare_jax
from train.horses import Config

BATCH, SIDE, IMAGES = 128, 300, 1027  # the published experiment's
ROWS = [
    *((batch, SIDE, IMAGES) for batch in (16, 64, 128, 256, 1024)),
    *((BATCH, side, IMAGES) for side in (150, 600)),
    *((BATCH, SIDE, images) for images in (512, 2054)),
]


def row(batch, side, images):
    """Returns the seconds of an epoch and this process's peak memory in bytes."""
    prepare_jax()
    import rich.console

    from train import data
    from train.engine import fit
    from train.faults import Stop
    from train.record.reporter import Reporter
    from train.tasks.horses import Horses

    config = Config(batch_size=batch, epochs=1, evaluate=False)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, side, side, 3), np.uint8)
    labels = rng.integers(0, 2, images, np.int32)
    train, test = data.Split(pixels, labels), data.Split(pixels[:1], labels[:1])
    task = Horses(data.Dataset("random", "as asked", ("0", "1"), train, test))
    reporter = Reporter(None, rich.console.Console(quiet=True))
    fit.fit(config, task, reporter, Stop())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return reporter.history[0]["epoch_seconds"], peak


def main():
    table = Table(
        "batch", "image side", "images", "epoch, s", "ms an image", "peak, GB"
    )
    for batch, side, images in ROWS:
        sizes = map(str, (batch, side, images))
        command = [sys.executable, "-m", "benchmarks.scaling", "--row", *sizes]
        output = subprocess.run(command, check=True, capture_output=True).stdout
        seconds, peak = json.loads(output)
        table.add_row(
            *map(str, (batch, side, images)),
            f"{seconds:.1f}",
            f"{1000 * seconds / images:.1f}",
            f"{peak / 1e9:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    if sizes := commands.parse("scaling").row:
        print(json.dumps(row(*sizes)))
    else:
        main()
