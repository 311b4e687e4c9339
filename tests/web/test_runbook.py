"""The runbook as a page: whoever follows an alert's link lands on its paragraph, without a key."""

from __future__ import annotations

from pathlib import Path

from tests.web.serving import served
from web import runbook

SOURCE = Path(__file__).parents[2] / "docs" / "runbook.md"


async def test_it_is_the_page_of_the_documentation_and_needs_no_key(tmp_path: Path) -> None:
    async with served(tmp_path, loopback=False) as app:
        response = await app.get("/docs/runbook")
        assert response.status == 200
        assert response.content_type == "text/html"
        text = await response.text()
        assert (await app.get("/docs/docs.css")).status == 200
    assert text == runbook.page(SOURCE.read_text("utf-8"))
    assert '<h3 id="agentstuck">AgentStuck</h3>' in text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_links_to_files_that_are_not_there_are_text_and_others_stay() -> None:
    page = runbook.page(
        "# T\n\n[`a`](../a.yml) [b](#t) [c](https://c.example/) [d](javascript:alert(1)) <b>e</b>\n"
    )
    assert "<p><code>a</code>" in page
    assert '<a href="#t">b</a>' in page
    assert '<a href="https://c.example/">c</a>' in page
    assert "<b>" not in page
    assert page.count("<a ") == 4  # two of them lead away from here


def test_a_title_is_no_markup() -> None:
    assert "<title>eventsink: &lt;b&gt;</title>" in runbook.page("# <b>\n")
