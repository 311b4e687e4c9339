"""A server program that speaks HTTP, as a child of the tests: started, waited for, ended by its own process."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

LOOPBACK = "127.0.0.1"
#: Seconds. Our servers need less than one; a busy machine may need many times that.
START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0


class Daemon:
    """``program`` of the Debian package ``package``; it answers ``GET ready`` on ``port`` once it has started."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        package: str,
        port: int,
        ready: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [program, *arguments]
        self._package = package
        self._environment = environment or {}
        self.port = port
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path) -> None:
        """Fails the test with the program's own words when it does not come up."""
        if shutil.which(self._command[0]) is None:
            pytest.fail(f"{self._command[0]} is missing: `make test` installs the package {self._package}")
        output = folder / "output"
        with output.open("ab") as opened:
            self._process = subprocess.Popen(
                self._command,
                cwd=folder,
                # Nothing of this machine's own settings: both programs would read them from here.
                env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then ends us
            )
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        self.end()
        pytest.fail(f"{self._command[0]} did not start:\n{output.read_text(errors='replace')[-4000:]}")

    @property
    def pid(self) -> int:
        """The running program."""
        assert self._process is not None, f"{self._command[0]} is not running"
        return self._process.pid

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Killed, if nothing else is said: what it holds is thrown away with its folder."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(STOP_LIMIT_S)

    def ask(
        self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request straight to the program."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=STOP_LIMIT_S)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            status, _ = self.ask("GET", self._ready)
        except OSError:
            return False  # not listening yet
        return status < 300
