from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import eventsink
from cli.send import REASONS, STRETCHES, Refused
from cli.settings import DATABASE_FILE
from schemas.reading import Refusal, read
from topology.log import NDJSON, Message
from topology.sqlite.file import Database
from topology.sqlite.log import SqliteLog

EVENT = b'{"type":"activity.logged_in","time":1795467600000}'
SAMPLE = Path(__file__).parents[1] / "data" / "clowder-6h.jsonl"


def send(folder: Path, *args: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(eventsink, ["send", "--data", str(folder), *args], input=stdin)


def sent(folder: Path) -> Sequence[Message]:
    async def read_all() -> Sequence[Message]:
        log = SqliteLog(Database(folder / DATABASE_FILE, create=False))
        await log.open()
        try:
            return await log.read(0, limit=10**6, max_bytes=10**9)
        finally:
            await log.close()

    return asyncio.run(read_all())


def sent_lines(folder: Path) -> list[bytes]:
    return [line for message in sent(folder) for line in message.body.split(b"\n")]


def test_the_sample_is_in_the_log_byte_for_byte_in_messages_of_a_hundred_lines(tmp_path: Path) -> None:
    result = send(tmp_path, str(SAMPLE))
    lines = SAMPLE.read_bytes().splitlines()
    assert (result.exit_code, result.stdout) == (0, f"sent {len(lines)}, refused 0\n")
    messages = sent(tmp_path)
    assert sent_lines(tmp_path) == lines
    assert len(messages) == -(-len(lines) // 100)
    assert {message.content_type for message in messages} == {NDJSON}
    assert len({message.event_id for message in messages}) == len(messages)
    now_ms = time.time() * 1000
    assert all(
        message.received_ms is not None and now_ms - 60_000 < message.received_ms <= now_ms
        for message in messages
    )


def test_standard_input_is_read_where_no_file_is_named(tmp_path: Path) -> None:
    assert send(tmp_path, stdin=EVENT).stdout == "sent 1, refused 0\n"
    assert send(tmp_path, "-", stdin=EVENT + b"\n").stdout == "sent 1, refused 0\n"
    assert sent_lines(tmp_path) == [EVENT, EVENT]


def test_a_line_that_is_no_event_is_named_and_everything_after_it_goes_on(tmp_path: Path) -> None:
    bad = b'{"type":"storage.file_uploaded","file_id":"f","bytes":-1}'
    result = send(tmp_path, stdin=b"\n".join([EVENT, b"", b"nonsense", EVENT, bad, EVENT]))
    assert result.exit_code == 1
    assert result.stdout == "sent 3, refused 2\n"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        f"{tmp_path} is new",
        "line 3 refused",
        "line 5 refused at /bytes",
    ]
    assert sent_lines(tmp_path) == [EVENT] * 3


def test_a_file_that_is_none_of_events_is_told_of_in_a_few_lines(tmp_path: Path) -> None:
    send(tmp_path, stdin=EVENT)
    # 1 to 20 and 22 to 24 are refused, 26 too.
    result = send(tmp_path, stdin=b"\n".join([b"no"] * 20 + [EVENT] + [b"no"] * 3 + [EVENT, b"no"]))
    assert (result.exit_code, result.stdout) == (1, "sent 2, refused 24\n")
    *first, last = result.stderr.splitlines()
    assert [line.split(" refused")[0] for line in first] == [f"line {number}" for number in range(1, 11)]
    assert last == "14 more refused: lines 11-20, 22-24, 26"


def test_of_refused_lines_so_many_are_held_and_each_is_named_once() -> None:
    said: list[str] = []
    refused = Refused(said.append)
    odd = range(1, 2 * (REASONS + STRETCHES + 1), 2)
    for number in odd:
        refused.add(number, Refusal("", "why"))
    assert len(said) == REASONS + 1
    refused.end()
    refused.end()
    assert said[-1] == f"1 more refused: line {odd[-1]}"
    assert [int(number) for line in said for number in re.findall(r"\b(?<!^)[0-9]+", line)] == list(odd)


def test_a_folder_in_which_the_log_is_new_is_said_once(tmp_path: Path) -> None:
    first = send(tmp_path / "new", stdin=EVENT)
    assert first.stderr == (
        f"{tmp_path / 'new'} is new: `eventsink up` with the same --data reads what is sent to it\n"
    )
    assert send(tmp_path / "new", stdin=EVENT).stderr == ""


def test_what_a_terminal_would_obey_is_escaped_in_a_refusal(tmp_path: Path) -> None:
    result = send(tmp_path, stdin=rb'{"type":"a.\u001b[31mb"}')
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr


def test_nothing_to_send_is_no_failure(tmp_path: Path) -> None:
    assert send(tmp_path, stdin=b"\n\n").stdout == "sent 0, refused 0\n"


def test_shifted_to_now_the_last_event_is_now_and_the_distances_stay(tmp_path: Path) -> None:
    before = time.time() * 1000
    result = send(tmp_path, "--shift-to-now", str(SAMPLE))
    assert result.exit_code == 0, result.stderr
    original = [_time(line) for line in SAMPLE.read_bytes().splitlines()]
    moved = [_time(line) for line in sent_lines(tmp_path)]
    assert before - 1000 < max(moved) <= time.time() * 1000
    assert len({after - at for at, after in zip(original, moved, strict=True)}) == 1


def test_shifted_standard_input_is_the_same_from_a_file_and_from_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "send", "--shift-to-now", "--data"]
    with SAMPLE.open("rb") as file:
        from_file = subprocess.run(
            [*command, str(tmp_path / "file")], stdin=file, capture_output=True, check=True
        )
    from_pipe = subprocess.run(
        [*command, str(tmp_path / "pipe")], input=SAMPLE.read_bytes(), capture_output=True, check=True
    )
    assert from_file.stdout == from_pipe.stdout == b"sent 3059, refused 0\n"
    assert len(sent_lines(tmp_path / "file")) == len(sent_lines(tmp_path / "pipe")) == 3059


