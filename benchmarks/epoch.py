"""Times an epoch of ours against peers that do the same work, one after another.

    python -m benchmarks.epoch --keras-python ENV/bin/python \
                               --torch-python ENV/bin/python

Each contender runs in its own process, with the same images, model, batch and
augmentation. They take turns for some rounds, so that a slow minute of the machine
affects all of them. The first epoch of a process, in which some compile, is not
counted.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from train.config import Paths, default_data_dir

PEERS = pathlib.Path(__file__).parent / "epochs" / "peers"
MATMUL = """
import json, time, jax, jax.numpy as jnp
multiply, a = jax.jit(jnp.matmul), jnp.ones((2048, 2048))
multiply(a, a).block_until_ready()
start = time.perf_counter()
for _ in range(20): a_squared = multiply(a, a).block_until_ready()
print(json.dumps({"flop_per_second": 20 * 2 * 2048**3 / (time.perf_counter() - start)}))
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Paths):
    """Times an epoch of ours against peers, in turn."""

    keras_python: pathlib.Path | None = None
    """Python interpreter with keras, tensorflow and jax."""

    keras_backends: tuple[str, ...] = ("tensorflow", "jax")
    """Backends on which to run Keras."""

    torch_python: pathlib.Path | None = None
    """Python interpreter with torch."""

    rounds: int = 2
    """Number of turns of each contender."""

    epochs: int = 3
    """Epochs per turn; the first is not counted."""

    batch_size: int = 128
    """Images per step."""

    dataset: str = "auto"
    """Images to use, named as for `python -m train.horses`."""

    data_dir: pathlib.Path = dataclasses.field(default_factory=default_data_dir)
    """The TensorFlow Datasets folder."""


@dataclasses.dataclass
class Result:
    """The result of one contender's turns: the seconds of each turn's epochs."""

    turns: list[list[float]] = dataclasses.field(default_factory=list)
    peak_bytes: int = 0


def ours(options, name, workdir):
    """Returns the command that trains with this repository, and its environment."""
    command = [sys.executable, "-m", "train.horses", "--no-gc", "--no-evaluate"]
    command += ["--dataset", name, "--data-dir", str(options.data_dir)]
    command += ["--epochs", str(options.epochs), "--workdir", str(workdir)]
    return [*command, "--batch-size", str(options.batch_size)], {}


def contenders(options, name, folder):
    """Returns the command and environment of each, by name."""
    arguments = [str(folder / "images.npz"), options.epochs, options.batch_size]
    arguments = [str(argument) for argument in arguments]
    commands = {"optax_gc": ours(options, name, folder / "run")}
    if options.keras_python:
        command = [options.keras_python, PEERS / "keras_epoch.py", *arguments]
        for backend in options.keras_backends:
            commands[f"Keras on {backend}"] = command, {"KERAS_BACKEND": backend}
    if options.torch_python:
        command = [options.torch_python, PEERS / "torch_epoch.py", *arguments]
        commands["PyTorch"] = command, {}
    return commands


def run(command, environment):
    """Returns a process's JSON lines and its peak memory in bytes."""
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} failed:\n{output}")
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return lines, usage.ru_maxrss * 1024


def take_turn(command, environment, folder):
    """Returns the seconds of the counted epochs, and the process's peak memory."""
    lines, peak = run(command, environment)
    record = folder / "run" / "metrics.jsonl"
    if record.exists():  # ours records its epochs there
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        shutil.rmtree(record.parent)
    return [line["epoch_seconds"] for line in lines][1:], peak


def ratio(ours, theirs):
    """Returns the median over rounds of the ratio of our time to theirs."""
    rounds = zip(ours.turns, theirs.turns, strict=True)
    return statistics.median(
        statistics.median(one) / statistics.median(other) for one, other in rounds
    )


def report(results, flop, flop_per_second):
    """Prints medians, the ratios of our time to theirs, and peak memory."""
    floor = flop / statistics.median(flop_per_second)
    table = Table("", "epoch, s", "range, s", "ours / it", "peak, GB")
    for name, result in results.items():
        seconds = [*itertools.chain(*result.turns)]
        table.add_row(
            name,
            f"{statistics.median(seconds):.1f}",
            f"{min(seconds):.1f} to {max(seconds):.1f}",
            f"{ratio(results['optax_gc'], result):.2f}",
            f"{result.peak_bytes / 1e9:.2f}",
        )
    table.add_row("arithmetic floor", f"{floor:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"The floor is {flop / 1e12:.2f} TFLOP per epoch at the "
        f"{flop / floor / 1e9:.0f} GFLOP/s of a 2048x2048 float32 product."
    )


def main(options):
    from benchmarks.epochs.flop import layer_flop
    from train import data

    dataset = data.load(options.dataset, options.data_dir)
    images, labels = dataset.train.images, dataset.train.labels
    name = dataset.name.split("/")[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        np.savez(folder / "images.npz", images=images, labels=labels)
        commands = contenders(options, name, folder)
        results = {contender: Result() for contender in commands}
        flop_per_second = []
        for _ in range(options.rounds):
            lines, _ = run([sys.executable, "-c", MATMUL], {})
            flop_per_second.append(lines[0]["flop_per_second"])
            for contender, (command, environment) in commands.items():
                seconds, peak = take_turn(command, environment, folder)
                result = results[contender]
                result.turns.append(seconds)
                result.peak_bytes = max(result.peak_bytes, peak)
                print(f"{contender}: {', '.join(f'{s:.1f}' for s in seconds)} s")
    flop = len(labels) * sum(layer_flop(images.shape[1]).values())
    report(results, flop, flop_per_second)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.epoch", description=__doc__))
