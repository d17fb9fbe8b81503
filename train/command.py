"""What the commands share: how they fail, how they are interrupted, how they end."""

import contextlib
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator


class Failure(Exception):  # noqa: N818, it covers interruptions too
    """What stops a command; its message is one line for the user."""

    status = 1


class UsageError(Failure):
    """A command line that cannot be obeyed."""

    status = 2


class Interrupted(Failure):
    """Ctrl-C or a request to end: the exit status is 128 and the signal's number."""

    def __init__(self, signum: int, remedy: str = "Nothing was lost."):
        self.signum, self.status = signum, 128 + signum
        super().__init__(f"stopped by {signal.Signals(signum).name}. {remedy}")


class Stop:
    """The user's request to stop, by SIGINT or SIGTERM.

    A signal raises `Interrupted` at once, except inside `deferred`, where the first
    one is only noted.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._deferring = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Handles the two signals here instead of their previous handlers."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {signum: signal.signal(signum, self._handle) for signum in signals}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Lets the work inside come to its own end."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, signum: int, frame: object) -> None:
        del frame
        impatient = self.signum is not None
        self.signum = signum
        if impatient or not self._deferring:
            raise Interrupted(signum)


def run(work: Callable[[Stop], None], *, debug: bool) -> int:
    """Runs a command's work and returns its exit status.

    That is 0, or after a failure, of which the user is told in one line, its status:
    1, 2 for usage, 130 for SIGINT, 143 for SIGTERM.

    Args:
      work: is given the user's requests to stop.
      debug: also show the traceback of a failure.
    """
    try:
        with Stop().listening() as stop:
            work(stop)
    except (Failure, OSError) as error:
        if debug:
            traceback.print_exc()
        return complain(error)
    return 0


def complain(error: Failure | OSError) -> int:
    """Tells the user of an error in one line and returns the exit status."""
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.strerror}: {error.filename}"
    print(f"error: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return error.status if isinstance(error, Failure) else 1


def command_line(module: str, args: list[str], *more: str) -> str:
    """Returns what to type to call a module with these and more arguments."""
    return shlex.join(["python", "-m", module, *args, *more])