def _time(line: bytes) -> int:
    event = read(line)
    assert not isinstance(event, Refusal)
    assert event.time is not None
    return event.time


def test_a_rate_goes_in_small_messages(tmp_path: Path) -> None:
    result = send(tmp_path, "--rate", "1000000", stdin=b"\n".join([EVENT] * 250))
    assert result.stdout == "sent 250, refused 0\n"
    slow = send(tmp_path / "slow", "--rate", "200", stdin=b"\n".join([EVENT] * 30) + b"\n")
    assert slow.stdout == "sent 30, refused 0\n"
    assert [message.body.count(b"\n") + 1 for message in sent(tmp_path / "slow")] == [20, 10]


def test_events_of_a_pipe_that_stays_open_are_sent_as_they_come(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "send", "--data", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        for count in (1, 2):
            process.stdin.write(EVENT + b"\n")
            process.stdin.flush()
            _wait_for_lines(tmp_path, count)
        # What is in the log may not be known to be there yet: so the interrupt comes after the next line was read.
        process.stdin.write(b"no event\n")
        process.stdin.flush()
        assert any(line.startswith(b"line 3 refused") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (out, error) == (b"", b"eventsink: stopped: sent 2, refused 1\n")


def _wait_for_lines(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (folder / DATABASE_FILE).exists() and len(sent_lines(folder)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{count} lines did not come")


def test_a_file_that_cannot_be_read_is_one_line_and_1(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        result = send(tmp_path / "data", str(path))
        assert result.exit_code == 1
        assert str(path) in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"not a database " * 100)
    result = send(tmp_path, stdin=EVENT)
    assert result.exit_code == 1
    assert "--data" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("rate", ["0", "-1", "fast"])
def test_a_wrong_rate_is_wrong_use(tmp_path: Path, rate: str) -> None:
    assert send(tmp_path, "--rate", rate, stdin=EVENT).exit_code == 2


def test_the_bar_and_the_refused_lines_share_a_terminal(tmp_path: Path) -> None:
    primary, secondary = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "send", "--data", str(tmp_path), str(SAMPLE)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(secondary)
    out, _ = process.communicate(timeout=60)
    shown = os.read(primary, 100_000).decode()
    os.close(primary)
    assert out == b"sent 3059, refused 0\n"
    assert "sending" in shown


def test_a_broker_password_is_in_no_output(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        eventsink,
        ["send", "--data", str(tmp_path)],
        input=EVENT,
        env={"EVENTSINK_BROKER_URL": "amqp://user:secret-password@127.0.0.1:port/"},
    )
    assert result.exit_code == 1
    assert "EVENTSINK_BROKER_URL" in result.stderr
    assert "secret-password" not in result.output
