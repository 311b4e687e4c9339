"""``GET /docs``: Swagger UI from an installed package, from nowhere else, under a policy that allows no more."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from aiohttp import ClientSession

from tests.web.serving import Served, served
from topology.errors import SettingsError
from web import docs

ASSETS = ["docs.css", "docs.js", "swagger-ui.css", "swagger-ui-bundle.js"]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and whatever text stands in a script or style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in {"script", "style"}:
            self.inline += data.strip()


async def test_the_page_loads_what_it_needs_from_here_alone(app: Served) -> None:
    response = await app.get("/docs")
    assert response.status == 200
    assert response.content_type == "text/html"
    elements = Elements(await response.text())
    assert elements.inline == ""
    loaded = [
        link
        for tag, attributes in elements.found
        if tag in {"script", "link", "img", "iframe"}
        and (link := attributes.get("src") or attributes.get("href"))
    ]
    assert {link for link in loaded if link != "data:,"} == {f"/docs/{name}" for name in ASSETS}
    for link in loaded[1:]:
        assert (await app.get(link)).status == 200
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]


async def test_the_policy_allows_no_inline_script_and_no_other_host(app: Served) -> None:
    policy = (await app.get("/docs")).headers["Content-Security-Policy"]
    sources = {name: values for name, *values in (each.split() for each in policy.split(";"))}
    assert sources["default-src"] == ["'none'"]
    assert sources["script-src"] == sources["style-src"] == sources["connect-src"] == ["'self'"]
    assert sources["frame-ancestors"] == sources["form-action"] == sources["base-uri"] == ["'none'"]
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_the_start_of_swagger_ui_names_no_other_host(app: Served) -> None:
    script = await (await app.get("/docs/docs.js")).text()
    assert 'url: "/openapi.json"' in script
    assert "validatorUrl: null" in script
    assert not re.search(r"https?:", script)


def test_swagger_ui_is_5_or_later() -> None:
    version = (docs.swagger_ui() / "VERSION").read_text().strip().removeprefix("v")
    assert int(version.split(".")[0]) >= 5


@pytest.mark.parametrize("name", ASSETS)
async def test_a_file_is_packed_where_the_client_takes_it_and_may_be_kept(app: Served, name: str) -> None:
    # Without a client that unpacks by itself.
    async with ClientSession(auto_decompress=False) as session:
        url = app.client.make_url(f"/docs/{name}")
        bodies = {}
        for accepted in ("gzip, br", "identity", "gzip;q=0"):
            async with session.get(url, headers={"Accept-Encoding": accepted}) as response:
                assert response.status == 200
                assert response.headers["Cache-Control"] == docs.CACHED
                assert response.headers["Vary"] == "Accept-Encoding"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers.get("Content-Encoding") == (
                    "gzip" if accepted == "gzip, br" else None
                )
                bodies[accepted] = await response.read()
    assert gzip.decompress(bodies["gzip, br"]) == bodies["identity"] == bodies["gzip;q=0"]


async def test_neither_needs_a_key(tmp_path: Path) -> None:
    async with served(tmp_path, loopback=False) as app:
        for path in ("/docs", "/openapi.json", "/docs/docs.js"):
            assert (await app.get(path)).status == 200


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "SWAGGER_UI", "no_such_package")
    with pytest.raises(SettingsError, match="no_such_package"):
        docs.swagger_ui()
