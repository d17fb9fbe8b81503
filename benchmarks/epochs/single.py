"""Trains one epoch of the experiment's network on random images, in its own process.

python -m benchmarks.epochs.single BATCH SIDE IMAGES
"""

import json
import resource
import sys

from train.config import prepare_jax
from train.horses import Config


def train(batch: int, side: int, images: int) -> tuple[float, int]:
    """Returns the seconds of an epoch and this process's peak memory in bytes."""
    prepare_jax()
    import rich.console

    from benchmarks.epochs import random_tasks
    from train.engine import fit
    from train.faults import Stop
    from train.record.reporter import Reporter
    from train.tasks.horses import Horses

    config = Config(batch_size=batch, epochs=1, evaluate=False)
    task = Horses(random_tasks.images(images, (side, side, 3), 2))
    reporter = Reporter(None, rich.console.Console(quiet=True))
    fit.fit(config, task, reporter, Stop())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return reporter.history[0]["epoch_seconds"], peak


if __name__ == "__main__":
    print(json.dumps(train(*map(int, sys.argv[1:]))))
