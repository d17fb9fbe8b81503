"""Draws pictures on all cores, in processes of our own.

`multiprocessing` would import the main module of the calling program in each process.
That may be a script that must not run twice, or may have no file at all.
"""

import concurrent.futures
import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator

from train.data.sets import DataError


def draw_all(split: str, indices: range) -> Iterator[tuple[bytes, int]]:
    """Yields each picture as PNG, and its label, in order."""
    count = min(os.cpu_count() or 1, len(indices))
    idle: queue.Queue[subprocess.Popen] = queue.Queue()
    threads = concurrent.futures.ThreadPoolExecutor(count)

    def draw(index: int) -> tuple[bytes, int]:
        worker = idle.get()
        try:
            return ask(worker, index)
        finally:
            idle.put(worker)

    with contextlib.ExitStack() as stack:
        for _ in range(count):
            idle.put(stack.enter_context(drawing_process(split)))
        stack.callback(threads.shutdown, cancel_futures=True)
        yield from threads.map(draw, indices)


@contextlib.contextmanager
def drawing_process(split: str) -> Iterator[subprocess.Popen]:
    """Runs a process that draws pictures of a split, with this one's import path."""
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    # With glibc, a fifth faster: freed memory is kept rather than given back.
    memory = {"MALLOC_TOP_PAD_": str(64 << 20)}
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "train.data.drawing.worker", split],
        env={**os.environ, **memory, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches only us, and we end it
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def ask(worker: subprocess.Popen, index: int) -> tuple[bytes, int]:
    """Returns the picture and label that a worker draws.

    Raises:
      DataError: if the worker has ended.
    """
    try:
        worker.stdin.write(b"%d\n" % index)
        worker.stdin.flush()
        return pickle.load(worker.stdout)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        words = worker.stderr.read().decode(errors="replace").splitlines()
        why = words[-1] if words else f"status {worker.wait()}"
        raise DataError(f"a drawing process ended early ({why}). Try again.") from error
