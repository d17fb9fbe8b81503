"""How a command begins and ends: its output, its one-line errors, its exit status."""

import io
import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from train.command import compiled
from train.faults import Failure, Stop


def entry(main: Callable[[], int]) -> NoReturn:
    """Ends the process with a command's exit status.

    If nobody reads its output any more, as with `| head -n 1`, it ends quietly with
    status 1, as Rich does.
    """
    ready_output()
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        status = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def ready_output() -> None:
    """Makes standard output and error accept any text.

    A closed one is sent to the null device, so that no file opened later gets its
    number. Characters that an encoding lacks are written as escapes.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_unread() -> bool:
    """Tells whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def run(work: Callable[[Stop], None], *, debug: bool) -> int:
    """Runs a command's work and returns its exit status.

    The status is 0 on success. A failure is reported in one line, with status 1, or 2
    for usage, 130 for SIGINT, 143 for SIGTERM and 129 for SIGHUP.

    Args:
      work: the work, a function of the user's requests to stop.
      debug: whether to show the traceback of a failure, too.
    """
    try:
        with Stop().listening() as stop, compiled.mended():
            work(stop)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_unread():
            raise
        if debug:
            traceback.print_exc()
        return complain(error)
    return 0


def complain(error: Exception) -> int:
    """Reports an error to the user in one line and returns the exit status."""
    print(f"error: {message(error)}", file=sys.stderr, flush=True)
    return error.status if isinstance(error, Failure) else 1


def message(error: Exception) -> str:
    """Returns an error's message in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.strerror}: {error.filename}"
    elif not isinstance(error, Failure | OSError):  # not foreseen
        first = text.strip().partition("\n")[0][:200]
        text = f"{type(error).__name__}: {first or 'no message'}. "
        text += "Use --debug to see where."
    return " ".join(text.split())
