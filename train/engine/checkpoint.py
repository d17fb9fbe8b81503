"""Parameters and resumable states on disk, in Orbax's format."""

import dataclasses
import hashlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from train.engine.state import State
from train.faults import Failure, uninterrupted

KEPT = 2  # checkpoints of a run; the older one is for when the newer is damaged


class CheckpointError(Failure):
    """A checkpoint that cannot be written."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is: in which epoch, and the sums over its steps so far.

    `epoch` counts from 1, `steps` and `images` are those of the epoch that are done (an
    image is any example). `loss` and `score` are sums over images, `removed` a sum over
    steps for each leaf that is centralized, by path. `seconds` is the time they took.
    """

    epoch: int = 1
    steps: int = 0
    images: int = 0
    loss: float = 0.0
    score: float = 0.0
    seconds: float = 0.0
    removed: dict[str, float] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The last few checkpoints of a run, one folder each, by number of steps."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.resolve()
        absl.logging.set_verbosity(absl.logging.FATAL)  # Orbax raises what it logs

    def save(self, step: int, state: State, progress: Progress) -> None:
        """Writes a state and the progress, atomically; drops old ones.

        Raises:
          CheckpointError: if it cannot be written; then the older ones are kept.
        """
        state = jax.device_get(state)
        record = {"progress": dataclasses.asdict(progress), "sha256": digest(state)}
        try:
            with uninterrupted():
                self._save(step, state, record)
        except Exception as error:  # TensorStore has no common class for a full disk
            raise CheckpointError(
                f"cannot write a checkpoint into {self.folder}: {first_line(error)}. "
                "Earlier ones are kept; make room, then go on with --resume."
            ) from error

    def _save(self, step: int, state: State, record: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)
        check_room(self.folder, state)
        with self._manager() as manager:
            # One of the same step can only be one that was found damaged.
            shutil.rmtree(self.folder / str(step), ignore_errors=True)
            manager.reload()
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(layout(state)),
                    record=ocp.args.JsonSave(record),
                ),
            )

    def restore(
        self, like: State, warn: Callable[[str], None]
    ) -> tuple[State, Progress] | None:
        """Returns the newest undamaged checkpoint, or None if there is none.

        Args:
          like: a state with the same structure, shapes and dtypes.
          warn: is told of each damaged checkpoint.
        """
        if not self.folder.is_dir():
            return None
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        with self._manager() as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                try:
                    return self._restore(manager, step, like)
                except Exception as error:  # whatever reading damaged files may raise
                    warn(
                        f"the checkpoint {self.folder / str(step)} is damaged "
                        f"({first_line(error)}); trying the one before it."
                    )
        return None

    def _restore(self, manager, step, like):
        items = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(layout(like)),
                record=ocp.args.JsonRestore(),
            ),
        )
        state = like.replace(**items.state)
        if digest(state) != items.record["sha256"]:
            raise ValueError("its arrays differ from those that were saved")
        return state, progress_of(items.record["progress"])

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            create=False,
            enable_async_checkpointing=False,
            # Of several processes only the first one comes here.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="save"
            ),
        )
        return ocp.CheckpointManager(self.folder, options=options)


def progress_of(record: dict[str, Any]) -> Progress:
    """Returns the progress that a checkpoint has on record.

    One from before there were other scores than accuracy has the number of right
    answers as "correct".
    """
    names = {"correct": "score"}
    return Progress(**{names.get(name, name): value for name, value in record.items()})


def layout(state: State) -> dict[str, Any]:
    """Returns a state as it lies on disk: without `model_state` if that is empty."""
    fields = dict(vars(state))
    if not state.model_state:
        del fields["model_state"]
    return fields


def digest(state: Any) -> str:
    """Returns the SHA-256 of the bytes of all leaves, in the order of the tree."""
    sha256 = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        sha256.update(np.ascontiguousarray(leaf).tobytes())
    return sha256.hexdigest()


def check_room(folder: pathlib.Path, state: State) -> None:
    """Raises an `OSError` unless a file as large as the state can be written.

    Orbax would notice as well, but its threads would go on to complain for pages.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(size))


def first_line(error: Exception) -> str:
    """Returns what went wrong in a line."""
    lines = str(error).strip().splitlines()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return lines[0][:200] if lines else type(error).__name__


def save_params(path: pathlib.Path, params: Any) -> None:
    """Writes a pytree of arrays into the folder `path`, atomically, anew.

    Raises:
      CheckpointError: if it cannot be written.
    """
    try:
        with uninterrupted(), _checkpointer() as checkpointer:
            checkpointer.save(path.resolve(), params, force=True)
    except Exception as error:  # TensorStore has no common class for a full disk
        raise CheckpointError(
            f"cannot write {path}: {first_line(error)}. "
            "The checkpoints are kept; make room, then go on with --resume."
        ) from error


def load_params(path: pathlib.Path) -> Any:
    """Returns the pytree of arrays that `save_params` wrote."""
    with _checkpointer() as checkpointer:
        return checkpointer.restore(path.resolve())


def _checkpointer() -> ocp.StandardCheckpointer:
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="params"
        )
    )
