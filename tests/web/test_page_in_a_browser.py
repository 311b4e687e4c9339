"""The page in a real browser: what it shows, how it lives, and whether everybody can use it.

Screenshots are kept in ``screenshots/`` for people to look at.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, Request, ViewportSize, expect

from tests.topology.engine import publish
from tests.web.filling import raw
from tests.web.sampled import NOW_MS, Shown, expected, shown
from tests.web.serving import served
from topology.position import position
from topology.sinks import DeadLetter
from topology.state import GroupState
from web.overview import route, snapshots
from web.overview.present import Progress

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

#: Of what is waited for. What is expected has 5 s by default, which a busy machine needs.
LIMIT_MS = 60_000
expect.set_options(timeout=LIMIT_MS)

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
HOSTILE = "<script>document.title='x'</script><img src=x onerror=\"document.title='x'\">\u202e"
PHONE = ViewportSize(width=390, height=844)
DESK = ViewportSize(width=1280, height=900)


@pytest.fixture(scope="module", autouse=True)
def eager() -> Iterator[None]:
    """Nobody else needs the stores: they are asked again at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "LEAST_AGE_S", 0.1)
        patch.setattr(snapshots, "SHARE", 1)
        patch.setattr(route, "LOOK_EVERY_S", 0.1)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sample(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shown]:
    """The six hours of the sample, with a few dead letters. Nothing here changes it for good."""
    async with shown(tmp_path_factory.mktemp("sample"), spared=lambda: {"amplitude"}) as running:
        await running.send_sample()
        reasons = ["not JSON: line 1, column 2", "/bytes: expected a number", HOSTILE]
        await running.engine.stores.dead_letters.put(
            [
                DeadLetter(
                    f"0-{at}-0", position(0, at), NOW_MS - at * 1000, "", reason, "", b"x", 1, "0" * 64
                )
                for at, reason in enumerate(reasons)
            ]
        )
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def blank(tmp_path: Path) -> AsyncIterator[Shown]:
    """Nothing has come in."""
    async with shown(tmp_path) as running:
        yield running


@asynccontextmanager
async def opened(
    browser: Browser, url: str, path: str = "/", *, fails: str = "", ready: bool = True, **context: Any
) -> AsyncIterator[Page]:
    """The page, with its first figures. Afterwards: it asked no other host, and no script failed.

    ``fails``: what of the console's errors is meant by the test.
    """
    context.setdefault("viewport", DESK)
    context.setdefault("reduced_motion", "reduce")
    visit = await browser.new_context(**context)
    errors: list[str] = []
    asked: list[str] = []

    def ask(request: Request) -> None:
        if not request.url.startswith(("data:", url)):
            asked.append(request.url)

    try:
        page = await visit.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.on("request", ask)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        await page.goto(url + path)
        if ready:
            await expect(page.locator("#agents table, #agents .quiet").first).to_be_attached()
        yield page
        assert asked == []
        assert [error for error in errors if not fails or not re.search(fails, error)] == []
    finally:
        await visit.close()


async def kept(page: Page, name: str, *, whole: bool = True) -> None:
    """A screenshot for people."""
    SCREENSHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


