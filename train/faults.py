"""How work fails and how it is stopped: what every room may raise."""

import contextlib
import signal
from collections.abc import Iterator


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
