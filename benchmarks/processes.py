"""Weak scaling over processes of one machine, which stand for hosts.

    python -m benchmarks.processes

Each process has one device, its share of the cores, and the same number of images of
the horses' task a step; they talk over the loopback. What is sent is counted by the
kernel's own counter of that interface, so nothing else should use it meanwhile.
"""

import dataclasses
import functools
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

HOSTS = (8, 32, 256)
GIGABITS = (10, 25, 100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Times a step over processes, one core each."""

    counts: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes; they take turns on the cores if there are fewer."""

    images: int = 32
    """Images of a process in a step."""

    steps: int = 12
    """Steps that are timed, after two more."""

    quick: bool = False
    """Small images."""

    worker: str = ""
    """COORDINATOR,COUNT,NUMBER of a process that this command has started."""


def loopback_bytes() -> int:
    """Returns the bytes that the loopback has sent since the machine started."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    (line,) = (line for line in lines if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def median_and_bytes(call: Callable[[], Any], count: int) -> tuple[float, float]:
    """Returns the median seconds of a call, and the bytes that one sends."""
    import jax

    seconds, before = [], 0
    for i in range(count + 2):
        if i == 2:  # the first ones warm up
            before = loopback_bytes()
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:]), (loopback_bytes() - before) / count


def work(options: Options) -> dict[str, float]:
    """Returns what one of several processes measures."""
    coordinator, count, number = options.worker.split(",")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(number) % len(cores)]})
    os.environ |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    from train import horses
    from train.engine import processes

    if int(count) > 1:
        processes.join(
            horses.Config(
                coordinator=coordinator,
                num_processes=int(count),
                process_id=int(number),
            )
        )
    return time_steps(options, options.images * int(count))


def time_steps(options: Options, size: int) -> dict[str, float]:
    """Returns what a step takes on a batch of `size` images, and its all-reduce alone.

    Seconds of both, the bytes that this machine sent meanwhile, those of the gradients.
    """
    import jax
    import rich.console

    from benchmarks import random_tasks
    from train.engine import arms, feed, fit, processes
    from train.engine.step import on_each_device, train_step
    from train.faults import Stop
    from train.record.reporter import Reporter

    config, task = random_tasks.make("horses", quick=options.quick, batch_size=size)
    quiet = Reporter(None, rich.console.Console(quiet=True))
    run, start = fit.begin(config, task, quiet, Stop())
    shares = arms.taken_shares(config, run.axes, run.start_params)
    step = functools.partial(
        train_step, task=task, tx=run.tx, shares=shares, mesh=run.mesh
    )
    brought = feed.HostFeed(task.splits["train"], size, run.mesh)
    state = processes.replicate(start, run.mesh)
    compiled = brought.compile(step, state)
    held = [state, next(brought.works([np.arange(size)], ()))]

    def one_step() -> Any:
        held[0], *told = compiled(held[0], *held[1].inputs, run.step_key)
        return told

    @jax.jit
    def reduce(grads: Any) -> Any:
        return on_each_device(run.mesh, lambda x, _: (x, None))(grads, ())[0]

    seconds, sent = median_and_bytes(one_step, options.steps)
    grads = processes.replicate(start.params, run.mesh)
    alone, _ = median_and_bytes(lambda: reduce(grads), options.steps)
    gradients = sum(leaf.nbytes for leaf in jax.tree.leaves(start.params))
    return {"step": seconds, "sent": sent, "reduce": alone, "gradients": gradients}


def measure(options: Options, count: int) -> dict[str, float]:
    """Returns what the first of `count` processes measures."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.processes"]
    command += [f"--images={options.images}", f"--steps={options.steps}"]
    command += ["--quick"] if options.quick else []
    started = [
        subprocess.Popen(
            [*command, f"--worker={address},{count},{number}"],
            stdout=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("error: a process failed; what it said stands above.")
    return json.loads(outputs[0].splitlines()[-1])


def hidden(found: dict[str, float], alone: dict[str, float]) -> float:
    """Returns the share of the all-reduce that is hidden behind computing."""
    shown = (found["step"] - alone["step"]) / found["reduce"]
    return min(max(1 - shown, 0), 1)


def ring_bytes(size: float, hosts: int) -> float:
    """Returns the bytes that a host sends in an all-reduce by a ring."""
    return 2 * (hosts - 1) / hosts * size


def scaling_table(found: dict[int, dict[str, float]], cores: int) -> Table:
    """Returns what was measured, by the number of processes."""
    columns = (
        "step, ms",
        "over one",
        "all-reduce alone, ms",
        "hidden",
        "MB sent a step",
    )
    table = Table("processes", "a core", *columns, title="Weak scaling, measured")
    alone = found[min(found)]
    for count, one in found.items():
        cells = ["-"] * 2
        if count > 1:
            cells = [f"{1e3 * one['reduce']:.0f}", f"{100 * hidden(one, alone):.0f} %"]
        table.add_row(
            str(count), f"{max(count / cores, 1):g}", f"{1e3 * one['step']:.0f}",
            f"{one['step'] / alone['step']:.2f}", *cells, f"{one['sent'] / 1e6:.1f}",
        )  # fmt: skip
    return table


def paper_rows(size: float, step: float) -> Iterator[list[str]]:
    """Yields the cells of each number of hosts: a ring's time over a step's, in %."""
    for hosts in HOSTS:
        sent = ring_bytes(size, hosts)
        seconds = [sent * 8 / (gigabits * 1e9) for gigabits in GIGABITS]
        shares = [f"{1e3 * s:.1f} ms, {100 * s / step:.2g} %" for s in seconds]
        yield [str(hosts), f"{sent / 1e6:.1f}", *shares]


def main() -> None:
    """Measures and prints the tables; as a worker, one line of JSON."""
    options = tyro.cli(Options, prog="python -m benchmarks.processes")
    if options.worker:
        print(json.dumps(work(options)))
        return
    found = {count: measure(options, count) for count in options.counts}
    first = next(iter(found.values()))
    speeds = (f"{gigabits} Gbit/s" for gigabits in GIGABITS)
    paper = Table(
        "hosts", "MB sent a step", *speeds,
        title="On paper: a ring's all-reduce, and its share of the measured step",
    )  # fmt: skip
    for row in paper_rows(first["gradients"], first["step"]):
        paper.add_row(*row)
    cores = len(os.sched_getaffinity(0))
    Console(width=100).print(scaling_table(found, cores), paper, sep="\n")


if __name__ == "__main__":
    main()
