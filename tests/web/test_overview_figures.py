"""The figures of the overview are those that the sample must give, whatever else is away."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.web.sampled import NOW_MS, Shown, expected, overview, shown
from web.overview import figures, snapshots

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = 3600


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sample(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shown]:
    """One for all of them: nothing here changes it for good."""
    async with shown(tmp_path_factory.mktemp("sample")) as running:
        await running.send_sample()
        yield running


def totals(rollup: str, *fields: str, **where: str) -> dict[str, float]:
    """By hand, of the expected rows."""
    rows = [row for row in expected(rollup) if all(row[tag] == value for tag, value in where.items())]
    return {field: sum(row[field] for row in rows) for field in fields}


async def test_the_figures_of_the_sample_are_those_that_are_expected(sample: Shown) -> None:
    found = await overview(sample.app)
    assert found["away"] == {}
    assert found["span"]["until"] * 1000 == NOW_MS - NOW_MS % (HOUR * 1000) + HOUR * 1000
    files = ("bytes_added", "bytes_removed", "files_added", "files_removed")
    assert found["storage"]["totals"] == totals("space_storage", *files)
    assert len(found["storage"]["spaces"]) == figures.SHOWN
    for space in found["storage"]["spaces"]:
        assert {field: space[field] for field in files} == totals(
            "space_storage", *files, space_id=space["space_id"]
        )
    rest = found["storage"]["rest"]
    spaces = {row["space_id"] for row in expected("space_storage")}
    assert rest["count"] == len(spaces) - figures.SHOWN
    assert rest["totals"]["bytes_added"] == found["storage"]["totals"]["bytes_added"] - sum(
        space["bytes_added"] for space in found["storage"]["spaces"]
    )
    for action in found["activity"]["actions"]:
        rollup = "resource_traffic" if action["users_at_least"] else "user_activity"
        assert action["events"] == totals(rollup, "events", action=action["action"])["events"]
        assert sum(action["series"]) == action["events"]
    ends = ("submitted", "succeeded", "failed", "skipped")
    assert found["extractors"]["totals"] == totals("extractor_runtime", *ends)
    for extractor in found["extractors"]["extractors"]:
        assert {end: extractor[end] for end in ends} == totals(
            "extractor_runtime", *ends, extractor=extractor["extractor"]
        )


async def test_uptime_is_time_up_by_time_known_of_the_whole_range(sample: Shown) -> None:
    services = (await overview(sample.app))["uptime"]["services"]
    assert [each["region"] for each in services] == ["all", "ap-south", "eu-west", "us-east"]
    for service in services:
        seconds = totals("service_uptime", "up_s", "down_s", region=service["region"])
        assert service["up_s"] == pytest.approx(seconds["up_s"], abs=31)  # and half a minute of the next hour
        assert service["down_s"] == pytest.approx(seconds["down_s"], abs=0.01)
        ratio = service["up_s"] / (service["up_s"] + service["down_s"])
        assert service["uptime_ratio"] == pytest.approx(ratio)
        assert sum(state[0] for state in service["states"] if state) == pytest.approx(service["up_s"])


async def test_unique_users_of_traffic_are_a_bound_and_those_of_an_action_a_count(sample: Shown) -> None:
    actions = {each["action"]: each for each in (await overview(sample.app))["activity"]["actions"]}
    rows = [row for row in expected("resource_traffic") if row["action"] == "viewed"]
    assert max(actions["viewed"]["users"]) == max(row["unique_users"] for row in rows)
    assert actions["viewed"]["users_at_least"]
    assert not actions["logged_in"]["users_at_least"]
    by_hour = Counter(
        {
            row["time"]: row["unique_users"]
            for row in expected("user_activity")
            if row["action"] == "logged_in"
        }
    )
    assert sorted(filter(None, actions["logged_in"]["users"])) == sorted(by_hour.values())


async def test_agents_tell_how_far_they_are(sample: Shown) -> None:
    agents = {each["agent"]: each for each in (await overview(sample.app))["agents"]}
    assert set(agents) == {"storage", "extractions", "uptime", "traffic", "activity", "archive"}
    for agent in agents.values():
        assert agent["up"]
        assert agent["lag_events"] == 0
        assert sum(agent["outcomes"].values()) == 3059


async def test_a_store_that_is_away_costs_its_own_part(
    sample: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "LEAST_AGE_S", 0)
    monkeypatch.setattr(snapshots, "SHARE", 0)
    sample.rollups.broken = "the store does not answer: look whether it runs"
    found = await overview(sample.app, "7d")  # nobody has asked for it, so nothing of it is kept
    assert found["uptime"] is found["storage"] is found["extractors"] is found["activity"] is None
    assert found["away"] == dict.fromkeys(
        ("uptime", "storage", "extractors", "activity"), "the store does not answer: look whether it runs"
    )
    assert found["events"]
    sample.rollups.broken = None
    assert (await overview(sample.app, "7d"))["away"] == {}
