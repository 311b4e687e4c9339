"""``GET /``: the shell and what it loads. What a browser makes of it is in ``test_page_in_a_browser.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

from aiohttp.web import RouteDef

from tests.web.serving import Served, problem, served
from web import page
from web.access import Access
from web.page import CHARTS, CHARTS_FILES, SCRIPTS, STYLES, Page

FOLDER = Path(page.__file__).parent


class Loaded(HTMLParser):
    """What the shell loads and links to, and whatever is inline in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found: Mapping[str, str | None] = dict(attrs)
        self._tag = tag
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        if tag in {"script", "link", "img"}:
            self.loaded.append(found.get("src") or found.get("href") or "")
        if tag == "a":
            self.links.append(found.get("href") or "")

    def handle_data(self, data: str) -> None:
        if self._tag in {"script", "style"} and data.strip():
            self.inline.append(data)


async def shell(app: Served) -> Loaded:
    response = await app.get("/")
    assert response.status == 200
    assert response.content_type == "text/html"
    return Loaded(await response.text())


async def test_everything_that_it_loads_is_ours_and_there(app: Served) -> None:
    loaded = [address for address in (await shell(app)).loaded if not address.startswith("data:")]
    assert {address.rpartition("/")[2] for address in loaded} == {*SCRIPTS, *STYLES, *CHARTS_FILES}
    for address in loaded:
        assert re.fullmatch(r"/page/[0-9a-f]{12}/[\w.]+", address)
        response = await app.get(address)
        assert response.status == 200, address
        assert response.headers["Cache-Control"].endswith("immutable")
        assert response.content_type in {"text/javascript", "text/css"}


async def test_nothing_is_inline_and_no_other_host_is_allowed(app: Served) -> None:
    assert (await shell(app)).inline == []
    policy = (await app.get("/")).headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "//" not in policy
    assert "default-src 'none'" in policy


def test_every_script_is_listed_and_asks_nobody_else() -> None:
    assert {path.name for path in FOLDER.glob("*.js")} == set(SCRIPTS)
    for name in (*SCRIPTS, *STYLES):
        text = (FOLDER / name).read_text()
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
        # An XML namespace is a name and no address.
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}, name


async def test_every_link_leads_somewhere(app: Served) -> None:
    links = {link for link in (await shell(app)).links if link.startswith("/")}
    assert links == {"/v1/overview", "/v1/events", "/v1/rollups", "/readyz", "/metrics", "/docs"}
    for link in links:
        assert (await app.get(link)).status == 200, link


async def test_the_page_needs_a_key_where_others_can_ask_and_a_browser_is_asked_for_one(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, loopback=False) as app:
        refused = await app.get("/")
        await problem(refused, 401)
        assert "Basic" in refused.headers["WWW-Authenticate"]
        assert (await app.get("/", x_api_key=app.secrets["read"])).status == 200
        shell = await (await app.get("/", x_api_key=app.secrets["read"])).text()
        assert (await app.get(Loaded(shell).loaded[-1])).status == 200  # the same for everybody


def test_without_the_library_of_the_charts_the_page_is_made_all_the_same(tmp_path: Path) -> None:
    routes = cast(Sequence[RouteDef], Page(cast(Access, None), charts=tmp_path).routes())
    addresses = [route.path for route in routes]
    assert [address for address in addresses if address.endswith(CHARTS_FILES)] == []
    assert len(addresses) == 1 + len(SCRIPTS) + len(STYLES)


def test_the_library_is_installed_with_its_licence() -> None:
    assert (FOLDER / CHARTS).parent.joinpath("LICENSE").read_text().startswith("The MIT License")
