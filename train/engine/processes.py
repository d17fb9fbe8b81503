"""Several processes that train together, on one host or many."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train import faults
from train.config import Config
from train.engine.line import line
from train.faults import Failure, UsageError

GRACE = 30  # seconds that JAX's own limits exceed ours, so that it does not abort
PAUSE = 0.2  # seconds between two attempts to reach the first process


def join(config: Config) -> None:
    """Finds the devices, and the other processes if this is one of several.

    Call it before anything else in JAX.

    Raises:
      UsageError: if there are no devices of the requested kind.
      Failure: if the other processes are not found.
    """
    if config.is_one_of_several:
        join_others(config)
    find_devices()


def find_devices() -> None:
    """Raises a `UsageError` unless JAX has devices to compile for."""
    if jax.config.jax_disable_jit:
        raise UsageError(
            "JAX_DISABLE_JIT must be unset, got 1: training needs compiled functions."
        )
    chosen = {
        name: os.environ[name]
        for name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
        if name in os.environ
    }
    try:
        found = jax.device_count()
    except Exception as error:  # an AssertionError of JAX's among them
        raise UsageError(
            no_devices(chosen, f" ({faults.first_line(error)})")
        ) from error
    if not found:
        raise UsageError(no_devices(chosen, ""))


def no_devices(chosen: dict[str, str], why: str) -> str:
    """Returns what to tell a user for whom JAX has no devices."""
    asked = next((f"{name}={value}" for name, value in chosen.items()), "")
    return (
        f"JAX has no devices with {asked or 'what is installed'}{why}. Unset that, or "
        "install JAX for the accelerator, for example pip install -U 'jax[cuda13]'."
    )


def join_others(config: Config) -> None:
    """Joins the other processes.

    Raises:
      Failure: if they are not found.
    """
    # JAX's own service would take over SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if config.process_id:
            reach(config.coordinator, config.patience)
        with given_up_after(config.patience):
            jax.distributed.initialize(
                config.coordinator,
                config.num_processes,
                config.process_id,
                initialization_timeout=config.patience + GRACE,
                heartbeat_timeout_seconds=config.patience,
                shutdown_timeout_seconds=config.patience,
            )
    except (ValueError, RuntimeError, OSError) as error:
        raise Failure(not_found(config.patience, faults.first_line(error))) from error


def not_found(patience: float, why: str) -> str:
    """Returns what to tell a user whose other processes are missing."""
    return (
        f"the other processes were not found within {patience} s ({why}). Start all "
        "of them, and name them with --coordinator HOST:PORT --num-processes N "
        "--process-id I; --patience gives them longer."
    )


@contextlib.contextmanager
def given_up_after(patience: float) -> Iterator[None]:
    """Ends this process, with a one-line error, if its body takes too long.

    JAX has a time limit, too, and aborts when it has passed.
    """
    text = not_found(patience, "not all have joined")
    timer = threading.Timer(patience, faults.leave, (1, f"error: {text}\n"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def host_of(address: str) -> str:
    """Returns the host of HOST:PORT, where an IPv6 address is in brackets."""
    return address.rpartition(":")[0].strip("[]")


def reach(coordinator: str, patience: float) -> None:
    """Waits until the first process can be reached.

    JAX would abort this process if it could not.

    Raises:
      OSError: if it cannot be reached within that many seconds.
    """
    host, port = host_of(coordinator), coordinator.rpartition(":")[2]
    end = time.monotonic() + patience
    while True:
        left = end - time.monotonic()
        try:
            socket.create_connection((host, int(port)), max(left, 1)).close()
            return
        except OSError:
            if left < PAUSE:
                raise
            time.sleep(PAUSE)


def leave(status: int) -> None:
    """Ends this process at once if it has begun to join others.

    In a normal exit, JAX would wait for them, and abort.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        faults.leave(status)


@contextlib.contextmanager
def losses_told(config: Config) -> Iterator[None]:
    """Ends this process, with an error, if another one ends before its time."""
    if jax.process_count() == 1:
        yield
        return
    host = config.coordinator and host_of(config.coordinator)
    try:
        with line(host, end_with_the_others):
            yield
    except jax.errors.JaxRuntimeError:
        if config.debug:
            raise
        end_with_the_others()


def end_with_the_others() -> None:
    """Ends this process with an error before JAX waits for the lost one and aborts."""
    with _ending, faults.uninterrupted():
        text = "another process was lost. Start all of them again with --resume."
        faults.leave(1, f"error: {text}\n")


_ending = threading.Lock()  # so that only one thread reports it


def is_first() -> bool:
    """Tells whether this process is the one that writes files."""
    return jax.process_index() == 0


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns a tree of arrays, the same in every process, on all devices."""
    sharding = NamedSharding(mesh, P())

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, jax.device_get(tree))


def any_of_them(signum: int | None) -> int | None:
    """Returns the signal that any process has received, the same in all of them."""
    if jax.process_count() == 1:
        return signum
    signums = multihost_utils.process_allgather(np.int32(signum or 0))
    return int(np.max(signums)) or None


def from_the_first(
    state: Any, record: dict[str, Any] | None, like: Any
) -> tuple[Any, dict[str, Any] | None]:
    """Returns the first process's state and record in every process.

    Args:
      state: a tree of arrays; used only in the first process.
      record: JSON, or None if there is nothing to share; used like `state`.
      like: a tree of arrays with the structure, shapes and dtypes of `state`.
    """
    if jax.process_count() == 1:
        return state, record
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    padded = np.resize(text, size) if is_first() else np.zeros(size, np.uint8)
    shared = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    record = json.loads(shared.tobytes())
    if record is None:
        return None, None
    state = state if is_first() else jax.tree.map(np.zeros_like, jax.device_get(like))
    return multihost_utils.broadcast_one_to_all(state), record
