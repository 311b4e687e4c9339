"""MongoDB for tests: the stand-in nx-27017 (docs/decisions/0007) as a process of its own, or a true one.

``EVENTSINK_TEST_MONGO_URL`` names a true server: a single mongod without TLS, since tests reach it through a
gate that they can shut. Either way a test has a database of its own, and may take the server away.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient

from tests.ports import unused_port

LOOPBACK = "127.0.0.1"
START_LIMIT_S = 60.0
TRUE_SERVER = "EVENTSINK_TEST_MONGO_URL"
STAND_IN = "from nx_27017.nx_27017 import main; main()"


class StandIn:
    """The process. Killed and started again it has what it had acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = unused_port()
        (folder / "data").mkdir()

    def start(self) -> None:
        """Start unless it runs; returns when it takes connections."""
        if self._process is not None:
            return
        folder = self._folder
        options = {
            "--data-dir": folder / "data",
            "--host": LOOPBACK,
            "--port": self.port,
            "--pid-file": folder / "pid",
            "--log-file": folder / "log",
        }
        with (folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", STAND_IN, *(str(part) for pair in options.items() for part in pair)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then ends us
            )
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((LOOPBACK, self.port), timeout=5).close()
            except OSError:
                time.sleep(0.05)  # not listening yet
            else:
                return
        self.kill()
        pytest.fail(f"nx-27017 did not start:\n{(folder / 'output').read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """``kill -9``."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            # Of a process that is gone; its number may be another's when the next one looks.
            (self._folder / "pid").unlink(missing_ok=True)


class Gate:
    """Passes connections on to a server until it is shut, which cuts them all."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lost: bytes | None = None
        self._awaited: tuple[bytes, threading.Event] | None = None
        self.port = unused_port()

    def open(self) -> None:
        """Listen, always on the same port."""
        if self._listener is None:
            self._listener = socket.create_server((LOOPBACK, self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Cut every connection and take no more."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        for connection in list(self._open):
            _cut(connection)

    def lose_answer(self, command: str) -> None:
        """The next such command is carried out, and its connection is cut instead of its answer."""
        self._lost = _named(command)

    def passing(self, command: str) -> threading.Event:
        """Set as soon as the server has, in whole or in part, the next such command."""
        passed = threading.Event()
        self._awaited = _named(command), passed
        return passed

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return  # shut
                try:
                    server = socket.create_connection(self._server, timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                doomed = threading.Event()
                self._open |= {client, server}
                for pump in (self._ask, self._answer):
                    threading.Thread(target=pump, args=(client, server, doomed), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with client, suppress(OSError):
            while chunk := client.recv(1 << 16):
                # The command's name comes first in a message, and a message at the start of a chunk.
                if self._lost is not None and self._lost in chunk[:64]:
                    self._lost = None
                    doomed.set()
                server.sendall(chunk)
                if self._awaited is not None and self._awaited[0] in chunk[:64]:
                    self._awaited[1].set()
                    self._awaited = None
        self._end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with server, suppress(OSError):
            while chunk := server.recv(1 << 16):
                if doomed.is_set():
                    break
                client.sendall(chunk)
        self._end(client, server)

    def _end(self, *connections: socket.socket) -> None:
        for connection in connections:
            _cut(connection)
            self._open.discard(connection)


class Mongo:
    """A server with a fresh database, for one test."""

    def __init__(self, url: str, database: str, gate: Gate, stand_in: StandIn | None) -> None:
        self.url = url
        self.database = database
        self._gate = gate
        self._stand_in = stand_in

    def stop(self) -> None:
        """The server is gone, in the middle of whatever it does."""
        self._gate.shut()
        if self._stand_in is not None:
            self._stand_in.kill()

    def start(self) -> None:
        """It is back, with the same data, at the same address."""
        if self._stand_in is not None:
            self._stand_in.start()
        self._gate.open()

    def cut(self) -> None:
        """Every connection breaks; the server goes on with what it does."""
        self._gate.shut()
        self._gate.open()

    def lose_answer(self, command: str) -> None:
        """The next such command (``insert``, ``update``) is carried out and its answer lost."""
        self._gate.lose_answer(command)

    def passing(self, command: str) -> threading.Event:
        """Set as soon as the server has, in whole or in part, the next such command."""
        return self._gate.passing(command)


@pytest.fixture(scope="session")
def mongo_stand_in() -> Iterator[StandIn]:
    """The process, started when the first test asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="eventsink-mongo-"))
    stand_in = StandIn(folder)
    try:
        stand_in.start()
        yield stand_in
    finally:
        stand_in.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mongo(request: pytest.FixtureRequest) -> Iterator[Mongo]:
    """A database of its own for each test."""
    database = f"test_{uuid.uuid4().hex}"
    true_url = os.environ.get(TRUE_SERVER)
    stand_in: StandIn | None = None
    if true_url is None:
        stand_in = request.getfixturevalue("mongo_stand_in")
        stand_in.start()  # an earlier test may have left it stopped
        gate = Gate(LOOPBACK, stand_in.port)
        gate.open()
        url = f"mongodb://{LOOPBACK}:{gate.port}/"
    else:
        parts = urlsplit(true_url)
        gate = Gate(parts.hostname or LOOPBACK, parts.port or 27017)
        gate.open()
        user, at, _ = parts.netloc.rpartition("@")
        url = f"mongodb://{user}{at}{LOOPBACK}:{gate.port}{parts.path or '/'}"
        # Else the driver would go to the members of a replica set, past the gate.
        url += f"?{parts.query}&directConnection=true" if parts.query else "?directConnection=true"
    try:
        yield Mongo(url, database, gate, stand_in)
    finally:
        gate.shut()
        if true_url is not None:
            with MongoClient[dict[str, object]](true_url) as client:
                client.drop_database(database)


def _named(command: str) -> bytes:
    """How BSON has a command's name: a string's key."""
    return b"\x02" + command.encode() + b"\x00"


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)
