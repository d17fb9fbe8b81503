"""The folder of a run: owned by one process, and resumed only as configured."""

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import filelock

from train import faults
from train.config import NOT_RESULTS, Config
from train.faults import Failure, UsageError

CONFIG = "config.json"  # the first file of a run
DIVERGED = "diverged.txt"  # in the folder of a comparison's run that diverged
LOCK, OWNER = ".lock", ".owner"  # these files stay; the system holds the lock itself
PATIENCE = 0.5  # seconds: others may hold a lock briefly, to see whether it is free


class Folder:
    """The folder of a run or a comparison, made and owned when it is needed."""

    def __init__(self, path: pathlib.Path, *, numbered: bool = False):
        """Makes nothing yet.

        Args:
          path: the folder.
          numbered: take the first of path, path-2, path-3... that does not exist.
        """
        self._path = path
        self._numbered = numbered
        self._lock: filelock.BaseFileLock | None = None
        self._made: list[pathlib.Path] = []
        self._end = contextlib.ExitStack()

    @property
    def path(self) -> pathlib.Path:
        """Where the folder is, or would be if it were made now."""
        waits = self._numbered and self._lock is None
        return next_free(self._path) if waits else self._path

    def own(self) -> pathlib.Path:
        """Makes the folder if necessary, keeps all others out, and returns it.

        Raises:
          Failure: if another process owns it.
          OSError: if it cannot be made or written to.
        """
        if self._lock is None:
            self._end.enter_context(faults.tidied(self._tidy))
            with undone(self.close):
                self._make()
                self._lock = locked(self._path)
        return self.path

    def begin(self) -> pathlib.Path:
        """Owns the folder for a run that begins in it, if it is not owned yet.

        Raises:
          Failure: as `own` does, or if another run has begun there in the meantime.
        """
        if self._lock is None and (self.own() / CONFIG).exists():
            self.close()
            raise Failure(
                f"another process has just trained a run in {self.path}. Repeat the "
                "command to see it, or use another folder."
            )
        return self.path

    def close(self) -> None:
        """Releases the folder, and removes it if nothing was written into it."""
        self._end.close()

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _make(self) -> None:
        while True:
            path = self.path
            try:
                self._made = made(path, new=self._numbered)
                break
            except FileExistsError:  # another process was faster
                if not self._numbered:
                    raise
        self._path = path

    def _tidy(self) -> None:
        if only_lock(self._path):
            for name in (LOCK, OWNER):
                (self._path / name).unlink(missing_ok=True)
            for path in self._made:
                with contextlib.suppress(OSError):  # others have files there
                    path.rmdir()
        if self._lock is not None:
            self._lock.release()
        self._lock, self._made = None, []


def made(path: pathlib.Path, *, new: bool = False) -> list[pathlib.Path]:
    """Makes a folder; returns it and the parents that did not exist before.

    Raises:
      FileExistsError: if it exists although it must be new.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=not new)
    return missing


def only_lock(path: pathlib.Path) -> bool:
    """Tells whether a folder contains nothing but what `locked` leaves in it."""
    return path.is_dir() and {one.name for one in path.iterdir()} <= {LOCK, OWNER}


def locked(path: pathlib.Path) -> filelock.BaseFileLock:
    """Acquires and returns the lock of a folder, and notes the owner there.

    Raises:
      Failure: if another process holds it.
    """
    lock = acquired(path)
    write(path / OWNER, f"process {os.getpid()} on {socket.gethostname()}\n")
    return lock


def acquired(path: pathlib.Path) -> filelock.BaseFileLock:
    """Acquires and returns the lock of a folder, which ends with the process."""
    # Open to all, because a lock file that one user leaves must not keep others out.
    lock = filelock.FileLock(path / LOCK, mode=0o666, thread_local=False)
    try:
        lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 10)
    except filelock.Timeout:
        raise Failure(
            f"{path} is in use by {owner(path)}. Wait until that has ended, or use "
            "another folder."
        ) from None
    return lock


def owner(path: pathlib.Path) -> str:
    """Returns who holds the lock of a folder."""
    try:
        return (path / OWNER).read_text().strip()
    except OSError:
        return "another process"


def check_free(config: Config) -> None:
    """Raises a `Failure` if the run's folder belongs to a comparison in progress."""
    if config.workdir and (config.workdir.parent / LOCK).exists():
        acquired(config.workdir.parent).release()


def is_over(path: pathlib.Path) -> bool:
    """Tells whether the run in a folder has ended, or diverged in a comparison."""
    return any((path / name).exists() for name in ("summary.json", DIVERGED))


def claim(config: Config, option: str = "--workdir") -> Folder:
    """Returns the run's folder: a new one or, with --resume, the existing one, owned.

    A new one is not made yet.

    Args:
      config: the run's configuration.
      option: the option that names the folder.

    Raises:
      UsageError: if the folder contains something else.
      Failure: if another process owns it.
      OSError: if it cannot be made or written to.
    """
    if config.workdir is None:
        path = pathlib.Path("runs") / run_name(config)
        folder = Folder(path, numbered=True)
        check_can_be_made(folder.path)
        return folder
    folder = Folder(config.workdir)
    with undone(folder.close):
        if (folder.path / CONFIG).exists() and config.resume:
            folder.own()
        elif (folder.path / LOCK).exists():  # an error names the owner first
            acquired(folder.path).release()
        check(config, option)
    return folder


