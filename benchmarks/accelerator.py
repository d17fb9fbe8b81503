"""Measures how fast this machine's devices train, in at most eight minutes.

    python -m benchmarks.accelerator                # GPU, TPU or CPU
    python -m benchmarks.accelerator --tasks horses --out h100.json

The three tasks train on random data of the real shapes and sizes, in float32 and in
bfloat16, with GC. Each part runs in its own process, so its peak memory is its own, and
a failure is reported in its row. Nothing is read from a cache of compiled programs.
"""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeAlias

import tyro
from rich.console import Console

from train.config import Paths, keep_freed_memory, prepare_jax

Record: TypeAlias = dict[str, Any]
Part: TypeAlias = tuple[tuple[str, ...], Callable[..., Record], tuple[Any, ...]]

BUDGET = 8 * 60  # seconds
PART = 2 * 60  # seconds of them that one part may take
PATIENCE = 10  # seconds in which a finished process has to exit
PRECISIONS = ("float32", "bfloat16")
MODELS = ("CNN", "ResNet-50", "GPT-2")
TOLERANCE = 0.02  # relative, for the mean loss over the first steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Paths):
    """Times training on this machine's devices, in at most eight minutes."""

    tasks: tuple[Literal["horses", "fashion", "shakespeare"], ...] = (
        "horses", "fashion", "shakespeare",
    )  # fmt: skip
    """Tasks to train."""

    quick: bool = False
    """Use few small examples and updates, to check that it runs."""

    out: pathlib.Path | None = None
    """File for the measurements, in JSON."""


def parts(options: Options) -> Iterator[Part]:
    """Yields each part's place in the record, its function and its arguments."""
    from benchmarks.devices import parts as measured

    quick = options.quick
    yield ("device",), measured.measure_device, (128 if quick else None,)
    for task in options.tasks:
        for precision in PRECISIONS:
            arguments = (task, precision, quick)
            yield ("tasks", task, precision), measured.measure_task, arguments
    for model in MODELS[:1] if quick else MODELS:
        arguments = (model, 3 if quick else 15)
        yield ("updates", model), measured.measure_update, arguments


def in_own_process(
    function: Callable[..., Record], *arguments: Any, seconds: float
) -> Record:
    """Returns a function's result from a new process, or how it failed.

    Args:
      function: an importable function.
      arguments: its arguments.
      seconds: the time after which the process is ended.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=deliver, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            process.kill()
            return {"failed": f"not done after {seconds:.0f} s"}
        return here.recv()
    except EOFError:
        process.join()
        return {"failed": f"the process ended with status {process.exitcode}"}
    finally:
        process.join(PATIENCE)  # only one at a time may have the device
        process.kill()


def deliver(
    pipe: Connection, function: Callable[..., Record], arguments: tuple[Any, ...]
) -> None:
    """Sends a function's result, or how it failed: the work of each process."""
    keep_freed_memory()
    from benchmarks.devices import parts as measured

    pipe.send(measured.attempt(function, *arguments))


def measure(options: Options, console: Console) -> Record:
    """Returns the whole record; it is written after each part."""
    start = time.perf_counter()
    record: Record = {"options": {"tasks": options.tasks, "quick": options.quick}}
    for path, function, arguments in parts(options):
        begun = time.perf_counter()
        left = BUDGET - (begun - start)
        found = {"failed": f"skipped: {BUDGET // 60} minutes are over"}
        if left > 0:
            found = in_own_process(function, *arguments, seconds=min(left, PART))
        put(record, path, found)
        seconds = time.perf_counter() - begun
        console.print(f"{', '.join(path)}: {found.get('failed', f'{seconds:.0f} s')}")
        record["seconds"] = time.perf_counter() - start
        conclude(record)
        if options.out:
            options.out.write_text(json.dumps(record, indent=1))
    return record


def put(record: Record, path: tuple[str, ...], found: Record) -> None:
    """Puts a part's result in its place in the record."""
    for name in path[:-1]:
        record = record.setdefault(name, {})
    record[path[-1]] = found


def conclude(record: Record) -> None:
    """Adds what follows from several parts: shares of the peak, compared losses."""
    peaks = record["device"].get("peaks", {})
    record["losses"] = {}
    for name, found in record.get("tasks", {}).items():
        for precision, task in found.items():
            peak = peaks.get(precision, {}).get("flop_per_second")
            for timed in task.get("feeds", {}).values():
                if "failed" not in timed:
                    timed["share_of_peak"] = share(task["flop"], timed, peak)
        curves = [mean_losses(found.get(precision, {})) for precision in PRECISIONS]
        if all(curves):
            record["losses"][name] = compare(*curves)


def share(flop: float | None, timed: Record, peak: float | None) -> float | None:
    """Returns the share of the peak that an epoch's arithmetic reaches."""
    return flop * timed["per_second"] / peak if flop and peak else None


def mean_losses(task: Record) -> list[float]:
    """Returns the mean loss up to each early step, from the first feed that has it."""
    feeds = task.get("feeds", {}).values()
    return next((timed["mean_losses"] for timed in feeds if "failed" not in timed), [])


def compare(ours: list[float], theirs: list[float]) -> Record:
    """Returns the mean losses over the steps taken in both precisions."""
    steps = min(len(ours), len(theirs))
    difference = abs(theirs[steps - 1] / ours[steps - 1] - 1)
    return {
        "steps": steps,
        **dict(zip(PRECISIONS, (ours[steps - 1], theirs[steps - 1]), strict=True)),
        "relative_difference": difference,
        "tolerance": TOLERANCE,
        "agree": difference <= TOLERANCE,
    }


def main() -> None:
    """Measures as the options ask and prints the tables."""
    options = tyro.cli(
        Options, prog="python -m benchmarks.accelerator", description=__doc__
    )
    prepare_jax()
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    from benchmarks.devices import tables

    console = Console(width=120)
    record = measure(options, console)
    console.print(*tables.tables(record), sep="\n")
    if options.out:
        console.print(f"Written to {options.out}.", highlight=False)


if __name__ == "__main__":
    main()
