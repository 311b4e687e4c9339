"""Who may send what: the keys of the ingest."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from schemas.reading import Refusal, read
from tests.web.serving import PING, UPLOAD, Served, problem


@pytest.mark.parametrize("header", ["Authorization", "API-KEY", "X-API-Key"])
async def test_a_key_may_come_in_each_of_three_headers(app: Served, header: str) -> None:
    secret = app.secrets["events"]
    value = f"Bearer {secret}" if header == "Authorization" else secret
    assert (await app.post(UPLOAD, key=None, **{header.replace("-", "_"): value})).status == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer es_wrong"},
        {"authorization": "bearer \xe9"},
        {"authorization": "Basic bm86bm8="},
        {"api_key": "es_" + "0" * 38},
        {"x_api_key": "null"},
    ],
)
async def test_no_or_a_wrong_key_is_401(app: Served, headers: dict[str, str]) -> None:
    response = await app.post(UPLOAD, key=None, **headers)
    await problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert not await app.published()


async def test_a_key_in_the_address_is_no_key(app: Served) -> None:
    # Pitfall 32: keys in URLs.
    response = await app.client.post(
        f"/v1/events?key={app.secrets['events']}&api_key={app.secrets['events']}",
        data=UPLOAD,
        headers={"Content-Type": "application/json"},
    )
    await problem(response, 401)


async def test_a_browsers_password_does_not_send(app: Served) -> None:
    """Browsers send it along with what other pages make them post."""
    basic = "Basic " + base64.b64encode(f"x:{app.secrets['events']}".encode()).decode()
    await problem(await app.post(UPLOAD, key=None, authorization=basic), 401)


async def test_a_key_that_may_only_read_is_403(app: Served) -> None:
    await problem(await app.post(UPLOAD, key="read"), 403)


async def test_a_health_key_sends_health_events_and_no_others(app: Served) -> None:
    assert (await app.post(PING, key="health")).status == 202
    answer = await (await app.post(b"[" + UPLOAD + b"," + PING + b"]", key="health")).json()
    assert answer["accepted"] == 1
    assert [(each["index"], each["pointer"]) for each in answer["rejected"]] == [(0, "/type")]
    assert [message.body for message in await app.published()] == [PING, PING]


@pytest.mark.parametrize("body", [UPLOAD, b"[" + UPLOAD + b"," + UPLOAD + b"]", b"[{}," + UPLOAD + b"]"])
async def test_nothing_left_within_the_scope_is_403(app: Served, body: bytes) -> None:
    answer = await problem(await app.post(body, key="health"), 403)
    assert answer["accepted"] == 0
    assert answer["rejected"]
    assert not await app.published()


async def test_a_foreign_health_shape_is_within_the_scope_health(app: Served) -> None:
    status = b'{"category":"service_status","type":"up","service_name":"clowder","created":1795467600000}'
    event = read(status)
    assert not isinstance(event, Refusal)
    assert event.type == "health.pinged"
    assert (await app.post(status, key="health")).status == 202


async def test_an_unreadable_keys_file_is_503_and_lets_nobody_in(app: Served, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    response = await app.post(UPLOAD)
    answer = await problem(response, 503)
    assert response.headers["Retry-After"]
    assert str(tmp_path) not in json.dumps(answer)
