"""Keeps the records of many runs in one file, one line for each run.

    python -m train.record.archive gather results/confirm
    python -m train.record.archive unpack results/confirm

The first adds the records of the runs under `results/confirm/` to
`results/confirm.jsonl`; the folders stay. The second writes these folders again, the
same to the byte, so that `train.compare` continues from them. A line has the run's path
under the folder as `run`, then each file of its record by name.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from train.config import expanded
from train.faults import Failure
from train.record import workdir

Record = Mapping[str, Any]  # the contents of each file of a run's record, by name
FILES = (
    "config.json", "metrics.jsonl", "diagnostics.jsonl", "evaluations.jsonl",
    "summary.json", workdir.DIVERGED,
)  # fmt: skip


def read_folder(path: pathlib.Path) -> dict[str, Any]:
    """Returns the record of the run in a folder."""
    return {name: read_file(path / name) for name in FILES if (path / name).exists()}


def read_file(path: pathlib.Path) -> Any:
    """Returns the contents of a file of a record."""
    match path.suffix:
        case ".json":
            return json.loads(path.read_text())
        case ".jsonl":
            return workdir.read_lines(path)
    return path.read_text()


def write_folder(path: pathlib.Path, record: Record) -> None:
    """Writes the record of a run into its folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name, value in record.items():
        match pathlib.Path(name).suffix:
            case ".json":
                workdir.write_json(path / name, value)
            case ".jsonl":
                workdir.write_lines(path / name, value)
            case _:
                workdir.write(path / name, value)


def archive_of(folder: pathlib.Path) -> pathlib.Path:
    """Returns the file in which a folder's runs are gathered."""
    return folder.with_name(f"{folder.name}.jsonl")


def read_archive(folder: pathlib.Path, below: str = ".") -> dict[str, Record]:
    """Returns the gathered records of a folder's runs, by their paths under it.

    Args:
      folder: where the runs were, and would be unpacked.
      below: a folder in it, to read only the runs under that.
    """
    records = {line.pop("run"): line for line in workdir.read_lines(archive_of(folder))}
    return {
        name: record
        for name, record in records.items()
        if pathlib.PurePath(name).is_relative_to(below)
    }


def folders(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the path and record of each run under a folder that is over."""
    for path in sorted(folder.rglob("*-seed*/config.json")):
        if workdir.is_over(path.parent):
            yield str(path.parent.relative_to(folder)), read_folder(path.parent)


def gather(folder: pathlib.Path) -> int:
    """Adds the records of the runs under a folder to its file; returns how many.

    Raises:
      Failure: if the file has another record of a run, or a run's source is unknown.
    """
    records = read_archive(folder)
    before = len(records)
    for name, record in folders(folder):
        if name not in records:
            check_source(f"{folder / name}", record)
        elif records[name] != record:
            raise Failure(
                f"{archive_of(folder)} must have one record of each run, got another "
                f"one for {folder / name}. Move one of them away."
            )
        records[name] = record
    lines = ({"run": name, **records[name]} for name in sorted(records, key=by_number))
    workdir.write_lines(archive_of(folder), lines)
    return len(records) - before


def check_source(name: str, record: Record) -> None:
    """Raises a `Failure` if a record does not say which source made it."""
    commit = record["config.json"]["commit"]
    if commit is None or commit.endswith("-dirty"):
        raise Failure(
            f"{name} must come from a committed source, got {commit}. Train it again "
            "from a clean clone."
        )


def by_number(name: str) -> list[str | int]:
    """Returns the sort key of a name, so that seed 9 comes before seed 10."""
    return [
        int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)
    ]


def unpack(folder: pathlib.Path) -> int:
    """Writes the missing folders of the gathered runs; returns how many."""
    records = read_archive(folder)
    missing = [name for name in records if not (folder / name / FILES[0]).exists()]
    for name in missing:
        write_folder(folder / name, records[name])
    return len(missing)


def main() -> int:
    """Gathers or unpacks runs and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.record.archive", description=main.__doc__
    )
    parser.add_argument("what", choices=("gather", "unpack"))
    parser.add_argument("folder", type=expanded, nargs="+")
    args = parser.parse_args()
    try:
        for folder in args.folder:
            count = {"gather": gather, "unpack": unpack}[args.what](folder)
            print(f"{folder}: {count} runs {args.what}ed.")
    except (Failure, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
