"""The runs of a comparison, one after another or several at a time."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from train import faults
from train.command import compiled, ends
from train.comparison.plan import TASKS, rates
from train.config import Config, prepare_jax
from train.faults import Failure, Interrupted, Stop, UsageError
from train.record import workdir

REMEDY = "Repeat the command to continue."


class Listener(Protocol):
    """Hears of the progress of the runs."""

    def epoch(self, run: str, metrics: Any, epochs: int) -> None:
        """A run has finished an epoch."""

    def warn(self, text: str) -> None:
        """There is a warning for the user."""


def one_by_one(
    task: str, options: Any, runs: Sequence[Config], listener: Listener, stop: Stop
) -> None:
    """Trains the runs in this process.

    Args:
      task: the task's name.
      options: the comparison's options.
      runs: the runs that are still to do.
      listener: hears of their progress.
      stop: the user's requests to stop.
    """
    data = TASKS[task].load_data(options)
    from train.engine import processes

    processes.find_devices()
    for run in runs:
        train(task, options, data, run, listener, stop)


def train(
    task: str, options: Any, data: Any, run: Config, listener: Listener, stop: Stop
) -> None:
    """Trains one run.

    If there are several rates, a run that diverges notes so in its folder and is over.
    """
    from train.engine.epoch import Diverged
    from train.engine.fit import fit
    from train.record.overall import Member

    with workdir.claim(run, "--out") as folder:
        try:
            fit(run, TASKS[task].task(run, data), Member(folder, listener), stop)
        except Diverged as error:
            if len(rates(options)) == 1:
                raise
            workdir.write(folder.path / workdir.DIVERGED, f"{error}\n")
            listener.warn(f"{run.workdir.name} diverged: {error}")


def some_at_a_time(
    task: str, options: Any, runs: Sequence[Config], listener: Listener, stop: Stop
) -> None:
    """Trains the runs in `options.jobs` processes, each on its share of the cores.

    Raises:
      Failure: if one of them failed or was lost.
      Interrupted: if the user stopped it; each process has then saved its run.
    """
    spawn = multiprocessing.get_context("spawn")
    waiting, news = spawn.Queue(), spawn.Queue()
    for run in [*runs, *[None] * options.jobs]:
        waiting.put(run)
    workers = [
        spawn.Process(
            target=work, args=(task, options, waiting, news, cores), daemon=True
        )
        for cores in shares_of_cores(options.jobs)
    ]
    stop.remedy = REMEDY
    with stop.deferred(), started(workers):
        while any(worker.is_alive() for worker in workers) or not news.empty():
            with contextlib.suppress(queue.Empty):
                hear(listener, *news.get(timeout=0.2))
            if stop.signum is not None:
                break
            if any(worker.exitcode for worker in workers):
                raise Failure(f"a process of the comparison was lost. {REMEDY}")


def hear(listener: Listener, name: str, *told: Any) -> None:
    """Passes a process's news to the listener, or raises its failure."""
    if name == "failed":
        raise Failure(*told)
    getattr(listener, name)(*told)


@contextlib.contextmanager
def started(workers: Sequence[multiprocessing.Process]) -> Iterator[None]:
    """Starts processes, and on exit ends each after its current step."""
    # Ctrl-C and the closing of a terminal reach all of its processes: only this one
    # must obey them.
    of_terminal = {signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, of_terminal)
    try:
        for worker in workers:
            worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, of_terminal)
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def shares_of_cores(jobs: int) -> list[set[int]]:
    """Returns the cores that each process gets.

    Raises:
      UsageError: if there are fewer cores than processes.
    """
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        raise UsageError(
            f"--jobs must be at most {len(cores)}, the number of cores, got {jobs}."
        )
    return [set(cores[i::jobs]) for i in range(jobs)]


def work(task: str, options: Any, waiting: Any, news: Any, cores: set[int]) -> None:
    """Trains waiting runs until it receives None: the work of each process."""
    end_with_the_parent()
    os.sched_setaffinity(0, cores)
    os.environ["JAX_NUM_CPU_DEVICES"] = str(len(cores))
    prepare_jax()
    with (
        contextlib.suppress(Interrupted),
        Stop(quiet=True).listening() as stop,
        compiled.mended(),
    ):
        try:
            data = TASKS[task].load_data(options)
            from train.engine import processes

            processes.find_devices()
            while run := waiting.get():
                train(task, options, data, run, Relay(news), stop)
        except Interrupted:
            news.cancel_join_thread()  # nobody reads it now
            raise
        except Exception as error:  # the first process reports it
            news.put(("failed", ends.message(error)))


def end_with_the_parent() -> None:
    """Makes this process end at once when the one that started it dies."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        with faults.uninterrupted():
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Relay:
    """Passes on what it hears to the process that started this one."""

    def __init__(self, news: Any):
        self.news = news

    def epoch(self, run: str, metrics: Any, epochs: int) -> None:
        self.news.put(("epoch", run, metrics, epochs))

    def warn(self, text: str) -> None:
        self.news.put(("warn", text))