def check(config: Config, option: str) -> None:
    """Raises what `claim` does about the folder that a run names."""
    if (config.workdir / CONFIG).exists():
        check_asked_for(config.workdir, config, option)
    else:
        check_new(config.workdir, option)


@contextlib.contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """Calls `undo` if its body fails."""
    try:
        yield
    except BaseException:
        undo()
        raise


def check_asked_for(path: pathlib.Path, config: Config, option: str) -> None:
    """Raises a `UsageError` unless the run in a folder is the one to continue."""
    if not config.resume:
        raise UsageError(
            f"{option} {path} contains a run. Add --resume to continue it, or use "
            "another folder."
        )
    check_same(path, config, option)


def check_new(path: pathlib.Path, option: str) -> None:
    """Raises a `UsageError` unless a run may start in a folder."""
    if path.is_dir() and any((path / name).exists() for name in PARTS):
        raise UsageError(
            f"{option} {path} contains a run without its {CONFIG}, which says how it "
            "was configured. Restore that file to continue, or use another folder."
        )
    if path.exists() and not only_lock(path):
        kind = "a folder of something else" if path.is_dir() else "a file"
        raise UsageError(
            f"{option} must be a new or empty folder or a run's folder, got {path}, "
            f"which is {kind}. Use another one."
        )
    check_can_be_made(path)


PARTS = ("metrics.jsonl", "checkpoints", "params", "summary.json")  # of a run


def check_can_be_made(path: pathlib.Path) -> None:
    """Raises an `OSError` if a folder cannot be made or written to."""
    above = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def check_same(path: pathlib.Path, config: Config, option: str) -> None:
    """Raises a `UsageError` that names the options in which a folder's run differs."""
    # Options that an older run does not name had their defaults.
    theirs = as_json(type(config)()) | read_config(path)["config"]
    differences = [
        f"{name} was {theirs[name]}, now {value}"
        for name, value in as_json(config).items()
        if name not in NOT_RESULTS and theirs[name] != value
    ]
    if differences:
        raise UsageError(
            f"the run in {path} has other options: {'; '.join(differences)}. "
            f"Repeat them, or use another {option}."
        )


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Returns the contents of config.json in a run's folder.

    Raises:
      Failure: if it is damaged.
    """
    file = path / CONFIG
    try:
        found = json.loads(file.read_text())
        if isinstance(found["config"], dict) and isinstance(found["dataset"], dict):
            return found
    except (ValueError, TypeError, KeyError):  # not JSON, or of something else
        pass
    raise Failure(
        f"{file} is damaged: it does not say how the run was configured. Restore it "
        "from a copy, or train in another folder."
    )


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as stored in config.json."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def run_name(config: Config) -> str:
    """Returns a short name for runs of this configuration."""
    arm = "gc" if config.gc else "placebo" if config.placebo else "no-gc"
    return f"{config.prefix}{arm}-seed{config.seed}"


def next_free(path: pathlib.Path) -> pathlib.Path:
    """Returns the first of path, path-2, path-3... that does not exist."""
    numbered = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or all of the previous one."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields where to write a file that then replaces the one at `path`.

    This survives a power failure: the file is on disk before it is renamed.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    with faults.uninterrupted(), undone(lambda: unfinished.unlink(missing_ok=True)):
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file)
        unfinished.replace(path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file, replacing it."""
    write(path, json.dumps(value, indent=2, default=str) + "\n")


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a JSON Lines file; none if there is no file.

    Raises:
      Failure: if one of them is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # an incomplete last line is dropped
    return [read_line(path, i, line) for i, line in enumerate(lines, 1)]


def read_line(path: pathlib.Path, number: int, line: bytes) -> dict[str, Any]:
    """Returns the object in a line of a file."""
    try:
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise damaged_line(path, number)


def damaged_line(path: pathlib.Path, number: int) -> Failure:
    """Returns the error for a line of a run's record that cannot be used."""
    return Failure(
        f"line {number} of {path} is damaged. Restore the file from a copy, or remove "
        "that line and continue without it."
    )


def lines_until(path: pathlib.Path, key: str, last: int) -> list[dict[str, Any]]:
    """Returns the lines of a file whose number (epoch or step) is `last` or less.

    Raises:
      Failure: if one of them is damaged.
    """
    lines = read_lines(path)
    for i, line in enumerate(lines, 1):
        if not isinstance(line.get(key), int):
            raise damaged_line(path, i)
    return [line for line in lines if line[key] <= last]


def write_lines(path: pathlib.Path, lines: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON Lines file, replacing it."""
    write(path, "".join(json.dumps(line) + "\n" for line in lines))
