"""The folder in which JAX keeps compiled programs, mended where it is damaged."""

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
    """Removes what JAX finds damaged in its cache, for it to be written anew.

    JAX itself warns of a damaged program whenever it is wanted, and leaves it there.
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
        # Each time, so that each damaged program is removed.
        for kind in (READING, WRITING):
            warnings.filterwarnings("always", kind, UserWarning)
        yield


def folder() -> pathlib.Path:
    """Returns where compiled programs are kept."""
    return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


def advice(damaged: bool) -> str:
    """Returns what to tell a user of the folder."""
    if damaged:
        return f"compiled programs in {folder()} were damaged, and are made anew."
    return f"compiled programs cannot be kept in {folder()}: the next run makes them."


def remove(program: str) -> bool:
    """Removes what is kept of a program, and tells whether there was any."""
    kept = [*folder().glob(f"{program}-*")]
    for path in kept:
        with contextlib.suppress(OSError):
            path.unlink()
    return bool(kept)
