"""Pages of other origins may ask only where they are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.serving import UPLOAD, Served, problem, served
from web.limits import Limits

OURS = "https://status.example.org"


async def preflight(app: Served, origin: str) -> dict[str, str]:
    response = await app.client.options(
        "/v1/events", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    return {
        "status": str(response.status),
        **{name.lower(): value for name, value in response.headers.items()},
    }


async def test_without_origins_no_answer_speaks_of_any(app: Served) -> None:
    answer = await preflight(app, OURS)
    assert answer["status"] == "405"
    response = await app.post(UPLOAD, origin=OURS)
    assert response.status == 202
    for headers in (answer, {name.lower(): value for name, value in response.headers.items()}):
        assert not [name for name in headers if name.startswith("access-control") or name == "vary"]


async def test_a_named_origin_may_ask_and_read_every_answer(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(cors_origins=[OURS])) as app:
        answer = await preflight(app, OURS)
        assert (answer["status"], answer["access-control-allow-origin"]) == ("204", OURS)
        assert "authorization" in answer["access-control-allow-headers"].lower()
        assert "POST" in answer["access-control-allow-methods"]
        assert answer["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer
        assert answer["x-content-type-options"] == "nosniff"
        for response, status in (
            (await app.post(UPLOAD, origin=OURS), 202),
            (await app.post(UPLOAD, key=None, origin=OURS), 401),
            (await app.get("/no/such", origin=OURS), 404),
        ):
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == OURS


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", OURS + ".evil.org", OURS.upper(), ""])
async def test_any_other_origin_may_not(tmp_path: Path, origin: str) -> None:
    async with served(tmp_path, limits=Limits(cors_origins=[OURS])) as app:
        answer = await preflight(app, origin)
        assert answer["status"] == "405"
        assert "access-control-allow-origin" not in answer
        response = await app.get("/healthz", origin=origin)
        assert "Access-Control-Allow-Origin" not in response.headers
        # A cache must not give this answer to a page that may read it, nor the other way round.
        assert response.headers["Vary"] == "Origin"


async def test_options_without_a_request_to_come_is_a_wrong_method(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(cors_origins=[OURS])) as app:
        await problem(await app.client.options("/v1/events", headers={"Origin": OURS}), 405)