async def accessible(page: Page) -> None:
    """axe-core finds nothing that is serious, in the page as it is now."""
    found = await Axe().run(page)
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found.response["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
    assert serious == []


async def values(page: Page, where: str) -> list[float]:
    """The exact numbers that are shown there."""
    found: list[float] = await page.locator(f"{where} data").evaluate_all(
        "all => all.map(one => Number(one.value))"
    )
    return found


async def tile(page: Page, title: str) -> list[float]:
    found: list[float] = (
        await page.locator(".tile", has_text=title)
        .locator("data")
        .evaluate_all("all => all.map(one => Number(one.value))")
    )
    return found


def total(rollup: str, field: str, **where: str) -> float:
    rows: list[Mapping[str, Any]] = [
        row for row in expected(rollup) if all(row[tag] == value for tag, value in where.items())
    ]
    return float(sum(row[field] for row in rows))


async def test_the_sample_is_shown_as_it_is_expected(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url) as page:
        await expect(page.locator("#state")).to_have_text("Accepting events")
        assert await tile(page, "Added") == [total("space_storage", "bytes_added")]
        views = total("resource_traffic", "events", action="viewed")
        assert await tile(page, "Views") == [views]
        ends = [total("extractor_runtime", end) for end in ("succeeded", "failed", "skipped")]
        assert await tile(page, "Extractor runs") == [sum(ends)]
        assert (await values(page, "#extractors tbody tr:last-child"))[:3] == ends
        spaces = page.locator("#spaces tbody tr")
        assert await spaces.count() == 10 + 2  # the rest, and all
        for at in range(10):
            space = await spaces.nth(at).locator("th").inner_text()
            shown = await values(page, f"#spaces tbody tr:nth-child({at + 1})")
            fields = ("bytes_added", "bytes_removed")
            assert shown == [total("space_storage", field, space_id=space) for field in fields]
        for region in ("all", "ap-south", "eu-west", "us-east"):
            up, down = (total("service_uptime", field, region=region) for field in ("up_s", "down_s"))
            row = f'.service-row[data-region="{region}"]'
            (in_range, _) = await values(page, row)
            assert in_range == pytest.approx(up / (up + down), abs=1e-4)
            await expect(page.locator(f"{row} .timeline rect.up")).to_have_count(6)
        assert await page.locator("#uptime rect.down").count() > 0
        for chart in ("response", "traffic", "people", "extractors"):
            await expect(page.locator(f"#{chart} canvas")).to_be_visible()
        await expect(page.locator("#events li")).to_have_count(12)
        await expect(page.locator("#dead .aside")).to_have_text("3")
        table = await sample.app.get(await page.locator("#spaces .csv").get_attribute("href") or "")
        rows = (await table.text()).splitlines()
        assert rows[0].startswith("time,space_id,bytes_added")
        assert len(rows) == 1 + len(expected("space_storage"))
        await kept(page, "light")


async def test_the_range_is_chosen_and_kept_in_the_address(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url) as page:
        await page.get_by_text("7 d", exact=True).click()
        await expect(page.locator("#uptime .timeline").first).to_have_attribute("aria-valuemax", "167")
        assert page.url.endswith("?range=7d")
        await kept(page, "7d")
        await page.reload()
        await expect(page.locator("#uptime .timeline").first).to_have_attribute("aria-valuemax", "167")
        await expect(page.get_by_label("7 d")).to_be_checked()
        await page.get_by_text("1 h", exact=True).click()
        await expect(page.locator("#uptime .timeline").first).to_have_attribute("aria-valuemax", "59")
        hour = [row for row in expected("space_storage") if row["time"] == "2026-11-24T02:00:00Z"]
        assert (await tile(page, "Added"))[0] < sum(row["bytes_added"] for row in hour) + 1
        await page.get_by_text("30 d", exact=True).click()
        await expect(page.locator("#uptime .timeline").first).to_have_attribute("aria-valuemax", "29")
        assert await tile(page, "Added") == [total("space_storage", "bytes_added")]


async def test_an_empty_page_says_what_to_do_and_fills_by_itself(chromium: Browser, blank: Shown) -> None:
    async with opened(chromium, blank.url) as page:
        await expect(page.get_by_role("heading", name="Nothing has come in yet")).to_be_visible()
        await expect(page.locator("#uptime")).to_be_hidden()
        await accessible(page)
        await kept(page, "empty")
        line = await page.locator("#welcome .send").inner_text()
        match = re.fullmatch(
            r'curl (\S+)/v1/events \\\n  -H "Authorization: Bearer \$KEY" \\\n'
            r"  -H \"Content-Type: application/json\" \\\n  -d '([^']+)'",
            line,
        )
        assert match is not None, line
        assert match[1] == blank.url
        body = json.loads(match[2])
        # As it is shown, a moment ago: nothing is yet to come.
        assert (await blank.app.post(match[2].encode())).status == 202
        await blank.settled()
        await expect(page.locator("#welcome")).to_be_hidden()
        await expect(page.locator("#spaces tbody tr").first).to_contain_text(body["space_id"])
        assert await tile(page, "Added") == [body["bytes"]]
        await publish(blank.engine.stores, [{**body, "time": NOW_MS, "bytes": 1000}])
        await blank.settled()
        await expect(page.locator("#spaces tbody tr").first.locator("data").first).to_have_attribute(
            "value", str(body["bytes"] + 1000)
        )
        await expect(page.locator("#events li")).to_have_count(2)


async def test_a_store_that_is_away_is_told_of_and_what_was_known_stays(
    chromium: Browser, sample: Shown
) -> None:
    async with opened(chromium, sample.url) as page:
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        before = await tile(page, "Added")
        sample.rollups.broken = "the store does not answer: look whether it runs"
        sample.app.wrong["log"] = "the disk is full: make room"
        try:
            await expect(page.locator("#trouble")).to_contain_text("look whether it runs")
            await expect(page.locator("#spaces .note")).to_have_text("as of 03:00:30")
            await expect(page.locator("#trouble")).to_contain_text("log: the disk is full: make room")
            await expect(page.locator("#state")).to_have_text("Not ready")
            assert await tile(page, "Added") == before
            await expect(page.locator("#events .note")).to_be_hidden()
            await accessible(page)
            await kept(page, "broken")
            # Nothing is known of another range: no figures rather than those of this one.
            await page.get_by_text("30 d", exact=True).click()
            await expect(page.locator("#spaces .note")).to_have_text("not available now")
            await expect(page.locator("#spaces tbody tr")).to_have_count(0)
            sample.app.wrong["log"], sample.app.wrong["amplitude"] = None, "wrong key"
            await expect(page.locator("#trouble")).to_contain_text("Stopped: amplitude: wrong key")
            await expect(page.locator("#state")).to_have_text("Accepting events")
        finally:
            sample.rollups.broken = None
            sample.app.wrong.update(log=None, amplitude=None)
        await expect(page.locator("#spaces .note")).to_be_hidden()
        await expect(page.locator("#trouble")).to_be_hidden()
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        await expect(page.locator("#state")).to_have_text("Accepting events")


async def test_a_lost_connection_is_told_of_and_taken_up_again(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url, fails="ERR_|503") as page:
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        before = await tile(page, "Added")
        await page.route("**/v1/overview**", lambda asked: asked.abort())
        await page.get_by_text("7 d", exact=True).click()
        await page.get_by_text("24 h", exact=True).click()
        await expect(page.locator("#state")).to_contain_text(
            "Connection lost, trying again. Figures of 03:00:30"
        )
        assert await tile(page, "Added") == before
        await page.unroute("**/v1/overview**")
        await expect(page.locator("#state")).to_have_text("Accepting events")


async def test_a_tab_that_nobody_looks_at_holds_no_connection(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url) as page:
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        hide = """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
        async with page.expect_event("requestfailed"):
            await page.evaluate(hide, True)
        async with page.expect_request("**/v1/overview?range=24h"):
            await page.evaluate(hide, False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_it(chromium: Browser, sample: Shown, scheme: Any) -> None:
    async with opened(chromium, sample.url, color_scheme=scheme) as page:
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        await accessible(page)
        if scheme == "dark":
            await kept(page, "dark")


async def test_a_phone_shows_all_of_it_without_scrolling_sideways(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        await expect(page.locator("#traffic canvas")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        await page.locator(".service-row.quorum .timeline").tap()
        await expect(page.locator("#uptime .when")).to_contain_text("all regions")
        await accessible(page)
        await kept(page, "phone")


async def test_it_is_used_by_keyboard_alone(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url) as page:
        await expect(page.locator("#spaces tbody tr").first).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_text("Skip to the figures")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("24 h")).to_be_focused()
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#uptime .timeline").first).to_have_attribute("aria-valuemax", "59")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#uptime .timeline").first).to_have_attribute("aria-valuemax", "23")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Dark theme")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Uptime, as CSV")).to_be_focused()
        await page.keyboard.press("Tab")
        timeline = page.get_by_role("slider", name="Timeline of all regions")
        await expect(timeline).to_be_focused()
        for _ in range(2):
            await page.keyboard.press("ArrowLeft")
        await expect(timeline).to_have_attribute("aria-valuetext", re.compile("^01:00–02:00: up 1 h"))
        await expect(page.locator("#uptime .when")).to_contain_text("all regions, 01:00–02:00")
        await page.get_by_role("slider", name="Views and downloads").focus()
        await page.keyboard.press("ArrowLeft")
        views = total("resource_traffic", "events", action="viewed", time="2026-11-24T02:00:00Z")
        await expect(page.locator("#traffic .legend")).to_contain_text(f"viewed {views:g}")
        await expect(page.locator("#traffic .when")).to_have_text("02:00–03:00")


async def test_the_chosen_theme_is_kept(chromium: Browser, sample: Shown) -> None:
    async with opened(chromium, sample.url, color_scheme="light") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(ground)
        await page.get_by_role("button", name="Dark theme").click()
        dark = await page.evaluate(ground)
        assert dark != light
        await page.reload()
        assert await page.evaluate(ground) == dark


async def test_what_events_hold_is_text_and_nothing_else(chromium: Browser, blank: Shown) -> None:
    event = raw(0, url=HOSTILE, user_id=HOSTILE)
    hostile = json.dumps({"type": HOSTILE, "time": "2026-11-24T03:00:00Z", HOSTILE: {HOSTILE: 1}}).encode()
    await blank.engine.stores.raw_events.insert([event, raw(1)._replace(type=HOSTILE, event=hostile)])
    await publish(
        blank.engine.stores,
        [{"type": "storage.file_uploaded", "time": NOW_MS, "file_id": "f", "space_id": HOSTILE, "bytes": 1}],
    )
    await blank.settled()
    async with opened(chromium, blank.url) as page:
        await expect(page.locator("#events li").first).to_be_visible()
        assert await page.title() == "eventsink"
        assert await page.locator("main img, main script").count() == 0
        await expect(page.locator("#events")).to_contain_text("<script>document.title='x'</script>")
        await expect(page.locator("#spaces")).to_contain_text("<script>document.title='x'</script>")


async def test_without_the_library_it_says_so_and_shows_the_rest(chromium: Browser, sample: Shown) -> None:
    visit = await chromium.new_context(viewport=DESK)
    page = await visit.new_page()
    await page.route("**/uPlot.iife.min.js", lambda asked: asked.fulfill(status=404))
    await page.goto(sample.url)
    await expect(page.locator("#chartless")).to_contain_text("scripts/page-assets")
    await expect(page.locator("#spaces tbody tr").first).to_be_visible()
    await expect(page.locator("#traffic .legend")).to_contain_text("viewed")
    await visit.close()


async def test_a_browser_elsewhere_gives_the_key_as_the_password_once(
    chromium: Browser, tmp_path: Path
) -> None:
    async with served(tmp_path, loopback=False) as app:
        url = f"http://{app.client.host}:{app.client.port}"
        credentials = {"username": "key", "password": app.secrets["read"]}
        async with opened(chromium, url, http_credentials=credentials) as page:
            await expect(page.locator("#state")).to_have_text("Accepting events")
            await expect(page.locator("#welcome")).to_be_visible()


async def test_of_agents_elsewhere_it_shows_how_many_messages_wait_and_no_age(
    chromium: Browser, tmp_path: Path
) -> None:
    async def progress() -> Progress:
        hour_ago = NOW_MS - 3_600_000
        archive = GroupState(generation=1, positions={"archive": position(0, 3)}, watermark=hour_ago)
        google = GroupState(generation=1, positions={"google": position(0, 9)}, watermark=hour_ago)
        return Progress({"archive": archive, "google": google}, 10)

    async with (
        served(tmp_path, progress=progress, clock=lambda: NOW_MS) as app,
        opened(chromium, f"http://{app.client.host}:{app.client.port}") as page,
    ):
        rows = page.locator("#agents tbody tr")
        await expect(rows.nth(0).locator("td").nth(1)).to_have_text("6 messages")
        await expect(rows.nth(1).locator("td").nth(1)).to_have_text("none")
        await expect(page.locator("#agents caption")).to_have_text("Agents of other processes")
