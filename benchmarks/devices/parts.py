"""What `benchmarks.accelerator` measures, each part in its own process."""

import copy
import dataclasses
import re
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.cost import updates
from benchmarks.devices import peaks, step_parts
from benchmarks.epochs import random_tasks
from train.engine import batches, feed, processes
from train.engine.checkpoint import Progress
from train.engine.epoch import train_epoch
from train.engine.program import Program, compile_program
from train.engine.run import Run, begin
from train.engine.state import State
from train.record.environment import NVIDIA_DRIVER, environment
from train.tasks.shakespeare import LENGTH

Record: TypeAlias = dict[str, Any]

FEEDS = ("host", "device")  # the second only if devices have their own memory
EPOCHS = 5  # the most epochs that are timed
SECONDS = 8.0  # the time after which no further step is timed
LOSS_STEPS = 64  # steps whose mean losses are compared between the precisions
UNITS = {"shakespeare": ("tokens", LENGTH)}  # per example; else it is an image


def failure(error: BaseException) -> Record:
    """Returns the record of a part that failed: the first line of its error."""
    lines = str(error).splitlines() or [""]
    return {"failed": f"{type(error).__name__}: {lines[0][:120]}"}


def attempt(function: Callable[..., Record], *arguments: Any) -> Record:
    """Returns a function's result, or how it failed."""
    try:
        return function(*arguments)
    except Exception as error:  # out of memory, or unsupported by the backend
        return failure(error)


def measure_device(side: int | None) -> Record:
    """Returns the device, the versions, and the peak speed of each precision.

    Args:
      side: the side of the matrices that are multiplied; by default, one that suits the
        device.
    """
    device = jax.devices()[0]
    side = side or (1024 if device.platform == "cpu" else 4096)
    driver = None
    if NVIDIA_DRIVER.exists():
        found = re.search(r"\d+\.\d+(\.\d+)?", NVIDIA_DRIVER.read_text())
        driver = found and found[0]
    return {
        **environment(),
        "driver": driver,
        "runtime": device.client.platform_version,
        "matmul_precision": jax.config.jax_default_matmul_precision,
        "memory_bytes": memory("bytes_limit"),
        "peaks": {
            precision: attempt(peaks.peak, precision, side)
            for precision in ("float32", "bfloat16")
        },
    }


def memory(name: str) -> int | None:
    """Returns the largest of a memory statistic over the devices; None on CPUs."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((found[name] for found in stats if name in found), default=None)


def prepared(name: str, precision: str, *, quick: bool) -> tuple[Run, State]:
    """Returns a run of a task on random data, and its first state on the host."""
    run, state = begin(*random_tasks.make(name, precision, quick=quick))
    return run, jax.device_get(state)


def flop_an_example(run: Run, start: State) -> float:
    """Returns a step's arithmetic per example.

    It is counted in the program that accelerators compile, before optimization, on one
    device and without turns, whose passes would count only once.
    """
    whole = copy.copy(run.task)
    whole.per_turn = None
    mesh = Mesh(np.array(jax.devices("cpu")[:1]), ("batch",))
    step = dataclasses.replace(run, task=whole, mesh=mesh).step()
    size = run.config.batch_size
    batch = batches.batch_shapes(whole.splits["train"], size, mesh)
    shapes = jax.eval_shape(lambda: (start, jax.random.key(0)))
    traced = jax.jit(step).trace(shapes[0], batch, feed.COUNT, shapes[1])
    return traced.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"] / size


def time_feed(
    run: Run, start: State, where: str, unit: int, kept: dict[str, Program]
) -> Record:
    """Returns how long compiling, the first step and an epoch take.

    Args:
      run: the run.
      start: the first state, on the host.
      where: the feed.
      unit: how many images or tokens an example has.
      kept: receives the program.
    """
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, feed=where))
    state = processes.replicate(start, run.mesh)
    program = kept[where] = compile_program(run, state)
    indices, _ = run.left(Progress())
    begun = time.perf_counter()
    work = next(program.feed.works(indices[:1], ()))
    jax.block_until_ready(program.train_steps(state, *work.inputs, run.key))
    first = time.perf_counter() - begun
    state = processes.replicate(start, run.mesh)
    images = sum(map(len, indices))
    seconds, losses = time_epochs(run, program, state, images)
    return {
        "compile_seconds": program.compile_seconds,
        "first_step_seconds": first,
        "epoch_seconds": statistics.median(seconds),
        "epochs_timed": len(seconds),
        "per_second": unit * images / statistics.median(seconds),
        "peak_bytes": memory("peak_bytes_in_use"),
        "mean_losses": losses,
    }


def time_epochs(
    run: Run, program: Program, state: State, images: int
) -> tuple[list[float], list[float]]:
    """Returns the seconds of some epochs, and the mean loss up to each early step.

    An epoch that the limit cuts short is scaled to a whole one, of `images`.
    """
    seconds, losses = [], []
    end = time.perf_counter() + SECONDS
    while len(seconds) < EPOCHS and (not seconds or time.perf_counter() < end):
        progress = Progress(epoch=len(seconds) + 1)
        works = program.feed.works(*run.left(progress))
        for step in train_epoch(program, state, works, run.key, progress):
            progress, state = step.progress, step.state
            if not seconds and progress.steps <= LOSS_STEPS:
                losses.append(progress.loss / progress.images)
            if state is not None and time.perf_counter() >= end:
                break
        seconds.append(progress.seconds * images / progress.images)
    return seconds, losses


def measure_task(name: str, precision: str, quick: bool) -> Record:
    """Returns a task's measurements: its epochs by feed, and its step's parts."""
    run, start = prepared(name, precision, quick=quick)
    unit, size = UNITS.get(name, ("images", 1))
    flop = attempt(lambda: {"flop": flop_an_example(run, start) / size})
    indices, kept = run.left(Progress())[0], {}
    # The host's feed comes first: it takes less memory, and the peak is cumulative.
    feeds = FEEDS[:1] if jax.default_backend() == "cpu" and not quick else FEEDS
    timed = {w: attempt(time_feed, run, start, w, size, kept) for w in feeds}
    first = timed["host"].get("first_step_seconds")
    parts = {"failed": "skipped: a step failed, or takes too long"}
    if first is not None and first < SECONDS:
        step = kept["host"].train_steps
        parts = attempt(step_parts.split, name, run, start, step, indices[0])
    return {
        "unit": unit,
        "batch_size": run.config.batch_size,
        "steps": len(indices),
        "flop": flop.get("flop"),
        "feeds": timed,
        "step_seconds": parts,
    }


def measure_update(model: str, rounds: int) -> Record:
    """Returns the ratio of the update's time with each centralization to without."""
    params, record = updates.MODELS[model](), {}
    for label, optimizer in updates.OPTIMIZERS.items():
        compiled = updates.compile_updates(optimizer, params)
        seconds = updates.time_updates(compiled, optimizer, params, rounds)
        record[label] = {"alone_seconds": statistics.median(seconds["alone"])}
        for arm in updates.CENTRALIZE.keys() - {"alone"}:
            record[label][arm] = updates.quartiles(seconds, arm)
    return record
