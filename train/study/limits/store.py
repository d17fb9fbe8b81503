"""The records of the study: a line a group of runs, written as it is run."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from train.record import workdir
from train.record.environment import environment

KEYS = ("part", "problem", "optimizer", "arm", "steps", "rate")


class Store:
    """A file of records, to which each is added once.

    Attributes:
      path: the file.
      records: all of them by the values of `KEYS`.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.records = {key_of(line): line for line in workdir.read_lines(path)}
        self.source: dict[str, Any] = {}  # of what is added

    def add(self, record: dict[str, Any]) -> None:
        """Adds a record with what it was made by; one that is there stays as it is."""
        if key_of(record) in self.records:
            return
        self.source = self.source or environment()
        whole = {**record, **self.source}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(whole) + "\n")
        self.records[key_of(whole)] = whole

    def get(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the record of a key, None if it is not there."""
        return self.records.get(key_of(key))

    def part(self, name: str) -> Sequence[dict[str, Any]]:
        """Returns the records of a part, in the order in which they were made."""
        return [record for record in self.records.values() if record["part"] == name]


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what tells a record from all others."""
    return tuple(record.get(name) for name in KEYS)
