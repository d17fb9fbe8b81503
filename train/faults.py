"""How work fails and how it is stopped: the errors that any part may raise."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: terminal closed


class Failure(Exception):  # noqa: N818, it covers interruptions too
    """An error that stops a command; its message is one line for the user."""

    status = 1


class UsageError(Failure):
    """A command line that is wrong."""

    status = 2


class Interrupted(Failure):
    """Ctrl-C or a request to end; the exit status is 128 plus the signal's number."""

    def __init__(self, signum: int, remedy: str = "Nothing was lost."):
        self.signum, self.status = signum, 128 + signum
        super().__init__(f"stopped by {signal.Signals(signum).name}. {remedy}")


class Stop:
    """The user's request to stop, by SIGINT, SIGTERM or SIGHUP.

    It ends the process at once, with one line, except inside `deferred`. There the
    first request is noted, and obeyed when the work inside has come to its own end.

    No handler raises an exception: that would surface wherever the main thread is, such
    as an import or a compiler's callback, which may swallow it or fail because of it.
    Instead a thread hears of the signal, even while the main thread is in a library.

    Attributes:
      signum: the signal that was noted.
      remedy: what the user is told besides its name.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Makes a stop that is not requested yet; a quiet one is obeyed silently."""
        self.signum: int | None = None
        self.remedy = "Nothing was lost."
        self._quiet = quiet
        self._deferring = False
        self._state = threading.Lock()

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Listens to the signals here, in place of their previous handlers."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        threading.Thread(target=self._hear, args=(read,), daemon=True).start()
        before = {
            signum: signal.signal(signum, lambda *_: None)
            for signum in SIGNALS
            if not (signum == signal.SIGHUP and is_ignored(signum))  # as by nohup
        }
        wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup)
            if not sys.is_finalizing():  # else Python's own handler would raise
                for signum, handler in before.items():
                    signal.signal(signum, handler)
            os.close(write)  # which ends the thread

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Lets the work inside come to its own end.

        Raises:
          Interrupted: at that end, if a stop was requested.
        """
        self._deferring = True
        try:
            yield
        finally:
            with self._state:
                self._deferring = False
        if self.signum is not None:
            raise Interrupted(self.signum, self.remedy)

    def _hear(self, read: int) -> None:
        while heard := os.read(read, 1):
            if heard[0] in SIGNALS:
                # Each in its own thread, because the first one may have to wait.
                args = (heard[0],)
                threading.Thread(target=self._obey, args=args, daemon=True).start()
        os.close(read)

    def _obey(self, signum: int) -> None:
        with self._state:
            again, self.signum = self.signum is not None, signum
            if self._deferring and not again:
                return
        text = "" if self._quiet else f"error: {Interrupted(signum, self.remedy)}\n"
        with contextlib.nullcontext() if again else _writing:
            leave(128 + signum, text)


_writing = threading.RLock()
_unfinished: list[Callable[[], None]] = []


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Completes what is written inside before a signal may end the process."""
    with _writing:
        yield


@contextlib.contextmanager
def tidied(tidy: Callable[[], None]) -> Iterator[None]:
    """Calls `tidy` at the end, even if a signal ends the process inside."""
    _unfinished.append(tidy)
    try:
        yield
    finally:
        _unfinished.remove(tidy)
        tidy()


def first_line(error: BaseException) -> str:
    """Returns what an error says, in a line of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def is_full(error: BaseException | None) -> bool:
    """Tells whether a full disk was the reason; libraries say so in many ways."""
    full = ("no space left", "resource_exhausted", "quota exceeded")
    while error is not None:
        if any(words in str(error).lower() for words in full):
            return True
        error = error.__cause__ or error.__context__
    return False


def leave(status: int, text: str = "") -> None:
    """Ends the process at once, whatever its threads do, with a text for the user."""
    for tidy in reversed(_unfinished):
        with contextlib.suppress(Exception):
            tidy()
    # Not through `sys.stderr`, which another thread may have locked.
    with contextlib.suppress(OSError):
        if text and os.isatty(2):
            text = f"\r\x1b[K\x1b[?25h{text}"  # over a progress bar; the cursor again
        os.write(2, text.encode())
    os._exit(status)


def is_ignored(signum: int) -> bool:
    """Tells whether this process was started so as to ignore a signal."""
    return signal.getsignal(signum) is signal.SIG_IGN


def is_command() -> bool:
    """Tells whether `python -m` is importing the packages above a command."""
    return sys.argv[:1] == ["-m"]
