"""Parts in one process do not hold one another up."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

from cli.running import Running, opened
from cli.settings import load
from topology.sinks import Point, RollupSink
from topology.sqlite.rollups import SqliteRollups
from web.keys import Keys

POINT = Point("space_storage", "1m", 0, (("space_id", "s"),), {"bytes_added": 1})


async def test_a_long_question_over_http_holds_up_no_row_of_the_agents(tmp_path: Path) -> None:
    settings = load({"EVENTSINK_DATA": str(tmp_path)})
    answered = threading.Event()
    asked: list[RollupSink] = []

    class Watched(Running):
        async def _asked(self) -> RollupSink:
            asked.append(await super()._asked())
            return asked[0]

    async with AsyncExitStack() as stack, asyncio.timeout(60):
        part = await opened(stack, settings, patience=None)
        await Watched(stack, settings, part).web_application("127.0.0.1", Keys(tmp_path / "keys.json"))
        (sink,) = asked
        assert isinstance(sink, SqliteRollups)
        question = asyncio.create_task(sink._database.read(lambda connection: answered.wait()))
        try:
            await part.rollup_sink.write([POINT])
            assert not question.done()
        finally:
            answered.set()
        await question
        found = await sink.query("space_storage", "1m", since=None, until=None, where={}, limit=10)
        assert found == [POINT]
