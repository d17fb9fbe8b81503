"""The folder in which JAX keeps compiled programs, repaired where it is damaged."""

import contextlib
import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

READING = r"Error reading persistent compilation cache entry for '(.*?)'"
WRITING = r"Error writing persistent compilation cache entry for"


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """Removes what JAX finds damaged in its cache, so that it is written again.

    JAX itself leaves a damaged program there, and warns each time it is needed.
    """
    with warnings.catch_warnings():
        shown = warnings.showwarning
        said: set[str] = set()

        def show(message: Any, *where: Any) -> None:
            read = re.match(READING, str(message))
            if not read and not re.match(WRITING, str(message)):
                shown(message, *where)
                return
            text = advice(bool(read) and remove(read[1]))
            if text not in said:
                said.add(text)
                print(f"warning: {text}", flush=True)

        warnings.showwarning = show
        # Show every warning, so that every damaged program is removed.
        for kind in (READING, WRITING):
            warnings.filterwarnings("always", kind, UserWarning)
        yield


def folder() -> pathlib.Path:
    """Returns where compiled programs are kept."""
    return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


def advice(damaged: bool) -> str:
    """Returns what to tell a user about the folder."""
    if damaged:
        return f"compiled programs in {folder()} were damaged and are compiled again."
    return f"cannot keep compiled programs in {folder()}; the next run compiles again."


def remove(program: str) -> bool:
    """Removes the kept files of a program, and tells whether there were any."""
    kept = [*folder().glob(f"{program}-*")]
    for path in kept:
        with contextlib.suppress(OSError):
            path.unlink()
    return bool(kept)
