"""``GET /``: the page, also when there is nothing to show, when what there is is hostile, and when stores are away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import ROLLUPS
from tests.web.filling import raw
from tests.web.serving import NOW_MS, Served, served
from topology.errors import Unavailable
from topology.position import position
from topology.sinks import DeadLetter
from web import page
from web.page import Html, filled

HOSTILE = "<script>alert(1)</script>\"'&</style><img src=x onerror=alert(1)>\u202e${style}$now"


class Seen(HTMLParser):
    """What a browser would make of the page: elements, attributes, text."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


async def shown(app: Served, **headers: str) -> Seen:
    response = await app.get("/", **headers)
    assert response.status == 200
    assert response.content_type == "text/html"
    return Seen(await response.text())


def letter(offset: int) -> DeadLetter:
    return DeadLetter(f"0-{offset}-0", position(0, offset), NOW_MS, "", "not JSON", "", b"x", 1, "0" * 64)


async def test_an_empty_database_says_what_to_do_first(app: Served) -> None:
    seen = await shown(app)
    assert "Nothing has come in yet" in seen.text
    assert "eventsink keys create" in seen.text
    assert seen.text.index("Send an event") < seen.text.index("Latest events")
    assert all(name in seen.text for name in ROLLUPS)


async def test_the_line_to_send_an_event_works_as_it_is(app: Served) -> None:
    seen = await shown(app)
    line = seen.text[seen.text.index("curl ") :]
    match = re.search(r"curl (\S+)/v1/events.*?-d '([^']+)'", line, re.DOTALL)
    assert match is not None
    assert match[1] == f"http://{app.client.host}:{app.client.port}"
    assert '-H "Content-Type: application/json"' in line
    assert (await app.post(match[2].encode())).status == 202


async def test_events_rollups_and_dead_letters_are_shown(app: Served) -> None:
    await app.stores.raw_events.insert([raw(at, user_id=f"user-{at}") for at in range(20)])
    await app.stores.dead_letters.put([letter(at) for at in range(1234)])
    seen = await shown(app)
    assert "Accepting events" in seen.text
    assert seen.text.count("traffic.page_viewed") == page.LATEST_EVENTS
    assert "user-19" in seen.text
    assert "user-7" not in seen.text
    assert "1,234" in seen.text
    assert "eventsink dead list" in seen.text


async def test_every_link_leads_somewhere(app: Served) -> None:
    await app.stores.raw_events.insert([raw(0)])
    links = {value for name, value in (await shown(app)).attributes if name == "href" and value[0] == "/"}
    assert len(links) >= 6 * len(ROLLUPS)
    for link in links:
        assert (await app.get(link)).status == 200, link


async def test_what_events_hold_is_text_and_nothing_else(app: Served) -> None:
    plain = await shown(app)
    await app.stores.raw_events.insert(
        [
            raw(0, url=HOSTILE, user_id=HOSTILE, source=HOSTILE),
            raw(1)._replace(
                type=HOSTILE, event=json.dumps({"type": HOSTILE, HOSTILE: {HOSTILE: 1}}).encode()
            ),
        ]
    )
    response = await app.get("/")
    text = await response.text()
    assert "<script" not in text
    assert "<img" not in text
    seen = Seen(text)
    assert set(seen.elements) - {"ol", "bdi", "i", "div", "span", "time", "li"} <= set(plain.elements)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    # Shown, up to a length, and with no placeholder of ours replaced in it.
    assert "<script>alert(1)</script>\"'&</style>" in seen.text
    assert "${style}" in seen.text


async def test_a_long_value_and_many_fields_are_cut(app: Served) -> None:
    many = {"type": "x", "long": "y" * 5000} | {f"field{number}": number for number in range(50)}
    await app.stores.raw_events.insert([raw(0)._replace(event=json.dumps(many).encode())])
    seen = await shown(app)
    assert "y" * 79 + "…" in seen.text
    assert "y" * 80 not in seen.text
    assert "field4" in seen.text
    assert "field5" not in seen.text


@pytest.mark.parametrize(
    "host", ["evil.example'; rm -rf /; '", "localhost$(id)", "a b", "localhost:x", '"<b>']
)
async def test_a_strange_host_is_not_repeated_for_pasting(app: Served, host: str) -> None:
    seen = await shown(app, host=host, x_api_key=app.secrets["read"])
    assert host not in seen.text
    assert "curl http://localhost:8080/v1/events" in seen.text


async def test_nothing_is_loaded_and_the_style_is_the_one_allowed(app: Served) -> None:
    response = await app.get("/")
    text = await response.text()
    policy = response.headers["Content-Security-Policy"]
    style = text[text.index("<style>") + len("<style>") : text.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in text
    # An XML namespace is a name and no address; the example of an event goes to ourselves.
    seen = Seen(text)
    assert not [value for name, value in seen.attributes if name == "src"]
    assert [value[:5] for name, value in seen.attributes if name == "href" and value[0] != "/"] == ["data:"]
    assert not [value for name, value in seen.attributes if name == "style"]


class Silent:
    """A store that never answers."""

    async def query(self, *args: object, **kwargs: object) -> None:
        await asyncio.Event().wait()

    async def count(self) -> int:
        raise Unavailable("the disk <b>is</b> full: make room")


async def test_stores_that_are_away_cost_their_own_part_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "ANSWER_WITHIN_S", 0.01)
    async with served(tmp_path, raw_events=Silent(), dead_letters=Silent()) as app:
        app.wrong = {"log": "the broker <i>does</i> not answer", "archive": None}
        seen = await shown(app)
        assert "no answer in time" in seen.text
        assert "the disk <b>is</b> full: make room" in seen.text
        assert "log: the broker <i>does</i> not answer" in seen.text
        assert "Accepting events" not in seen.text
        assert "space_storage" in seen.text
        assert "curl" in seen.text


async def test_without_agents_there_are_no_rollups_to_link(tmp_path: Path) -> None:
    async with served(tmp_path, rollups={}) as app:
        assert "No agent makes any here" in (await shown(app)).text


@given(st.text())
def test_whatever_is_filled_in_is_escaped(text: str) -> None:
    written = filled("<p>$text</p>", text=text)
    assert html.unescape(written[3:-4]) == html.unescape(html.escape(text))
    assert not set("<>\"'") & set(written[3:-4])
    assert filled("$text", text=Html("<b>")) == "<b>"
