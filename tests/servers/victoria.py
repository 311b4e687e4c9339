"""VictoriaMetrics for tests: it serves ``/api/v2/write`` itself, so the path is proved on a server that is not ours.

Nothing else is: it overwrites nothing, refuses nothing and knows floats only.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from tests.servers.daemons import LOOPBACK, Daemon

EVERYTHING = '{__name__!=""}'


class Series(NamedTuple):
    """A time series as it is stored: name (``measurement_field``), labels, and its values by epoch second."""

    name: str
    labels: dict[str, str]
    values: dict[int, float]


class Victoria:
    """The server; every test begins with an empty one."""

    token = "not looked at"
    org = "eventsink"
    bucket = "eventsink"

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.url = f"http://{LOOPBACK}:{daemon.port}"

    def clear(self) -> None:
        """Delete what is stored."""
        status, body = self._daemon.ask(
            "POST", f"/api/v1/admin/tsdb/delete_series?match[]={quote(EVERYTHING)}"
        )
        assert status == 204, body

    def stored(self) -> list[Series]:
        """Everything that was written, by name and labels."""
        # What was written a moment ago is not to be seen before it is flushed.
        self._daemon.ask("GET", "/internal/force_flush")
        status, body = self._daemon.ask("GET", f"/api/v1/export?match[]={quote(EVERYTHING)}")
        assert status == 200, body
        found = []
        for line in body.splitlines():
            series = json.loads(line)
            labels = series["metric"]
            name = labels.pop("__name__")
            times = (stamp // 1000 for stamp in series["timestamps"])
            found.append(Series(name, labels, dict(zip(times, series["values"], strict=True))))
        return sorted(found, key=lambda each: (each.name, sorted(each.labels.items())))


@pytest.fixture(scope="session")
def _victoria_server(free_port: Callable[[], int]) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="eventsink-victoria-"))
    port = free_port()
    daemon = Daemon(
        "victoria-metrics",
        [
            f"-storageDataPath={folder}/data",
            f"-httpListenAddr={LOOPBACK}:{port}",
            "-retentionPeriod=100y",  # the tests' events are of fixed dates
            "-memory.allowedBytes=64MB",
            "-loggerLevel=WARN",
        ],
        package="victoria-metrics",
        port=port,
        ready="/health",
    )
    try:
        daemon.start(folder)
        yield daemon
    finally:
        daemon.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def victoria(_victoria_server: Daemon) -> Victoria:
    """The server, empty."""
    server = Victoria(_victoria_server)
    server.clear()
    return server
