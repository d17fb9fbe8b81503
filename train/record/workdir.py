"""The folder of a run: claimed once, gone on with only by the same configuration."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from train.config import NOT_RESULTS, Config
from train.faults import UsageError

DIVERGED = "diverged.txt"  # in the folder of a comparison's run that did


def is_over(path: pathlib.Path) -> bool:
    """Tells whether the run in a folder has ended, or diverged in a comparison."""
    return any((path / name).exists() for name in ("summary.json", DIVERGED))


def claim(config: Config) -> pathlib.Path:
    """Returns the run's folder: a new one, or with --resume the one it left.

    Raises:
      UsageError: if the folder that was asked for holds something else.
      OSError: if it cannot be created or written to.
    """
    if config.workdir is None:
        return next_free(pathlib.Path("runs"), run_name(config))
    path = config.workdir
    if config.resume and (path / "config.json").exists():
        check_same(path, config)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        rule = "a run's folder or new" if config.resume else "a new or empty folder"
        raise UsageError(
            f"--workdir must be {rule}, got {path}, which is neither. "
            "Name another one, or remove it."
        )
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))
    return path


def check_same(path: pathlib.Path, config: Config) -> None:
    """Raises a `UsageError` that names how a folder's run is configured otherwise."""
    # What a run of before does not name had its default.
    theirs = (
        as_json(type(config)())
        | json.loads((path / "config.json").read_text())["config"]
    )
    differences = [
        f"{name} was {theirs[name]}, now {value}"
        for name, value in as_json(config).items()
        if name not in NOT_RESULTS and theirs[name] != value
    ]
    if differences:
        raise UsageError(
            f"the run in {path} is another one: {'; '.join(differences)}. "
            "Repeat its options, or name another --workdir."
        )


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as config.json holds it."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def run_name(config: Config) -> str:
    """Returns a short name for runs of this configuration."""
    arm = "gc" if config.gc else "placebo" if config.placebo else "no-gc"
    return f"{config.prefix}{arm}-seed{config.seed}"


def next_free(parent: pathlib.Path, stem: str) -> pathlib.Path:
    """Creates and returns `parent/stem`, or the first free one of stem-2, -3, ..."""
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or the one before."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file anew."""
    write(path, json.dumps(value, indent=2, default=str) + "\n")


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a JSON Lines file, none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last end is cut
    return [json.loads(line) for line in lines]


def write_lines(path: pathlib.Path, lines: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON Lines file anew."""
    write(path, "".join(json.dumps(line) + "\n" for line in lines))
