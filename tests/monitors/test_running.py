"""The process: how it ends, what it never shows, and what it does when its own network is gone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.monitors.namespaces import (
    KNOWN_NAME,
    LOOPBACK,
    SILENT_ADDRESS,
    SILENT_NAME_SERVER,
    SILENT_NETWORK,
    begun_in_namespace,
    in_namespace,
    its_end,
)
from tests.monitors.targets import port_without_listener, saying, serving, silence, speaking
from tests.monitors.watching import shown
from tests.processes import STOP_LIMIT_S, Instance
from tests.web.serving import served

pytestmark = pytest.mark.processes

KEY = "es_hunter2hunter2hunter2"
TOKEN = "swordfish-swordfish"

PORT_PROBE = """
[[probe]]
kind = "port"
service = "clowder"
host = "{host}"
port = 9
timeout = 0.3
retries = 0
"""


def kept(folder: Path) -> list[dict[str, Any]]:
    """What waits in the outbox of a monitor."""
    outbox = sqlite3.connect(f"file:{folder}/monitor-data/outbox.db?mode=ro", uri=True)
    try:
        return [json.loads(body) for (body,) in outbox.execute("SELECT body FROM outbox ORDER BY number")]
    finally:
        outbox.close()


def monitor(folder: Path, config: str, **environment: str) -> Instance:
    """An installation with this configuration and a key."""
    (folder / "monitors.toml").write_text(config)
    return Instance(folder, {"MONITOR_KEY": KEY, **environment})


async def test_sigterm_ends_in_time_whatever_hangs_and_keeps_what_was_measured(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with speaking(silence) as silent, serving(saying("Clowder")) as page:
        config = f"""
            endpoint = "http://127.0.0.1:{silent}"
            key_env = "MONITOR_KEY"
            [[probe]]
            kind = "page"
            service = "clowder"
            url = "http://127.0.0.1:{page}/"
            headers_env = {{ X-Token = "CLOWDER_TOKEN" }}
            interval = 0.1
            [[probe]]
            kind = "page"
            service = "hanging"
            url = "http://127.0.0.1:{silent}/"
            timeout = 600
        """
        instance = monitor(tmp_path, config, CLOWDER_TOKEN=TOKEN)
        service = await instance.start("monitor", free_port(), "--config", "monitors.toml")
        sample = 'eventsink_monitor_checks_total{kind="page",result="up",service="clowder"}'
        async with asyncio.timeout(60):
            while await shown(service, sample) < 3:
                await asyncio.sleep(0.02)
        metrics = await service.metrics()
        # `stop` itself fails when the process takes longer than its limit: shorter than an answer is waited for.
        assert await service.stop() == 0
    waiting = kept(tmp_path)
    assert len(waiting) >= 3
    assert {event["service"] for event in waiting} == {"clowder"}
    assert f"{len(waiting)} results kept in" in service.output
    for secret in (KEY, TOKEN):
        assert secret not in service.output + metrics + json.dumps(waiting)
    assert "Traceback" not in service.output


async def test_once_checks_everything_posts_and_ends(tmp_path: Path) -> None:
    async with served(tmp_path) as app, serving(saying("Clowder")) as page:
        config = f"""
            endpoint = "http://127.0.0.1:{app.client.port}"
            key_env = "HEALTH_KEY"
            [[probe]]
            kind = "page"
            service = "clowder"
            url = "http://127.0.0.1:{page}/"
        """
        ended = await monitor(tmp_path, config, HEALTH_KEY=app.secrets["health"]).run(
            "monitor", "--config", "monitors.toml", "--once"
        )
        assert (ended.code, ended.out, ended.err) == (0, "", "")
        (message,) = await app.published()
        assert json.loads(message.body)["status"] == 200
    assert kept(tmp_path) == []


async def test_once_keeps_for_the_next_run_what_nobody_takes_and_the_next_run_posts_it(
    tmp_path: Path,
) -> None:
    config = f"""
        endpoint = "http://127.0.0.1:{port_without_listener()}"
        key_env = "MONITOR_KEY"
        {PORT_PROBE.format(host="127.0.0.1")}
    """
    ended = await monitor(tmp_path, config).run("monitor", "--config", "monitors.toml", "--once")
    assert ended.code == 1
    (_, line) = ended.err.splitlines()
    assert f"1 result kept in {tmp_path}/monitor-data/outbox.db for the next run: http://127.0.0.1:" in line
    assert line.endswith(": Connection refused")
    (first,) = kept(tmp_path)
    async with served(tmp_path) as app:
        again = config.replace(config.splitlines()[1], f'endpoint = "http://127.0.0.1:{app.client.port}"')
        ended = await monitor(tmp_path, again, MONITOR_KEY=app.secrets["health"]).run(
            "monitor", "--config", "monitors.toml", "--once"
        )
        assert ended.code == 0, ended.err
        (message,) = await app.published()
        assert json.loads(message.body.splitlines()[0]) == first
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("endpoint = 'http://x'", "monitors.toml: probe: there is none"),
        (f"endpoint = 'http://x'\nkey_env = 'NONE'{PORT_PROBE}", "key_env names NONE, which is not set"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line_before_anything_starts(
    config: str, said: str, tmp_path: Path
) -> None:
    ended = await monitor(tmp_path, config).run("monitor", "--config", "monitors.toml")
    assert ended.code in {1, 2}
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


# -- its own network --


@pytest.mark.parametrize("network", ["gone", "there"])
async def test_down_is_sent_only_by_who_has_a_network(network: str, tmp_path: Path) -> None:
    # What is watched does not answer either way. With the network gone, nor does the reference address.
    reference = f"{SILENT_ADDRESS}:53" if network == "gone" else "127.0.0.1:53"
    config = f"""
        endpoint = "http://127.0.0.1:1"
        reference = ["{reference}"]
        {PORT_PROBE.format(host=SILENT_ADDRESS)}
    """
    (tmp_path / "monitors.toml").write_text(config)
    ended = await in_namespace(
        [LOOPBACK, SILENT_NETWORK],
        "cli.main",
        *("monitor", "--config", "monitors.toml", "--once"),
        folder=tmp_path,
    )
    if network == "gone":
        assert kept(tmp_path) == []
        assert "the network of this monitor is gone" in ended.err
        assert ended.code == 0, ended.err
    else:
        assert [(event["up"], event["problem"]) for event in kept(tmp_path)] == [
            (False, "no connection within 0.3 s")
        ]
        assert ended.code == 1


async def test_a_silent_name_server_makes_nothing_else_down_and_does_not_hold_up_the_end(
    tmp_path: Path,
) -> None:
    # Twelve names that are looked up for minutes, and one that is known: more than any pool has threads.
    probe = PORT_PROBE.replace("port = 9\ntimeout = 0.3", "port = 9\ntimeout = 1.5\ninterval = 1.5")
    hosts = {"known": KNOWN_NAME, **{f"s{n}": f"silent{n}.invalid" for n in range(12)}}
    probes = [probe.replace("clowder", name).format(host=host) for name, host in hosts.items()]
    (tmp_path / "monitors.toml").write_text('endpoint = "http://127.0.0.1:1"\n' + "".join(probes))
    process = await begun_in_namespace(
        [LOOPBACK, SILENT_NETWORK, SILENT_NAME_SERVER],
        "cli.main",
        *("monitor", "--config", "monitors.toml", "--port", "0"),
        folder=tmp_path,
    )

    def measured() -> set[str]:
        with suppress(sqlite3.OperationalError):  # not made yet
            return {event["service"] for event in kept(tmp_path)}
        return set()

    async with asyncio.timeout(60):
        while measured() != hosts.keys():
            assert process.returncode is None
            await asyncio.sleep(0.02)
    process.terminate()
    async with asyncio.timeout(STOP_LIMIT_S):
        ended = await its_end(process)
    assert ended.code == 0, ended.err
    found = kept(tmp_path)
    assert {event["problem"] for event in found if event["service"] == "known"} == {"Connection refused"}
    assert {event["problem"] for event in found if event["service"] != "known"} == {
        "no connection within 1.5 s"
    }
    assert "never retrieved" not in ended.err
