"""How long an end may take: that of `eventsink up` ten seconds, that of a monitor five. No clock is read here: limits
are added up, and what hangs is cut off."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from cli import monitoring
from cli.process import ENDS_WITHIN_S
from monitors.running import FINISHED_WITHIN_S, FLUSHED_WITHIN_S
from monitors.schedule import CLOSED_WITHIN_S
from tests.processes import STOP_LIMIT_S, Ended
from topology.forwarding.forwarder import LAST_SAVING_S
from topology.forwarding.sending import LAST_ANSWERS_S
from topology.group.groups import LAST_CHECKPOINT_S
from topology.rabbitmq.connection import CLOSE_LIMIT_S
from topology.rabbitmq.publisher import LAST_LOOK_S, LOOK_ENDS_WITHIN_S
from web.draining import DRAINED_WITHIN_S
from web.server import REQUESTS_END_WITHIN_S

PROMISED_S = 10.0
PROMISED_OF_A_MONITOR_S = 5.0


def test_the_steps_of_a_monitors_end_fit_into_five_seconds() -> None:
    steps = [
        FINISHED_WITHIN_S,  # checks in hand
        CLOSED_WITHIN_S,  # those that hang are cancelled, and their probes closed, all together
        FLUSHED_WITHIN_S,  # one more try to post
        2 * monitoring.REQUESTS_END_WITHIN_S,  # aiohttp waits, cancels, and waits again
    ]
    assert sum(steps) < PROMISED_OF_A_MONITOR_S < PROMISED_S
    assert sum(steps) < ENDS_WITHIN_S


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([2 * REQUESTS_END_WITHIN_S], id="clients"),
        pytest.param([DRAINED_WITHIN_S], id="what is in the spool"),
        # Groups end together: each vendor's agent is the only one of its group.
        pytest.param([LAST_ANSWERS_S], id="a vendor"),
        pytest.param([LAST_SAVING_S, LAST_CHECKPOINT_S], id="the store of rows: a group that forwards"),
        pytest.param([LAST_CHECKPOINT_S, LAST_CHECKPOINT_S], id="the store of rows: a group that counts"),
        # Of a broker: readers, then the last look, in which the end of the one that was going on is.
        pytest.param([CLOSE_LIMIT_S, max(LAST_LOOK_S, LOOK_ENDS_WITHIN_S)], id="the broker"),
    ],
)
def test_what_is_silent_by_itself_is_waited_for_to_its_limit_before_the_end_is_cut_off(
    steps: list[float],
) -> None:
    assert sum(steps) < ENDS_WITHIN_S


def test_an_end_is_cut_off_within_what_is_promised() -> None:
    assert ENDS_WITHIN_S < PROMISED_S < STOP_LIMIT_S


#: What hangs at its end, with the loop or without it.
HANGING = """
import asyncio, time
from cli import process

async def main():
    try:
        print("up", flush=True)
        await asyncio.Event().wait()
    finally:
        {hanging}

process.run(main(), ends_within_s=0.1)
"""


#: What ends in time has no deadline behind it.
ENDING = """
import asyncio, signal, threading
from cli import process

async def main():
    signal.raise_signal(signal.SIGTERM)
    await asyncio.Event().wait()

process.run(main(), ends_within_s=5.0)
for each in threading.enumerate():
    if isinstance(each, threading.Timer):
        each.join()
print("ended")
"""


async def ended(script: str, *, terminated: bool) -> Ended:
    """A script's end; ``terminated`` once it has said that it is up."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        if terminated:
            assert await running.stdout.readline() == b"up\n"
            running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_LIMIT_S):
            out, err = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert running.returncode is not None
    return Ended(running.returncode, out.decode(), err.decode())


@pytest.mark.processes
@pytest.mark.parametrize(
    "hanging",
    ["await asyncio.Event().wait()", "time.sleep(600)", "await asyncio.to_thread(time.sleep, 600)"],
)
async def test_an_end_that_hangs_is_cut_off_and_says_so(hanging: str) -> None:
    assert await ended(HANGING.format(hanging=hanging), terminated=True) == Ended(
        0,
        "",
        "ending took longer than 0.1 s, the rest of it is left out: nothing is lost, what was not saved is read "
        "again\n",
    )


@pytest.mark.processes
async def test_an_end_in_time_is_not_cut_off() -> None:
    assert await ended(ENDING, terminated=False) == Ended(0, "ended\n", "")
