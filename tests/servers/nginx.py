"""NGINX for tests: Debian's, with two workers, writing a real access log that a real logrotate rotates."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.daemons import LOOPBACK, STOP_LIMIT_S, Daemon

LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "logrotate"


class Nginx:
    """A server that answers everything with 200; ``/status`` is `stub_status` and stands in no log."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://{LOOPBACK}:{port}"
        self.log = folder / "logs" / "access.log"
        self.log.parent.mkdir()
        self._daemon = Daemon(
            shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "nginx",
            ["-p", str(folder), "-c", "nginx.conf", "-e", "stderr"],
            package="nginx",
            port=port,
            ready="/status",
        )

    def start(self, log_format: str = "") -> None:
        """``log_format``: the directive, whose format is named ``own``; NGINX's ``combined`` without it."""
        temporary = "".join(
            f"{name}_temp_path temporary_{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            ("user root;" if os.geteuid() == 0 else "")
            + "daemon off; worker_processes 2; pid nginx.pid; error_log stderr;"
            "events { worker_connections 512; }"
            f"http {{ client_body_temp_path temporary_body; {temporary} {log_format}"
            f"access_log logs/access.log {'own' if log_format else 'combined'};"
            "keepalive_requests 1000000;"
            f"server {{ listen {LOOPBACK}:{self.port};"
            "location = /status { stub_status; access_log off; }"
            'location / { return 200 "ok\\n"; } } }\n'
        )
        self._daemon.start(self.folder)

    def end(self) -> None:
        # A killed master leaves its workers behind.
        self._daemon.end(signal.SIGTERM)

    def rotate(self, *directives: str) -> None:
        """Let logrotate rotate the log now. It numbers old files and keeps them all."""
        settings = self.folder / "logrotate.conf"
        settings.write_text(f"{self.log} {{\nrotate 1000\nnodateext\n" + "\n".join(directives) + "\n}\n")
        settings.chmod(0o600)
        ran = subprocess.run(
            [LOGROTATE, "--force", "--state", str(self.folder / "logrotate.state"), str(settings)],
            capture_output=True,
            text=True,
            timeout=STOP_LIMIT_S,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr

    def rotate_by_rename(self, *directives: str) -> None:
        """As Debian's NGINX is rotated."""
        reopen = f"postrotate\nkill -USR1 {self._daemon.pid}\nendscript"
        self.rotate("create", *directives, reopen)

    def rotate_by_copytruncate(self, *directives: str) -> None:
        """As it is where nobody may signal NGINX."""
        self.rotate("copytruncate", *directives)

    def lines(self) -> int:
        """Of the log and of everything that it was rotated to, compressed files left out."""
        files = [path for path in self.log.parent.iterdir() if path.suffix != ".gz"]
        return sum(path.read_bytes().count(b"\n") for path in files)


class Client:
    """A client with an address of its own (all of 127/8 is this machine) and one connection."""

    def __init__(self, port: int, address: str = LOOPBACK) -> None:
        self._socket = socket.create_connection(
            (LOOPBACK, port), timeout=STOP_LIMIT_S, source_address=(address, 0)
        )
        self._answers = self._socket.makefile("rb")

    def ask(self, path: str = "/", *headers: str) -> None:
        """One request, answered when this returns."""
        lines = "".join(f"{header}\r\n" for header in headers)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode("latin-1"))
        length = 0
        while (line := self._answers.readline()) != b"\r\n":
            assert line, "the server closed the connection"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        assert len(self._answers.read(length)) == length

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


@pytest.fixture
def nginx(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Nginx]:
    """The server, not started."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    server = Nginx(folder, free_port())
    try:
        yield server
    finally:
        server.end()
