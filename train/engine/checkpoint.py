"""Parameters and resumable states on disk, in Orbax's format."""

import dataclasses
import hashlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import absl.logging
import jax
import numpy as np

from train.engine.state import State
from train.faults import Failure, first_line, is_full, uninterrupted

SEAL = "SHA256"  # a file in each Orbax folder that shows whether the others are damaged
if TYPE_CHECKING:
    import orbax.checkpoint as ocp

ORBAX_BYTES = 2**16  # room for what Orbax adds: some 24 kB for 100 leaves
KEPT = 2  # checkpoints per run; the older one is used if the newer is damaged


class CheckpointError(Failure):
    """A checkpoint that cannot be written."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is: its current epoch, and sums over the steps of that epoch.

    `epoch` counts from 1. `steps` and `images` are those of the epoch that are done (an
    image is any example). `loss` and `score` are sums over images; `removed` is a sum
    over steps for each centralized leaf, by path. `seconds` is the time they took.
    """

    epoch: int = 1
    steps: int = 0
    images: int = 0
    loss: float = 0.0
    score: float = 0.0
    seconds: float = 0.0
    removed: dict[str, float] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The last few checkpoints of a run, one folder each, named by number of steps."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.resolve()
        absl.logging.set_verbosity(absl.logging.FATAL)  # Orbax raises what it logs

    def save(self, step: int, state: State, progress: Progress) -> None:
        """Writes a state and the progress atomically; drops old checkpoints.

        Raises:
          CheckpointError: if it cannot be written; older ones are then kept.
        """
        state = jax.device_get(state)
        record = {"progress": dataclasses.asdict(progress)}
        try:
            with uninterrupted():
                self._save(step, state, record)
        except Exception as error:  # TensorStore has no common class for a full disk
            kept = " Earlier checkpoints are kept." if self.steps() else ""
            raise unwritten(f"a checkpoint into {self.folder}", error, kept) from error

    def _save(self, step: int, state: State, record: dict[str, Any]) -> None:
        ocp = orbax()
        self.folder.mkdir(exist_ok=True)
        check_room(self.folder, state)
        with self._manager() as manager:
            # An existing one at the same step can only be one that was found damaged.
            shutil.rmtree(self.folder / str(step), ignore_errors=True)
            manager.reload()
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(layout(state)),
                    record=ocp.args.JsonSave(record),
                ),
            )
        seal(self.folder / str(step))

    def restore(
        self, like: State, warn: Callable[[str], None]
    ) -> tuple[State, Progress] | None:
        """Returns the newest undamaged checkpoint, or None if there are none at all.

        Args:
          like: a state with the same structure, shapes and dtypes.
          warn: called with a warning for each damaged checkpoint.

        Raises:
          CheckpointError: if there are checkpoints, and all are damaged.
        """
        steps = self.steps()
        if not steps:
            return None
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        with self._manager() as manager:
            for step in steps:
                try:
                    return self._restore(manager, step, like)
                except Exception as error:  # damaged files may raise anything
                    why = f"is damaged ({reason(error)})"
                    if step != steps[-1]:
                        place = self.folder / str(step)
                        warn(f"the checkpoint {place} {why}; trying the previous one.")
        raise CheckpointError(
            f"no checkpoint in {self.folder} can be read: the oldest {why}, and so are "
            "all newer ones. Restore one from a copy, or train again in another "
            "folder. The record is left unchanged."
        )

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints, newest first."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _restore(self, manager, step, like):
        check_seal(self.folder / str(step))
        ocp = orbax()
        items = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(layout(like)),
                record=ocp.args.JsonRestore(),
            ),
        )
        return like.replace(**items.state), progress_of(items.record["progress"])

    def _manager(self) -> "ocp.CheckpointManager":
        ocp = orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            create=False,
            enable_async_checkpointing=False,
            # If there are several processes, only the first one gets here.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="save"
            ),
        )
        return ocp.CheckpointManager(self.folder, options=options)


def orbax() -> ModuleType:
    """Returns Orbax's module, imported only when the first checkpoint needs it.

    The import takes a second or more, and the first step need not wait for it.
    """
    import orbax.checkpoint

    return orbax.checkpoint


def progress_of(record: dict[str, Any]) -> Progress:
    """Returns the progress recorded in a checkpoint.

    Old checkpoints, from when accuracy was the only score, call the number of right
    answers "correct".
    """
    names = {"correct": "score"}
    return Progress(**{names.get(name, name): value for name, value in record.items()})


def layout(state: State) -> dict[str, Any]:
    """Returns a state as stored on disk: without `model_state` if that is empty."""
    fields = dict(vars(state))
    if not state.model_state:
        del fields["model_state"]
    return fields


def digest(folder: pathlib.Path) -> str:
    """Returns the SHA-256 of the names and bytes of the files, except the seal."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL:
            data = path.read_bytes()
            sha256.update(f"{path.relative_to(folder)} {len(data)}\n".encode() + data)
    return sha256.hexdigest()


def seal(folder: pathlib.Path) -> None:
    """Writes the digest of what was saved, as the last step."""
    (folder / SEAL).write_text(digest(folder) + "\n")


def check_seal(folder: pathlib.Path) -> None:
    """Raises a `ValueError` if files were damaged after they were sealed.

    Orbax would notice most damage, too, but its threads would then complain for pages.
    A checkpoint that was not sealed, because of a kill, is left for Orbax to judge.
    """
    path = folder / SEAL
    if path.exists() and path.read_text().strip() != digest(folder):
        raise ValueError("its files differ from what was saved")


def check_room(folder: pathlib.Path, state: State) -> None:
    """Raises an `OSError` unless a file as large as a checkpoint can be written.

    Orbax would notice, too, but its threads would then complain for pages.
    """
    size = ORBAX_BYTES + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(size))


def reason(error: Exception) -> str:
    """Returns what went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}"
    return first_line(error)


def unwritten(what: str, error: Exception, kept: str = "") -> CheckpointError:
    """Returns the error for something that could not be written."""
    room = "; make room" if is_full(error) else ""
    return CheckpointError(f"cannot write {what}: {reason(error)}{room}.{kept}")


def save_params(path: pathlib.Path, params: Any) -> None:
    """Writes a pytree of arrays into the folder `path` atomically, replacing it.

    Raises:
      CheckpointError: if it cannot be written.
    """
    try:
        with uninterrupted(), _checkpointer() as checkpointer:
            checkpointer.save(path.resolve(), params, force=True)
            checkpointer.wait_until_finished()
            seal(path)
    except Exception as error:  # TensorStore has no common class for a full disk
        raise unwritten(str(path), error, " The checkpoints are kept.") from error


def load_params(path: pathlib.Path) -> Any:
    """Returns the pytree of arrays that `save_params` wrote.

    Raises:
      CheckpointError: if it is damaged.
    """
    try:
        check_seal(path)
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path.resolve())
    except Exception as error:  # damaged files may raise anything
        raise CheckpointError(
            f"{path} is damaged ({reason(error)}). Restore it from a copy, or use "
            "another run."
        ) from error


def _checkpointer() -> "ocp.StandardCheckpointer":
    ocp = orbax()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="params"
        )
    )
