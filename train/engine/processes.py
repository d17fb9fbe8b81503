"""Several processes that train together, on one host or many."""

import atexit
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.config import Config
from train.faults import Failure

PATIENCE = 60  # seconds without a sign of life after which a process counts as lost


def join(config: Config) -> None:
    """Joins the other processes, if this is one of several.

    To be called before anything else of JAX.

    Raises:
      Failure: if they are not found.
    """
    if not config.distributed and config.coordinator is None:
        return
    # JAX's own service would take SIGTERM from us.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=PATIENCE,
            shutdown_timeout_seconds=PATIENCE,
        )
    except (ValueError, RuntimeError) as error:
        raise Failure(
            f"the other processes were not found ({str(error).splitlines()[0]}). Name "
            "them with --coordinator HOST:PORT --num-processes N --process-id I."
        ) from error


@contextlib.contextmanager
def losses_told() -> Iterator[None]:
    """Raises a `Failure` where JAX fails because another process has ended."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        atexit.register(leave_at_once)
        raise Failure(
            f"another process was lost ({str(error).splitlines()[0][:120]}). "
            "Start all of them again with --resume."
        ) from error


def leave_at_once() -> None:
    """Ends this process before JAX waits for the lost one, and aborts in the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def is_first() -> bool:
    """Tells whether this process is the one that writes."""
    return jax.process_index() == 0


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns a tree of arrays, the same in every process, on all devices."""
    sharding = NamedSharding(mesh, P())

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, jax.device_get(tree))


def any_of_them(signum: int | None) -> int | None:
    """Returns the signal that some process was given, the same in all of them."""
    if jax.process_count() == 1:
        return signum
    signums = multihost_utils.process_allgather(np.int32(signum or 0))
    return int(np.max(signums)) or None


def from_the_first(
    state: Any, record: dict[str, Any] | None, like: Any
) -> tuple[Any, dict[str, Any] | None]:
    """Returns the first process's state and record in every process.

    Args:
      state: a tree of arrays; unused but in the first process.
      record: JSON, or None if there is nothing to share; unused as `state` is.
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
