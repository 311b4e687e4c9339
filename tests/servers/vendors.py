"""Amplitude, Google Analytics and a webhook, as their documentation says they behave: a real HTTP server on
loopback, in the test's own loop. What it is to answer next is put on a list; without that it takes what is valid."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from aiohttp import web

AMPLITUDE_KEY = "amplitude-key-0123456789"
GA_ID, GA_SECRET = "G-TEST123", "ga-secret-0123456789"
WEBHOOK_SECRET = "webhook-secret-0123456789"

#: Ids that Amplitude refuses, however long.
REFUSED_IDS = frozenset(
    {"anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "0", "-1", ""}
)
GA_RESERVED = re.compile(
    r"(_|firebase_|ga_|google_|gtag\.|ad_|app_|notification_|dynamic_link_).*"
    r"|error|first_open|first_visit|session_start|user_engagement|os_update|screen_view|in_app_purchase"
)

#: Answers a request in its own way; ``events`` are those in it. None: as if it had not been asked.
Script: TypeAlias = Callable[
    ["Vendors", web.Request, list[dict[str, Any]]], Awaitable[web.StreamResponse | None]
]


class Vendors:
    """``counted``: how often each ``insert_id`` counts at Amplitude. ``hits``: what Google was sent, each time."""

    def __init__(self) -> None:
        self.url = ""
        #: The next answers, the first first.
        self.script: deque[Script] = deque()
        #: Asked of each request on which the script says nothing.
        self.always: Script | None = None
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.counted: Counter[str] = Counter()
        self.events: dict[str, dict[str, Any]] = {}
        self.hits: list[dict[str, Any]] = []
        #: What the webhook was sent, by id.
        self.hooked: dict[str, dict[str, Any]] = {}
        self.bodies: list[tuple[bytes, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.max_bytes: int | None = None
        #: So many requests are reset in their middle, the next ones.
        self.cuts = 0

    # -- Amplitude --

    async def amplitude(self, request: web.Request) -> web.StreamResponse:
        if (cut := await self._cut(request)) is not None:
            return cut
        body = await request.read()
        document = json.loads(body)
        events = document["events"]
        self.requests.append((request.path, dict(request.headers), document))
        if (answer := await self._scripted(request, events)) is not None:
            return answer
        batch = request.path == "/batch"
        if document.get("api_key") != AMPLITUDE_KEY:
            return said(400, code=400, error="Invalid API key: " + str(document.get("api_key")))
        most_bytes = self.max_bytes or (20_000_000 if batch else 1_000_000)
        if len(body) > most_bytes or len(events) > (2000 if batch else 1999):
            return said(413, code=413, error="Payload too large")
        missing, invalid, short = self._faults(events, document.get("options", {}).get("min_id_length", 5))
        if missing or invalid or short:
            return said(
                400,
                code=400,
                error="Request missing required field",
                events_with_missing_fields=missing,
                events_with_invalid_fields=invalid,
                events_with_invalid_id_lengths=short,
            )
        self.ingest(events)
        return said(200, code=200, events_ingested=len(events), payload_size_bytes=len(body))

    def ingest(self, events: Sequence[dict[str, Any]]) -> None:
        """The same device and insert id counts once."""
        for event in events:
            key = f"{event['device_id']} {event['insert_id']}"
            if key not in self.events:
                self.counted[event["insert_id"]] += 1
                self.events[key] = event

    @staticmethod
    def _faults(
        events: Sequence[dict[str, Any]], shortest: int
    ) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]:
        missing: dict[str, list[int]] = {}
        invalid: dict[str, list[int]] = {}
        short: dict[str, list[int]] = {}
        for index, event in enumerate(events):
            if "event_type" not in event:
                missing.setdefault("event_type", []).append(index)
            elif event["event_type"].startswith(("[Amplitude]", "$")):
                invalid.setdefault("event_type", []).append(index)
            if not isinstance(event.get("time"), int):
                invalid.setdefault("time", []).append(index)
            for name in ("user_id", "device_id"):
                given = event.get(name)
                if given is not None and (given in REFUSED_IDS or not given.strip("0")):
                    invalid.setdefault(name, []).append(index)
                elif given is not None and len(given) < shortest:
                    short.setdefault(name, []).append(index)
            if event.get("user_id") is None and event.get("device_id") is None:
                missing.setdefault("user_id", []).append(index)
            if any(isinstance(each, str) and len(each) > 1024 for each in event["event_properties"].values()):
                invalid.setdefault("event_properties", []).append(index)
        return missing, invalid, short

    # -- Google --

    async def google(self, request: web.Request) -> web.StreamResponse:
        if (cut := await self._cut(request)) is not None:
            return cut
        document = json.loads(await request.read())
        self.requests.append((request.path_qs, dict(request.headers), document))
        if (answer := await self._scripted(request, document["events"])) is not None:
            return answer
        self.hit(document)
        return web.Response(status=204)

    def hit(self, document: dict[str, Any]) -> None:
        """It counts whatever comes, each time."""
        assert not (found := self.messages(document)), found
        self.hits.extend({**document, "events": [event]} for event in document["events"])

    async def google_debug(self, request: web.Request) -> web.StreamResponse:
        document = json.loads(await request.read())
        self.requests.append((request.path_qs, dict(request.headers), document))
        if (answer := await self._scripted(request, document["events"])) is not None:
            return answer
        return said(200, validationMessages=self.messages(document))

    @staticmethod
    def messages(document: dict[str, Any]) -> list[dict[str, str]]:
        """What the debug endpoint finds wrong."""
        found: list[dict[str, str]] = []

        def wrong(path: str, why: str) -> None:
            found.append({"fieldPath": path, "description": why, "validationCode": "VALUE_INVALID"})

        if not re.fullmatch(r"[1-9][0-9]*\.[1-9][0-9]*", document.get("client_id", "")):
            wrong("client_id", "must be two positive integers joined by a dot")
        if len(document.get("user_id", "")) > 256:
            wrong("user_id", "is too long")
        if not 1 <= len(document["events"]) <= 25:
            wrong("events", "must be 1 to 25")
        if len(json.dumps(document)) > 130_000:
            wrong("", "is too large")
        for event in document["events"]:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", event["name"]) or GA_RESERVED.fullmatch(
                event["name"]
            ):
                wrong("events.name", f"{event['name']} is not valid")
            params = event["params"]
            if len(params) > 25:
                wrong("events.params", "are too many")
            for name, value in params.items():
                if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name) or len(str(value)) > 100:
                    wrong(f"events.params.{name}", "is not valid")
            if not re.fullmatch(r"[0-9]+", params.get("session_id", "")):
                wrong("events.params.session_id", "must be digits")
            if not params.get("engagement_time_msec", 0) > 0:
                wrong("events.params.engagement_time_msec", "must be positive")
        return found

    # -- the webhook --

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        if (cut := await self._cut(request)) is not None:
            return cut
        body = await request.read()
        document = json.loads(body)
        self.requests.append((request.path_qs, dict(request.headers), document))
        if (answer := await self._scripted(request, document["events"])) is not None:
            return answer
        self.bodies.append((body, request.headers.get("X-Eventsink-Signature", "")))
        self.hooked.update((event["id"], event) for event in document["events"])
        return web.Response(status=200)

    async def _cut(self, request: web.Request) -> web.StreamResponse | None:
        if not self.cuts:
            return None
        self.cuts -= 1
        await request.content.read(1)
        _reset(request)
        return web.Response()

    async def _scripted(
        self, request: web.Request, events: list[dict[str, Any]]
    ) -> web.StreamResponse | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            script = self.script.popleft() if self.script else self.always
            return None if script is None else await script(self, request, events)
        finally:
            self.at_once -= 1


def said(status: int, *, headers: dict[str, str] | None = None, **document: Any) -> web.Response:
    """An answer in JSON."""
    return web.json_response(document, status=status, headers=headers)


def answers(status: int, *, headers: dict[str, str] | None = None, **document: Any) -> Script:
    """Answer this, and take nothing."""

    async def script(
        vendors: Vendors, request: web.Request, events: list[dict[str, Any]]
    ) -> web.StreamResponse | None:
        return said(status, headers=headers, **document)

    return script


async def resets(
    vendors: Vendors, request: web.Request, events: list[dict[str, Any]]
) -> web.StreamResponse | None:
    """The connection is reset; nothing was taken."""
    _reset(request)
    return web.Response()


async def takes_and_resets(
    vendors: Vendors, request: web.Request, events: list[dict[str, Any]]
) -> web.StreamResponse | None:
    """Everything is taken, and the answer never comes."""
    _take(vendors, request, events)
    _reset(request)
    return web.Response()


async def takes_and_breaks_off(
    vendors: Vendors, request: web.Request, events: list[dict[str, Any]]
) -> web.StreamResponse | None:
    """Everything is taken, and the connection is reset in the middle of the answer."""
    _take(vendors, request, events)
    response = web.StreamResponse(status=200, headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"code":')
    _reset(request)
    return response


def slow(seconds: float) -> Script:
    """Everything is taken, and the answer comes late."""

    async def script(
        vendors: Vendors, request: web.Request, events: list[dict[str, Any]]
    ) -> web.StreamResponse | None:
        _take(vendors, request, events)
        await asyncio.sleep(seconds)
        return said(200, code=200, events_ingested=len(events))

    return script


def _take(vendors: Vendors, request: web.Request, events: list[dict[str, Any]]) -> None:
    if request.path == "/mp/collect":
        vendors.hit(vendors.requests[-1][2])
    elif request.path in ("/batch", "/2/httpapi"):
        vendors.ingest(events)
    else:
        vendors.hooked.update((event["id"], event) for event in events)


def _reset(request: web.Request) -> None:
    transport = request.transport
    if transport is None:
        return
    linger = struct.pack("ii", 1, 0)  # close sends RST, not FIN
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[Vendors]:
    """The stand-in, listening until the block ends."""
    vendors = Vendors()
    application = web.Application(client_max_size=64 << 20)
    application.add_routes(
        [
            web.post("/batch", vendors.amplitude),
            web.post("/2/httpapi", vendors.amplitude),
            web.post("/mp/collect", vendors.google),
            web.post("/debug/mp/collect", vendors.google_debug),
            web.post("/hook", vendors.webhook),
            web.post("/collector", vendors.webhook),
        ]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    host, bound = runner.addresses[0][:2]
    vendors.url = f"http://{host}:{bound}"
    try:
        yield vendors
    finally:
        await runner.cleanup()


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    """The stand-in, for one test."""
    async with serving() as served:
        yield served
