"""The share of each kernel's gradient that the arm removed, step by step."""

import pathlib
from collections.abc import Mapping

import numpy as np

from train.record import workdir

FILE = "removed.npz"


class Shares:
    """A table with a row per step and a column per kernel; kept as `removed.npz`.

    That file has the kernels' paths as `paths`, and `shares` in float32, of shape
    `(steps, kernels)`, from the first step on.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.rows: list[np.ndarray] = []

    def append(self, removed: Mapping[str, float]) -> None:
        """Adds a step: the share of each kernel, by path."""
        self.paths = list(removed)
        self.rows.append(np.fromiter(removed.values(), np.float32, len(removed)))

    def load(self, folder: pathlib.Path, steps: int) -> bool:
        """Takes over the first `steps` of a run, with NaN where its record has none.

        Returns:
          Whether the record is undamaged.
        """
        path, undamaged = folder / FILE, True
        try:
            with np.load(path) as file:
                self.paths = file["paths"].tolist()
                self.rows = list(file["shares"][:steps])
        except FileNotFoundError:
            pass
        except Exception:  # reading a damaged file may raise anything
            undamaged = False
        self.rows += [np.array(np.nan, np.float32)] * (steps - len(self.rows))
        return undamaged

    def save(self, folder: pathlib.Path) -> None:
        """Writes the file so that a reader sees all of it or all of the old one."""
        rows = [np.broadcast_to(row, len(self.paths)) for row in self.rows]
        with (
            workdir.replaced(folder / FILE) as unfinished,
            unfinished.open("wb") as file,
        ):
            np.savez(file, paths=np.array(self.paths), shares=np.stack(rows))
