"""``dead retry`` and ``dead purge``: nothing is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from cli import parts
from cli.main import eventsink
from cli.retrying import Outcome, retry
from cli.settings import load
from tests.deployments import BOTH, Deployment
from tests.topology.stores import Failing, opened
from topology.errors import Unavailable
from topology.log import JSON, Message, Outgoing
from topology.position import NOWHERE, Position, position
from topology.sinks import DeadLetter, DeadLetters

pytestmark = pytest.mark.timeout(360)

#: 2026-11-23T21:00:00Z
NINE_MS = 1_795_467_600_000


def letter(number: int, body: bytes, *, agent: str = "", length: int | None = None) -> DeadLetter:
    return DeadLetter(
        id=f"0-{number}-0" + (f"-{agent}" if agent else ""),
        position=position(0, number),
        received=NINE_MS + number,
        agent=agent,
        reason="an older release could not read it",
        pointer="",
        body=body,
        length=len(body) if length is None else length,
        sha256=hashlib.sha256(body).hexdigest(),
    )


def upload(number: int) -> bytes:
    """Without a time, and with spaces that nobody would write again."""
    return f'{{"type": "storage.file_uploaded",  "file_id":"f{number}","space_id":"s","bytes":{number}}}'.encode()


GOOD = [letter(number, upload(number)) for number in (1, 2)]
BAD = letter(3, b'{"type":"storage.file_uploaded","file_id":"f","bytes":-1}')
OF_AN_AGENT = letter(4, upload(4), agent="amplitude")
CUT = letter(5, upload(5), length=2_000_000)
KEPT = [BAD, OF_AN_AGENT, CUT]


async def put(settings: dict[str, str], letters: Sequence[DeadLetter]) -> None:
    loaded = load(settings)
    store = parts.dead_letters(loaded, parts.Shared(loaded))
    await store.open()
    await store.put(letters)
    await store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asyncio.run(put({"EVENTSINK_DATA": str(tmp_path)}, [*GOOD, *KEPT]))
    return tmp_path


def run(folder: Path, *args: str, **more: Any) -> Result:
    return CliRunner().invoke(eventsink, ["dead", *args, "--data", str(folder)], **more)


def listed(folder: Path) -> list[str]:
    document = json.loads(run(folder, "list", "--format", "json").stdout)
    return sorted(each["id"] for each in document["dead"])


def in_the_log(folder: Path) -> list[Message]:
    async def read() -> list[Message]:
        log = parts.open_log(load({"EVENTSINK_DATA": str(folder)}))
        await log.open()
        found = [await log.message_at(offset) for offset in range(await log.end_offset())]
        await log.close()
        return [message for message in found if message is not None]

    return asyncio.run(read())


# -- retry --


def test_a_letter_is_published_with_its_bytes_and_its_time_and_forgotten(folder: Path) -> None:
    result = run(folder, "retry", GOOD[0].id)
    assert (result.exit_code, result.stdout) == (0, "published 1 again, kept 0\n"), result.stderr
    (message,) = in_the_log(folder)
    assert (message.body, message.content_type, message.received_ms) == (upload(1), JSON, GOOD[0].received)
    assert message.event_id is not None
    assert GOOD[0].id in message.event_id
    assert listed(folder) == sorted(each.id for each in [GOOD[1], *KEPT])


def test_what_would_be_refused_again_or_count_twice_is_kept_and_said(folder: Path) -> None:
    result = run(folder, "retry", "--all")
    assert (result.exit_code, result.stdout) == (1, "published 2 again, kept 3\n")
    assert sorted(message.body for message in in_the_log(folder)) == [upload(1), upload(2)]
    assert listed(folder) == sorted(each.id for each in KEPT)
    for said in (
        "0-3-0 is kept: it would be refused again: must be at least 0 at /bytes",
        "0-4-0-amplitude is kept: only amplitude could not take it, all others have counted it",
        "of 2,000,000 bytes were kept",
    ):
        assert said in result.stderr
    assert result.stderr.count("\n") == 3


async def save_positions(folder: Path, positions: dict[str, Position]) -> None:
    settings = load({"EVENTSINK_DATA": str(folder)})
    store = parts.state_store(settings)
    await store.open()
    begun = await store.begin("rollups")
    await store.save_group("rollups", msgspec.structs.replace(begun, positions=positions))
    await store.close()


def test_a_letter_whose_message_a_group_is_still_to_read_is_kept(folder: Path) -> None:
    # storage read   ... 1 | 2 ...   it reads 2 by itself, as what is published again
    positions = {"storage": GOOD[0].position, "uptime": position(0, 9)}
    asyncio.run(save_positions(folder, positions))
    result = run(folder, "retry", GOOD[0].id, GOOD[1].id)
    assert (result.exit_code, result.stdout) == (1, "published 1 again, kept 1\n")
    assert "0-2-0 is kept: group rollups is still to read its message" in result.stderr
    assert [message.body for message in in_the_log(folder)] == [upload(1)]
    asyncio.run(save_positions(folder, {"storage": position(0, 9), "uptime": position(0, 9)}))
    assert run(folder, "retry", GOOD[1].id).exit_code == 0


def test_who_knows_that_no_group_reads_it_any_more_can_say_so(folder: Path) -> None:
    asyncio.run(save_positions(folder, {"gone": NOWHERE}))
    assert run(folder, "retry", GOOD[0].id).exit_code == 1
    assert run(folder, "retry", GOOD[0].id, "--force").exit_code == 0


def test_more_letters_than_a_page_are_all_retried(tmp_path: Path) -> None:
    letters = [letter(number, upload(number)) for number in range(250)]
    asyncio.run(put({"EVENTSINK_DATA": str(tmp_path)}, letters))
    assert run(tmp_path, "retry", "--all").stdout == "published 250 again, kept 0\n"
    assert len(in_the_log(tmp_path)) == 250
    assert listed(tmp_path) == []


@pytest.mark.parametrize("args", [[], ["--all", "0-1-0"]])
def test_it_has_to_be_said_which(folder: Path, args: list[str]) -> None:
    result = run(folder, "retry", *args)
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert in_the_log(folder) == []


def test_if_one_is_not_there_nothing_is_done(folder: Path) -> None:
    result = run(folder, "retry", GOOD[0].id, "0-9-9")
    assert result.exit_code == 1
    assert "no dead letter 0-9-9" in result.stderr
    assert in_the_log(folder) == []


async def test_a_letter_is_kept_until_its_event_is_confirmed(tmp_path: Path) -> None:
    async def refuse(messages: Sequence[Outgoing]) -> None:
        raise Unavailable("no confirm came")

    async with opened(tmp_path) as stores:
        await stores.dead_letters.put(GOOD)
        with pytest.raises(Unavailable):
            await retry(GOOD, stores.dead_letters, {}, refuse, Outcome())
        assert await stores.dead_letters.count() == 2


async def test_dying_before_it_is_forgotten_publishes_the_same_message_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        await stores.dead_letters.put(GOOD)
        failing: DeadLetters = Failing(stores.dead_letters, remove=1)
        with pytest.raises(Unavailable):
            await retry(GOOD, failing, {}, stores.log.publish, Outcome())
        await retry(GOOD, failing, {}, stores.log.publish, Outcome())
        assert await stores.dead_letters.count() == 0
        messages = [await stores.log.message_at(offset) for offset in range(4)]
        assert [message and message._replace(offset=0) for message in messages[:2]] == [
            message and message._replace(offset=0) for message in messages[2:]
        ]


@pytest.mark.parametrize("deployment", BOTH)
async def test_beside_a_running_up_each_retried_event_counts_once_at_its_own_time(
    tmp_path: Path, free_port: Callable[[], int], deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    instance = deployment(tmp_path, request)
    settings = {**instance.environment, "EVENTSINK_DATA": str(tmp_path / "data")}
    settings = {name: value for name, value in settings.items() if name.startswith("EVENTSINK_")}
    service = await instance.start("up", free_port())
    before = json.dumps({"type": "traffic.page_viewed", "url": "/", "time": "2026-11-23T21:00:00Z"}).encode()
    for _ in range(3):  # a message each, so that the log goes on past where the letters were
        assert (await instance.run("send", "-", input=before)).code == 0
    for _ in range(2):
        # The second time as if the first had died before it forgot them.
        await put(settings, [*GOOD, BAD])
        # The later one first: whoever is past its message is past the other's too.
        async with asyncio.timeout(60):
            while True:
                ended = await instance.run("dead", "retry", GOOD[1].id)
                if "is still to read its message" not in ended.err:
                    break
        assert (ended.code, ended.out) == (0, "published 1 again, kept 0\n"), ended.err
        ended = await instance.run("dead", "retry", GOOD[0].id)
        assert (ended.code, ended.out) == (0, "published 1 again, kept 0\n"), ended.err
    # What comes after them is counted: so are they.
    after = json.dumps({"type": "activity.logged_in", "time": "2026-11-23T21:00:00Z"}).encode()
    assert (await instance.run("send", "-", input=after)).code == 0
    async with asyncio.timeout(60):
        while not await instance.rows("user_activity", "1h") or not await instance.rows(
            "space_storage", "1h"
        ):
            await asyncio.sleep(0.05)
        while len(await instance.events()) < 6:
            await asyncio.sleep(0.05)
    rows = await instance.rows("space_storage", "1h")
    assert [(key, fields["files_added"], fields["bytes_added"]) for key, fields in rows.items()] == [
        ((str(NINE_MS // 1000), "s"), 2, 3)
    ]
    assert len(await instance.events()) == 6
    left = json.loads((await instance.run("dead", "list", "--format", "json")).out)
    assert [each["id"] for each in left["dead"]] == [BAD.id]
    ended = await instance.run("dead", "purge", "--yes")
    assert (ended.code, ended.out) == (0, "purged 1\n")
    assert await service.stop() == 0


# -- purge --


def test_purge_asks_where_it_can_and_needs_yes_where_it_cannot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(folder, "purge")
    assert result.exit_code == 2
    assert "5 dead letters would be gone for good: say --yes" in result.stderr
    monkeypatch.setattr("cli.dead.asked_at_a_terminal", lambda: True)
    result = run(folder, "purge", input="n\n")
    assert result.exit_code == 1
    assert "Forget 5 dead letters for good?" in result.stderr
    assert len(listed(folder)) == 5
    assert run(folder, "purge", input="y\n").stdout.endswith("purged 5\n")
    assert listed(folder) == []
    assert "no dead letters" in run(folder, "purge").stderr


def test_purge_forgets_those_that_are_named_or_came_before(folder: Path) -> None:
    assert run(folder, "purge", BAD.id, "--yes").stdout == "purged 1\n"
    # 0-1-0 came a millisecond after nine, 0-2-0 two.
    assert run(folder, "purge", "--before", "2026-11-23T21:00:00.002Z", "--yes").stdout == "purged 1\n"
    assert listed(folder) == ["0-2-0", "0-4-0-amplitude", "0-5-0"]
    assert run(folder, "purge", BAD.id, "--yes").exit_code == 1
    assert run(folder, "purge", BAD.id, "--before", "now").exit_code == 2
    assert run(folder, "purge", "--yes").stdout == "purged 3\n"
