"""The monitor in one piece: what the disk or the endpoint does not take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from monitors import keeping
from monitors.config import MonitorConfig
from monitors.connections import ConnectionsSettings
from monitors.outbox import Outbox
from monitors.page import PageSettings
from monitors.port import PortSettings
from monitors.probe import Measured, Progress, Read
from monitors.running import Monitor, opened
from monitors.schedule import Clocks
from tests.monitors.targets import port_without_listener, serving
from tests.monitors.test_posting import Ingest, taken
from topology.errors import Refused, SettingsError, Unavailable


def event(number: int) -> Measured:
    return {"type": "health.pinged", "source": "m", "id": str(number), "time": number, "service": "c"}


@asynccontextmanager
async def a_monitor(folder: Path, port: int, **more: object) -> AsyncIterator[Monitor]:
    """It posts to this port and watches one that nobody listens on."""
    watched = PortSettings(service="c", host="127.0.0.1", port=port_without_listener(), retries=0)
    settings: dict[str, Any] = {"probe": (watched,), **more}
    config = MonitorConfig(
        endpoint=f"http://127.0.0.1:{port}", region="eu", folder=str(folder / "data"), **settings
    )
    async with opened(
        config, {"KEY": "es_k"}, Clocks(wall_ms=lambda: time.time_ns() // 1_000_000)
    ) as monitor:
        yield monitor


def shown(monitor: Monitor, name: str) -> float | None:
    return monitor.registry.get_sample_value(f"eventsink_monitor_outbox_{name}_events".replace("__", "_"))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While it holds True, the disk takes nothing."""
    away: list[bool] = []
    keep = Outbox.keep

    async def keeps(outbox: Outbox, results: list[Measured | Read]) -> object:
        if away:
            raise Unavailable("no room")
        return await keep(outbox, results)

    monkeypatch.setattr(Outbox, "keep", keeps)
    return away


async def test_once_fails_where_a_result_is_refused_for_good(tmp_path: Path) -> None:
    ingest = Ingest(lambda ids: taken(ids, refused=[0]))
    async with serving(ingest.handle) as port, a_monitor(tmp_path, port, key_env="KEY") as monitor:
        with pytest.raises(Refused, match="1 result refused for good"):
            await monitor.once()
        assert shown(monitor, "refused") == 1


async def test_what_the_disk_does_not_take_is_kept_when_it_does_its_progress_too(
    tmp_path: Path, broken: list[bool]
) -> None:
    ingest = Ingest()
    async with serving(ingest.handle) as port, a_monitor(tmp_path, port, key_env="KEY") as monitor:
        broken.append(True)
        await monitor.report(Read(event(1), Progress("log", None, b"1")))
        await monitor.report(event(2))
        assert await monitor.ready() == {"outbox": "no room"}
        # A probe that is built anew goes on where its results end, not where those end that the disk has.
        assert await monitor._keeper.progress("log") == b"1"
        broken.clear()
        await monitor.stop()
        assert ingest.got == [["1", "2"]]
        assert await monitor._keeper.progress("log") == b"1"
        assert await monitor.ready() == {"outbox": None}


async def test_what_the_disk_never_takes_is_dropped_counted_and_said(
    tmp_path: Path, broken: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeping, "MOST_UNKEPT", 2)
    async with a_monitor(tmp_path, port_without_listener(), key_env="KEY") as monitor:
        broken.append(True)
        for number in range(5):
            await monitor.report(event(number))
        assert (shown(monitor, ""), shown(monitor, "dropped")) == (2, 3)
        await monitor.stop()
    assert "2 results lost, the disk takes nothing" in caplog.text


async def test_who_was_cancelled_while_the_disk_wrote_loses_nothing(tmp_path: Path) -> None:
    ingest = Ingest()
    async with serving(ingest.handle) as port, a_monitor(tmp_path, port, key_env="KEY") as monitor:
        for number in range(20):
            reporting = asyncio.ensure_future(
                monitor.report(
                    Read(
                        event(number),
                        Progress("log", b"%d" % (number - 1) if number else None, b"%d" % number),
                    )
                )
            )
            await asyncio.sleep(0)
            reporting.cancel()
            await asyncio.wait({reporting})
        await monitor.stop()
        assert await monitor._keeper.progress("log") == b"19"
    assert [int(each) for request in ingest.got for each in request] == list(range(20))


async def test_windows_that_cannot_be_announced_end_the_monitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("monitors.windows.said_between", fails)
    async with a_monitor(tmp_path, port_without_listener()) as monitor:
        done, _ = await asyncio.wait(monitor.start(), return_when=asyncio.FIRST_COMPLETED)
        assert [type(each.exception()) for each in done] == [ZeroDivisionError]
        await monitor.stop()


async def test_every_probe_that_cannot_be_built_is_said(tmp_path: Path) -> None:
    probes = (
        ConnectionsSettings(service="a", access_log="access.log", client="$http_x_real_ip"),
        PortSettings(service="b", host="127.0.0.1", port=9),
        PageSettings(service="c", url="http://127.0.0.1/", headers_env={"X-Key": "NONE"}),
    )
    with pytest.raises(SettingsError) as raised:
        async with a_monitor(tmp_path, port_without_listener(), probe=probes):
            pass
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == ["probe[0]", "probe[2]"]
