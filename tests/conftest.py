"""What all tests share. Servers are fixtures of the session: each module in ``tests/servers`` is one."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes import STARTED

pytest_plugins = sorted(
    f"tests.servers.{module.stem}" for module in Path(__file__).with_name("servers").glob("[a-z]*.py")
)

# Its assertions are to show the difference, as those of a test do.
pytest.register_assert_rewrite("tests.pipeline")

# No deadline: a busy machine is not a fault. CI looks for the same examples each time, so that what
# fails there fails for a reason in the change; a developer's machine looks for new ones.
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# `make fuzz`: as many as take about ten minutes.
settings.register_profile("fuzz", deadline=None, max_examples=3000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

#: Set by `make test`: there, a test that is skipped is a test that could not run.
NO_SKIP = "EVENTSINK_TEST_NO_SKIP"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees the settings that it makes, never those of the shell that it was started from."""
    for name in os.environ:
        if name.startswith("EVENTSINK_") and not name.startswith("EVENTSINK_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Ends the processes that a test started and, because it failed, did not end."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that gives a TCP port on which nothing listens, another one at each call. Where tests run in several
    processes, each has ports of its own: between looking and listening, another one could be given the same."""
    given: set[int] = set()
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            # Not the lowest bits: Linux gives ports of one parity to those who bind.
            if (port >> 4) % processes == own and port not in given:
                given.add(port)
                return port

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: where two processes share the work, neither is to wait for the other at the end."""
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _could_not_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := _could_not_run(config):
        terminalreporter.section("could not run", red=True)
        terminalreporter.line(f"{count} test(s) were skipped; where all are to run, that is a failure")


def _could_not_run(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get(NO_SKIP) or reporter is None:
        return 0
    return len(reporter.stats.get("skipped", []))
