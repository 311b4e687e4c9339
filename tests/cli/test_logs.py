from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cli import logs
from monitors.config import read
from monitors.secrets import named_secrets

SECRET = "hunter2-hunter2"
log = logging.getLogger("topology.flow")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_text_is_one_line_a_record_with_time_level_and_name() -> None:
    stream = io.StringIO()
    logs.configure("text", stream)
    log.info("reading from %s\nin two lines", 7, extra={"group": "rollups"})
    time, level, name, rest = stream.getvalue().split(maxsplit=3)
    assert datetime.fromisoformat(time).tzinfo is not None
    assert (level, name) == ("INFO", "topology.flow:")
    assert rest == "reading from 7\\nin two lines group=rollups\n"


def test_json_is_one_object_a_record() -> None:
    stream = io.StringIO()
    logs.configure("json", stream)
    log.warning("löst\n%s", "x", extra={"group": "rollups", "lag": 3})
    assert stream.getvalue().count("\n") == 1
    document = json.loads(stream.getvalue())
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "WARNING",
        "logger": "topology.flow",
        "message": "löst\nx",
        "group": "rollups",
        "lag": 3,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_and_its_cause_stay_in_the_line(form: str) -> None:
    stream = io.StringIO()
    logs.configure(form, stream)
    try:
        try:
            raise OSError("disk\ngone")
        except OSError as error:
            raise ValueError("no event") from error
    except ValueError:
        log.exception("failed")
    assert stream.getvalue().count("\n") == 1
    for words in ("failed", "ValueError: no event", "OSError: disk", "test_logs.py:"):
        assert words in stream.getvalue()


def test_text_on_a_terminal_and_json_elsewhere_unless_told() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    logs.configure(None, terminal)
    log.info("hello")
    logs.configure(None, pipe)
    log.info("hello")
    assert "INFO" in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1  # and the second line went to the pipe alone
    assert json.loads(pipe.getvalue())["message"] == "hello"


def test_debug_is_left_out() -> None:
    stream = io.StringIO()
    logs.configure("text", stream)
    log.debug("each event")
    assert not stream.getvalue()


def test_it_is_known_whether_logs_are_configured() -> None:
    assert not logs.is_configured()
    logs.configure("text", io.StringIO())
    assert logs.is_configured()


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "message",
    [
        f"token {SECRET} was sent",
        f"connecting to amqp://user:{SECRET}@mq/v",
        f"connecting to amqp://user:other-{SECRET}/x@mq/v",
        f'{{"api_key": "{SECRET}x"}}',
        f"POST /mp/collect?measurement_id=G-1&api_secret={SECRET}",
    ],
)
def test_no_secret_comes_through(form: str, message: str) -> None:
    stream = io.StringIO()
    logs.configure(form, stream, secrets=[SECRET])
    log.info("%s", message, extra={"url": message, "thing": [message]})
    try:
        raise ValueError(message)
    except ValueError:
        log.exception("failed")
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdef0123456789", "Authorization: ***"),
        ("{'Authorization': 'Token abcdef0123456789'}", "{'Authorization': '***'}"),
        ("X-API-Key: abcdef0123456789", "X-API-Key: ***"),
        ("password=abcdef01&x=1", "password=***&x=1"),
        ("mongodb://u:p@a,b/d and amqp://x:y@h", "mongodb://u:***@a,b/d and amqp://x:***@h"),
        ("key es_abcdefgh0123456789", "key es_***"),
        ("the token was refused: ask for another", "the token was refused: ask for another"),
        ("http://127.0.0.1:8080/ a@b.c", "http://127.0.0.1:8080/ a@b.c"),
    ],
)
def test_what_is_written_like_a_credential_is_hidden_without_being_known(text: str, expected: str) -> None:
    redacted = logs.Redactor()(text)
    assert redacted.replace("Bearer ", "").replace("Token ", "") == expected


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_that_cannot_be_made_is_told_of_in_one_line_without_what_it_said(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    logs.configure(form, stream)
    log.info("%d events from %s", "many", SECRET)
    assert stream.getvalue().count("\n") == 1
    assert "TypeError" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()
    assert SECRET not in stream.getvalue() + "".join(capsys.readouterr())


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_no_text_is_written_all_the_same(form: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    logs.configure(form, stream)
    log.info("file %s", "caf\udce9", extra={"file": "caf\udce9"})
    written = stream.buffer.getvalue().decode()
    assert "caf\\udce9" in written
    assert written.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5, 1.5), (math.inf, "inf"), (math.nan, "nan"), (True, True), (None, None), ([1], "[1]")],
)
def test_json_stays_json_whatever_is_added(value: object, shown: object) -> None:
    stream = io.StringIO()
    logs.configure("json", stream)
    log.info("x", extra={"value": value})

    def refused(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(stream.getvalue(), parse_constant=refused)["value"] == shown


def test_what_nobody_awaited_or_caught_is_a_line_without_secrets_too() -> None:
    stream = io.StringIO()
    logs.configure("json", stream, secrets=[SECRET])

    async def failing() -> None:
        raise ValueError(f"the token {SECRET} was refused")

    async def forgotten() -> None:
        task = asyncio.ensure_future(failing())
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(forgotten())
    document = json.loads(stream.getvalue())
    assert document["logger"] == "asyncio"
    assert "the token *** was refused" in document["error"]


def test_all_secrets_that_a_monitor_is_given_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("es_key-of-the-monitor\n")
    (tmp_path / "m.toml").write_text(
        f'''
endpoint = "https://eventsink.example"
key_file = "{tmp_path}/key"
[[probe]]
kind = "page"
service = "clowder"
url = "https://clowder.example/"
headers_env = {{Cookie = "THE_COOKIE"}}
[[probe]]
kind = "healthz"
service = "other"
url = "https://other.example/"
headers_file = {{X-Token = "{tmp_path}/gone"}}
ca_file = "{tmp_path}/ca.pem"
'''
    )
    (tmp_path / "ca.pem").write_text("not a secret")
    found = named_secrets(read(tmp_path / "m.toml"), {"THE_COOKIE": SECRET, "OTHER": "x"})
    assert found == {"es_key-of-the-monitor", SECRET}
