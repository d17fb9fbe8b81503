"""Parameters on disk, in Orbax's format."""

import pathlib
from typing import Any

import orbax.checkpoint as ocp


def save_params(path: pathlib.Path, params: Any) -> None:
    """Writes a pytree of arrays into the new folder `path`, atomically."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), params)


def load_params(path: pathlib.Path) -> Any:
    """Returns the pytree of arrays that `save_params` wrote."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve())
