"""What all tests share. Servers are fixtures of the session: each module in ``tests/servers`` is one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.ports import unused_port
from tests.processes import STARTED

pytest_plugins = sorted(
    f"tests.servers.{module.stem}" for module in Path(__file__).with_name("servers").glob("[a-z]*.py")
)

# Its assertions are to show the difference, as those of a test do.
pytest.register_assert_rewrite("tests.pipeline")

# No deadline, and no limit for making examples: a busy machine is not a fault. CI looks for the same examples each
# time, so that what fails there fails for a reason in the change; a developer's machine looks for new ones.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("developer", BUSY)
settings.register_profile("ci", BUSY, derandomize=True, print_blob=True)
# `make fuzz`: as many as take about ten minutes.
settings.register_profile("fuzz", BUSY, max_examples=3000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# Started in the background by a shell, we ignore SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Set by `make test`: there, a test that is skipped is a test that could not run.
NO_SKIP = "EVENTSINK_TEST_NO_SKIP"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees the settings that it makes, never those of the shell that it was started from."""
    for name in os.environ:
        if name.startswith("EVENTSINK_") and not name.startswith("EVENTSINK_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # some runners set it, and tables are as wide as it says


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
    """A function that gives a TCP port on which nothing listens, another one at each call."""
    return unused_port


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
