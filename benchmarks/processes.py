"""Measures weak scaling over processes, and works out many hosts on paper.

    python -m benchmarks.processes
    python -m benchmarks.processes --processes 1 2 4 --images 16

Each process has one core, one device and the same number of images per step, and trains
the horses' network in float32 with GC. They communicate over the loopback, through
`jax.distributed`, as hosts would over a network. The numbers of processes take turns
for some rounds. The bytes are those of the whole loopback: nothing else should use it
meanwhile.
"""

import dataclasses
import multiprocessing
import os
import socket
import statistics
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from train.config import prepare_jax
from train.horses import Config

if TYPE_CHECKING:
    from benchmarks.hosts.turn import Turn

GRADIENTS = 1_704_097 * 4  # bytes of the network's gradients in float32
HOSTS = (8, 16, 32, 64, 128, 256)
GIGABITS = (10, 25, 100)  # per second, for a host's link


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Times a step of 1, 2 and more processes with the same work each."""

    processes: tuple[int, ...] = ()
    """Numbers of processes, in ascending order; by default 1 and 2, and 4 on four
    cores."""

    images: int = 32
    """Images per process and step."""

    side: int = 300
    """Their height and width in pixels."""

    steps: int = 20
    """Steps to time per turn."""

    rounds: int = 2
    """Number of turns for each number of processes."""


def counts(options: Options) -> tuple[int, ...]:
    """Returns the numbers of processes to time; 1 comes first."""
    cores = len(os.sched_getaffinity(0))
    asked = options.processes or ((1, 2, 4) if cores >= 4 else (1, 2))
    return tuple(sorted({1, *asked}))


def ring_bytes(hosts: int, size: int = GRADIENTS) -> float:
    """Returns the bytes that a host sends in a ring all-reduce of `size` bytes."""
    return 2 * (hosts - 1) / hosts * size


def overlap(more: float, reduce: float) -> float:
    """Returns the share of an all-reduce that computing hides.

    Args:
      more: the time by which a step is longer than that of one process.
      reduce: the time of the all-reduce alone.
    """
    return min(max(1 - more / reduce, 0.0), 1.0)


def take_turn(count: int, options: Options, prepare: Callable[[], None]) -> "Turn":
    """Returns what `count` processes measure.

    Args:
      count: number of processes.
      options: the command's options.
      prepare: called in each of them before JAX is imported.
    """
    spawn = multiprocessing.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    pipes, workers = [], []
    for index in range(count):
        here, there = spawn.Pipe(duplex=False)
        arguments = (there, prepare, options, address, count, index)
        workers.append(spawn.Process(target=work, args=arguments, daemon=True))
        workers[-1].start()
        there.close()
        pipes.append(here)
    try:
        first, *_ = [pipe.recv() for pipe in pipes]
        return first
    except EOFError:
        raise SystemExit("error: a process was lost; see its output above.") from None
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()


def work(
    pipe: Connection,
    prepare: Callable[[], None],
    options: Options,
    address: str,
    count: int,
    index: int,
) -> None:
    """Sends what this process measures on its own core: the work of each process."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    os.environ |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    os.environ.pop("XLA_FLAGS", None)
    prepare()
    others = {}
    if count > 1:
        others = {"coordinator": address, "num_processes": count, "process_id": index}
    from benchmarks.hosts import turn

    config = Config(gc=True, batch_size=count * options.images, **others)
    pipe.send(turn.measure(config, options.side, options.steps))


def scaling(turns: "dict[int, Sequence[Turn]]") -> Table:
    """Returns the table of measurements, by number of processes.

    Differences and ratios are computed for each round, then their median.
    """
    from benchmarks.cost.tables import blank_table

    table = blank_table(
        "A step of some processes with the same work each", "processes", "step, ms",
        "efficiency", "sent, MB", "a ring's, MB", "all-reduce, ms", "more than 1, ms",
        "hidden",
    )  # fmt: skip
    for count, found in turns.items():
        pairs = [*zip(turns[1], found, strict=True)]
        step, sent, reduce = (
            statistics.median(getattr(turn, name) for turn in found)
            for name in ("step", "step_bytes", "reduce")
        )
        cells = [str(count), f"{1e3 * step:.0f}"]
        if count > 1:
            efficiency = statistics.median(one.step / turn.step for one, turn in pairs)
            more = statistics.median(turn.step - one.step for one, turn in pairs)
            cells += [
                f"{efficiency:.2f}",
                f"{sent / 1e6:.1f}",
                f"{count * ring_bytes(count) / 1e6:.1f}",
                f"{1e3 * reduce:.1f}",
                f"{1e3 * more:.1f}",
                f"{100 * overlap(more, reduce):.0f} %",
            ]
        table.add_row(*cells)
    return table


def on_paper(step: float) -> Table:
    """Returns the table of a ring all-reduce's time over the links of many hosts.

    Args:
      step: seconds of a step of one process, for comparison.
    """
    from benchmarks.cost.tables import blank_table

    table = blank_table(
        f"On paper: ms of a ring's all-reduce (share of a step of {1e3 * step:.0f} ms)",
        "hosts", "sent by a host, MB", *(f"{speed} Gbit/s" for speed in GIGABITS),
    )  # fmt: skip
    for hosts in HOSTS:
        size = ring_bytes(hosts)
        seconds = [8 * size / (1e9 * speed) for speed in GIGABITS]
        cells = [f"{1e3 * s:.2f} ({100 * s / step:.1f} %)" for s in seconds]
        table.add_row(str(hosts), f"{size / 1e6:.1f}", *cells)
    return table


def main() -> None:
    """Measures as the options ask and prints both tables."""
    options = tyro.cli(
        Options, prog="python -m benchmarks.processes", description=__doc__
    )
    turns: dict[int, list[Turn]] = {count: [] for count in counts(options)}
    console = Console(width=120)
    for _ in range(options.rounds):
        for count, found in turns.items():
            found.append(take_turn(count, options, prepare_jax))
            console.print(f"{count}: {1e3 * found[-1].step:.0f} ms per step")
    cores = len(os.sched_getaffinity(0))
    console.print(f"\n{cores} cores, {options.images} images per process and step")
    console.print(scaling(turns))
    console.print(on_paper(statistics.median(turn.step for turn in turns[1])))


if __name__ == "__main__":
    main()
