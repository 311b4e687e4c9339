"""``GET /``: the page. What there is, the latest events, how to send one. No script, no outside host.

It is looked at when something is wrong: a store that does not answer costs its own part and no more.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from schemas.times import rfc3339
from topology.errors import EventsinkError
from topology.sinks import DeadLetters, RawEvent, RawEvents
from web.access import Access
from web.documents import Described
from web.probes import Ready

T = TypeVar("T")

LATEST_EVENTS = 12
#: A store that takes longer is shown as away: the page itself must come.
ANSWER_WITHIN_S = 5.0

#: Of one event and one value, this much is shown; all of it is at /v1/events.
_SHOWN_FIELDS = 6
_SHOWN_CHARACTERS = 80

#: How far back the links look: about a screenful of windows. Longer windows show all that is kept.
_SINCE = {"1m": "now-1h", "1h": "now-2d"}

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")

#: Must stay an event that is accepted: a test sends it.
EXAMPLE = '{"type":"storage.file_uploaded","file_id":"f1","space_id":"demo","bytes":1024}'


class Html(str):
    """Text that is HTML already. Everything else is escaped where it is filled in."""

    __slots__ = ()


def filled(template: str, **values: object) -> Html:
    """The template with each ``$name`` replaced, escaped unless it is ``Html``."""
    safe = {name: value if isinstance(value, Html) else escape(str(value)) for name, value in values.items()}
    return Html(Template(template).substitute(safe))


def joined(parts: Iterable[Html]) -> Html:
    """Pieces of HTML, one after the other."""
    return Html("\n".join(parts))


@dataclass(frozen=True, slots=True)
class Away:
    """In place of what a store did not give: what is wrong with it."""

    said: str


class Page:
    """The handler. Template and style are read when it is made."""

    def __init__(
        self,
        rollups: Mapping[str, Described],
        raw_events: RawEvents,
        dead_letters: DeadLetters,
        access: Access,
        *,
        ready: Ready,
        clock: Callable[[], int],
    ) -> None:
        self._rollups = rollups
        self._raw_events = raw_events
        self._dead_letters = dead_letters
        self._access = access
        self._ready = ready
        self._clock = clock
        files = resources.files(__package__)
        self._template = (files / "page.html").read_text(encoding="utf-8")
        self._style = Html((files / "page.css").read_text(encoding="utf-8"))
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def show(self, request: web.Request) -> web.StreamResponse:
        """The page as of now."""
        self._access.reading(request)
        events, dead, dependencies = await asyncio.gather(
            _attempt(self._raw_events.query(since=None, until=None, type=None, limit=LATEST_EVENTS)),
            _attempt(self._dead_letters.count()),
            _attempt(self._ready()),
        )
        now = rfc3339(self._clock() // 1000 * 1000)
        sending = _sending_section(_address(request))
        latest = _events_section(events)
        # Who has no events yet wants to know how to send one before anything else.
        first = [sending, latest] if events == [] else [latest]
        last = [] if events == [] else [sending]
        page = filled(
            self._template,
            style=self._style,
            state=_state(dependencies),
            sections=joined([*first, _rollups_section(self._rollups.values()), _dead_section(dead), *last]),
            now=now,
            now_shown=_shown_time(now),
        )
        return web.Response(
            body=page.encode(errors="replace"),
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": self._policy},
        )


async def _attempt(call: Awaitable[T]) -> T | Away:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await call
    except TimeoutError:
        return Away("no answer in time")
    except EventsinkError as error:
        return Away(str(error))


def _state(dependencies: Mapping[str, str | None] | Away) -> Html:
    if isinstance(dependencies, Away):
        return filled('<p class="state wrong">Not ready: $said</p>', said=dependencies.said)
    wrong = [f"{name}: {said}" for name, said in dependencies.items() if said is not None]
    if wrong:
        return filled('<p class="state wrong">Not ready. $said</p>', said="; ".join(wrong))
    return Html('<p class="state">Accepting events</p>')


def _section(title: str, aside: Html, *content: Html) -> Html:
    return filled(
        '<section>\n<div class="head"><h2>$title</h2>$aside</div>\n$content\n</section>',
        title=title,
        aside=aside,
        content=joined(content),
    )


def _away(what: str, away: Away) -> Html:
    return filled('<p class="wrong-note">$what: $said</p>', what=what, said=away.said)


def _events_section(events: Sequence[RawEvent] | Away) -> Html:
    more = Html('<p><a href="/v1/events">more, as JSON</a></p>')
    if isinstance(events, Away):
        return _section("Latest events", more, _away("The archive is away", events))
    if not events:
        said = "Nothing has come in yet. An event shows up here about a second after it was sent."
        return _section("Latest events", Html(""), filled("<p>$said</p>", said=said))
    items = filled("<ol>\n$items\n</ol>", items=joined(map(_event, events)))
    return _section("Latest events", more, items)


def _event(event: RawEvent) -> Html:
    at = rfc3339(event.time // 1000 * 1000)
    return filled(
        '<li class="event"><time datetime="$at">$shown</time><bdi class="name">$type</bdi>'
        '<div class="details">$details</div></li>',
        at=at,
        shown=_shown_time(at),
        type=event.type,
        details=_details(msgspec.json.decode(event.event, type=dict[str, Any])),
    )


def _details(fields: Mapping[str, Any]) -> Html:
    others = {name: value for name, value in fields.items() if name not in {"type", "time"}}
    shown = [
        # Isolated, so that text which turns the direction of writing turns nobody else's.
        filled("<span><i>$name</i><bdi>$value</bdi></span>", name=_cut(name), value=_cut(_plain(value)))
        for name, value in list(others.items())[:_SHOWN_FIELDS]
    ]
    if len(others) > _SHOWN_FIELDS:
        shown.append(Html("<span>…</span>"))
    return joined(shown)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _rollups_section(rollups: Iterable[Described]) -> Html:
    items = joined(map(_rollup, rollups))
    if not items:
        return _section("Rollups", Html(""), Html("<p>No agent makes any here.</p>"))
    aside = Html('<p><a href="/v1/rollups">as JSON</a></p>')
    return _section("Rollups", aside, filled("<ul>\n$items\n</ul>", items=items))


def _rollup(rollup: Described) -> Html:
    return filled(
        '<li class="rollup"><div><span class="name">$name</span> <span class="by">by $key</span></div>'
        '<div class="of">$fields</div>'
        '<div class="windows">$windows</div></li>',
        name=rollup.name,
        fields=", ".join(rollup.fields),
        key=", ".join(rollup.key),
        windows=joined(_window(rollup.name, window) for window in rollup.windows),
    )


def _window(name: str, window: str) -> Html:
    query = {"window": window} | ({"since": _SINCE[window]} if window in _SINCE else {})
    link = f"/v1/rollups/{quote(name, safe='')}?{urlencode(query)}"
    return filled(
        '<span><a href="$json" title="$name, windows of $window, as JSON">$window</a>'
        '<a href="$csv" title="$name, windows of $window, as CSV">csv</a></span>',
        name=name,
        window=window,
        json=link,
        csv=f"{link}&format=csv",
    )


def _dead_section(dead: int | Away) -> Html:
    if isinstance(dead, Away):
        return _section("Dead letters", Html(""), _away("Their store is away", dead))
    if dead == 0:
        return _section("Dead letters", Html("<p>none</p>"))
    said = Html(
        "<p>Messages that could not be processed, kept with the reason: "
        "<code>eventsink dead list</code> shows them.</p>"
    )
    return _section("Dead letters", filled("<p><b>$count</b></p>", count=f"{dead:,}"), said)


def _sending_section(address: str) -> Html:
    line = (
        f"curl {address}/v1/events \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{EXAMPLE}'"
    )
    return _section(
        "Send an event",
        Html(""),
        filled(
            "<p>Make a key, once; it is kept as a hash only:</p>\n<pre><code>$line</code></pre>",
            line="KEY=$(eventsink keys create --name me --scopes events,read)",
        ),
        filled(
            "<p>Send one event, or several as an array:</p>\n<pre><code>$line</code></pre>",
            line=line,
        ),
    )


def _address(request: web.Request) -> str:
    """Where the reader has found us, for a line to be pasted into a shell: nothing but a host and a port."""
    host = request.headers.get("Host", "")
    return f"{request.scheme}://{host if _HOST.fullmatch(host) else 'localhost:8080'}"


def _shown_time(at: str) -> str:
    return at.replace("T", " ").removesuffix("Z")
