"""A door before a server on loopback: shut, whoever was inside is cut off and nobody is let in."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.ports import unused_port


class Gate:
    """Passes connections to ``port`` on, as long as it is open. ``port`` of its own stays the same."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listening: socket.socket | None = None
        self._inside: set[socket.socket] = set()
        self.port = unused_port()

    def open(self) -> None:
        """Let in."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen()
        self._listening = listening
        threading.Thread(target=self._let_in, args=(listening,), daemon=True).start()

    def shut(self) -> None:
        """Cut everything; new connections are refused."""
        listening, self._listening = self._listening, None
        if listening is not None:
            # Closing alone would leave the thread in its accept, and the port open.
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for connection in list(self._inside):
            with contextlib.suppress(OSError):  # ended by itself meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def _let_in(self, listening: socket.socket) -> None:
        while True:
            try:
                outer, _ = listening.accept()
            except OSError:
                return  # shut
            inner = socket.create_connection(("127.0.0.1", self._behind))
            self._inside |= {outer, inner}
            for source, target in ((outer, inner), (inner, outer)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either side cut
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        self._inside.discard(source)
        source.close()


@contextlib.contextmanager
def gate_before(port: int) -> Iterator[Gate]:
    """An open gate, shut at the end."""
    gate = Gate(port)
    gate.open()
    try:
        yield gate
    finally:
        gate.shut()
