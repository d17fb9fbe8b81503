"""Connects the processes of a run, so that each hears at once when another one ends.

JAX notices, too, but after a minute, or by aborting this process in the middle of its
work. The system closes a connection as soon as its process ends.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from train.faults import Interrupted

TOKEN = 16  # bytes by which the first process tells the others from strangers
BYE, FAILED = b".", b"!"  # what a process says last
GRACE = 0.5  # seconds that a failed process leaves the others to fail in the same way
PATIENCE = 10.0  # seconds to reach the first process


@contextlib.contextmanager
def line(host: str | None, lost: Callable[[], None]) -> Iterator[None]:
    """Connects the first process with all others; enter it in every process.

    If the first process cannot be reached in this way, they do without.

    Args:
      host: the first process's host, as the others know it; None for its own name.
      lost: called in a thread when a process has ended without saying so.
    """
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            server = stack.enter_context(listen())
            name = host or socket.gethostname()
            place = shared(server.getsockname()[1], os.urandom(TOKEN), name)
            ends = Ends(lost)
            threading.Thread(
                target=answer, args=(server, place[1], ends), daemon=True
            ).start()
        else:
            port, token, name = shared(0, bytes(TOKEN), "")
            ends = Ends(lost)
            with contextlib.suppress(OSError):
                connection = socket.create_connection((name, port), PATIENCE)
                connection.sendall(token)
                ends.watch(connection)
        try:
            yield
        except Exception as error:
            ends.say(BYE if isinstance(error, Interrupted) else FAILED)
            raise
        ends.say(BYE)


def listen() -> socket.socket:
    """Returns a server on a free port."""
    if socket.has_dualstack_ipv6():
        family = socket.AF_INET6
        return socket.create_server(("", 0), family=family, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def shared(port: int, token: bytes, host: str) -> tuple[int, bytes, str]:
    """Returns the first process's arguments, in every process."""
    name = host.encode()[:255].ljust(255, b"\0")
    numbers = np.frombuffer(token + name, np.uint8).astype(np.int32)
    found = multihost_utils.broadcast_one_to_all(np.append(numbers, np.int32(port)))
    *numbers, port = np.asarray(found).tolist()
    whole = bytes(numbers)
    return port, whole[:TOKEN], whole[TOKEN:].rstrip(b"\0").decode()


def answer(server: socket.socket, token: bytes, ends: "Ends") -> None:
    """Accepts connections from the other processes until the server is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            connection.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                if connection.recv(TOKEN, socket.MSG_WAITALL) == token:
                    ends.watch(connection)
                    continue
            connection.close()


class Ends:
    """This process's ends of its connections to others."""

    def __init__(self, lost: Callable[[], None]):
        self.lost = lost
        self.connections: list[socket.socket] = []

    def watch(self, connection: socket.socket) -> None:
        """Starts a thread that waits for the last message of the other process."""
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connections.append(connection)
        threading.Thread(target=self._wait, args=(connection,), daemon=True).start()

    def say(self, last: bytes) -> None:
        """Tells the others how this process has ended."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sendall(last)

    def _wait(self, connection: socket.socket) -> None:
        last = b""
        with contextlib.suppress(OSError):
            last = connection.recv(1)
        if last == FAILED:
            time.sleep(GRACE)
        if last != BYE:
            self.lost()
