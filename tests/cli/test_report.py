"""``report``: one file, true numbers, nothing loaded and nothing that a name in it could smuggle in."""

from __future__ import annotations

import asyncio
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import parts
from cli.main import eventsink
from cli.reports.charts import bars, strip
from cli.reports.findings import Findings, Line
from cli.reports.markup import Html, joined, tag
from cli.reports.sections import headline
from cli.settings import load
from cli.units import number, share
from topology.sinks import Point, Value

#: 2026-11-23T00:00:00Z
MIDNIGHT = 1_795_392_000
HOUR = 3600
RANGE = ("--since", "2026-11-23T00:00:00Z", "--until", "2026-11-24T00:00:00Z")
EVIL = "<script>alert('x')</script> | `&amp;`"


def point(rollup: str, hour: int, tags: dict[str, str], **fields: Value) -> Point:
    return Point(rollup, "1h", MIDNIGHT + hour * HOUR, tuple(tags.items()), fields)


def uptime(hour: int, region: str, up_s: float, down_s: float) -> Point:
    seconds = {"up_s": up_s, "down_s": down_s, "unknown_s": 0.0, "maintenance_s": 0.0}
    ratio = up_s / (up_s + down_s)
    tags = {"service": "clowder", "region": region}
    return point("service_uptime", hour, tags, uptime_ratio=ratio, coverage=1.0, **seconds)


POINTS = [
    *(
        point("space_storage", hour, {"space_id": f"space-{space:02}"}, bytes_added=(space + 1) * 1024, files_added=1)
        for hour in (0, 23)
        for space in range(12)
    ),
    point("space_storage", 5, {"space_id": EVIL}, bytes_added=2**30, bytes_removed=512, files_added=1),
    # Not in the range.
    point("space_storage", 24, {"space_id": "late"}, bytes_added=2**40, files_added=1),
    uptime(3, "all", 3600.0, 0.0),
    uptime(3, "eu", 3600.0, 0.0),
    uptime(4, "eu", 1800.0, 1800.0),
    uptime(4, "all", 3240.0, 360.0),
    point(
        "resource_traffic",
        7,
        {"action": "viewed", "resource_type": "file", "space_id": "a"},
        events=1200,
        bytes=0,
        items=0,
    ),
    point(
        "extractor_runtime",
        9,
        {"extractor": "ncsa.wordcount"},
        submitted=4,
        succeeded=3,
        failed=1,
        skipped=0,
        runtime_s_count=4,
        runtime_s_sum=50.0,
        runtime_s_min=1.0,
        runtime_s_max=184.0,
    ),
    point("user_activity", 9, {"action": "logged_in"}, events=17, unique_users=5),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")

    async def fill() -> None:
        settings = load({"EVENTSINK_DATA": str(path)})
        shared = parts.Shared(settings)
        await shared.database().open()
        await parts.rollup_sink(settings, shared).write(POINTS)
        await shared.database().close()

    asyncio.run(fill())
    return path


def report(folder: Path, *args: str) -> Result:
    result = CliRunner().invoke(eventsink, ["report", *RANGE, *args, "--data", str(folder)])
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize(
    ("count", "texts"),
    [
        (1, ["added in 1 file", "page viewed", "extractor run, 0 % failed", "dead letter now"]),
        (2, ["added in 2 files", "pages viewed", "extractor runs, 0 % failed", "dead letters now"]),
    ],
)
def test_of_one_a_headline_speaks_in_the_singular(count: int, texts: list[str]) -> None:
    findings = Findings(
        since_s=0,
        until_s=HOUR,
        window="1h",
        times=(0,),
        services=(),
        storage={"bytes_added": 1, "files_added": count},
        storage_course={},
        spaces=(),
        rest=None,
        traffic=(Line(("page_viewed",), {"events": count}),),
        traffic_course={},
        activity=(),
        extractors=(Line(("x",), {"succeeded": count}),),
        extractors_course={},
        dead_letters=count,
    )
    assert [each.words for each in headline(findings)] == texts


class Read(HTMLParser):
    """The cells of each row, the elements, and whether each ends that begins."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data
        if "style" not in self.open:
            self.text += data


def test_the_numbers_are_those_of_the_range(folder: Path) -> None:
    page = Read(report(folder).stdout)
    assert page.open == []
    rows = {tuple(row[:2]): row for row in page.rows}
    assert rows["clowder", "all"][3:7] == ["95 %", "6 m", "0 s", "100 %"]
    assert rows["clowder", "eu"][3] == "75 %"
    spaces = [row for row in page.rows if row[0].startswith("space-") or row[0] in {EVIL, "all others"}]
    assert spaces[0] == [EVIL, "1.0 GiB", "512 B", "1", ""]
    assert spaces[1][:2] == ["space-11", "24.0 KiB"]
    # 13 spaces: the first ten, and 1 + 2 + 3 KiB twice.
    assert [row[0] for row in spaces[-2:]] == ["space-03", "all others"]
    assert spaces[-1][1] == "12.0 KiB"
    assert ["viewed", "1,200", "0 B", "0"] in page.rows
    assert ["ncsa.wordcount", "4", "1", "25 %", "0", "12.5 s", "3 m 4 s", ""] in page.rows
    assert ["logged_in", "17"] in page.rows
    assert "late" not in page.text
    for words in ("95 %uptime of clowder", "1.0 GiBadded in 25 files", "4extractor runs, 25 % failed"):
        assert words in page.text


@pytest.mark.parametrize(
    ("now", "until"),
    [(MIDNIGHT + 48 * HOUR, "2026-11-24 00:00"), (MIDNIGHT + 23 * HOUR + 1800, "2026-11-23 23:30")],
)
def test_the_range_is_told_as_it_was_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, now: int, until: str
) -> None:
    # Windows are hours: that of 00:00 counts whole, and that of 23:00 as far as it has come.
    monkeypatch.setattr(time, "time", lambda: float(now))
    range_ = ("--since", "2026-11-23T00:20:00Z", "--until", "2026-11-23T23:10:00Z")
    text = report(folder, *range_, "--format", "markdown").stdout
    assert f"2026-11-23 00:00 to {until} UTC" in text
    assert "1.0 GiB** added in 25 files" in text


def test_it_loads_nothing_and_runs_nothing(folder: Path) -> None:
    text = report(folder, "--title", EVIL).stdout
    page = Read(text)
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "form", "a"})
    attributes = {name for _, attrs in page.elements for name in attrs}
    assert attributes.isdisjoint({"src", "href", "style"})
    assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in text
    assert "://" not in text
    assert EVIL in page.text


def test_charts_tell_a_screen_reader_what_they_are(folder: Path) -> None:
    page = Read(report(folder).stdout)
    drawn = [attrs for name, attrs in page.elements if name == "svg"]
    assert len(drawn) == 2 + 3
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawn)


def test_markdown_has_the_same_numbers_and_no_markup_of_others(folder: Path) -> None:
    text = report(folder, "--format", "markdown", "--title", EVIL).stdout
    assert "| clowder | eu | 75 % | 30 m | 0 s | 100 % |  |" in text
    assert "| ncsa.wordcount | 4 | 1 | 25 % | 0 | 12.5 s | 3 m 4 s |  |" in text
    assert "| logged\\_in | 17 |" in text
    assert re.search(r"^succeeded  ·+█·+$", text, re.MULTILINE)
    assert "<script>" not in text
    # Every line of a table has as many cells as its head.
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_an_empty_range_says_what_to_look_at(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    args = ["report", "--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z", "--out", str(out)]
    result = CliRunner().invoke(eventsink, [*args, "--data", str(folder)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Nothing was counted" in out.read_text()
    assert f"{out.stat().st_size:,} bytes" in result.stderr
    result = CliRunner().invoke(
        eventsink, [*args[:-1], str(tmp_path / "no" / "folder"), "--data", str(folder)]
    )
    assert result.exit_code == 1
    assert "name another file" in result.stderr
    result = CliRunner().invoke(
        eventsink, ["report", "--since", "now", "--until", "now-1h", "--data", str(folder)]
    )
    assert result.exit_code == 2


# -- charts --


def test_bars_stand_on_the_line_and_hang_from_it() -> None:
    svg = bars("t", ["a", "b"], {"added": [3, None]}, number, down={"removed": [1, 1]})
    # 150 high, 6 above and 18 below: 126 for 3 up and 1 down, so the line is at 6 + 94.5.
    boxes = re.findall(
        r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)" class="([a-z-]+)">', svg
    )
    assert boxes == [
        ("6", "94.5", "series-added"),
        ("100.5", "31.5", "series-removed"),
        ("100.5", "31.5", "series-removed"),
    ]
    assert "<title>a: added 3, removed 1</title>" in svg


def test_a_cell_of_nothing_known_is_neither_up_nor_down() -> None:
    svg = strip("t", ["a", "b", "c", "d"], [1.0, 0.95, 0.0, None], share)
    assert re.findall(r'class="state-([a-z]+)"', svg) == ["up", "partly", "down", "unknown"]
    assert "<title>d: not known</title>" in svg


def test_texts_are_escaped_and_markup_is_not() -> None:
    assert tag("p", "<&>", tag("b", "x"), class_='"') == '<p class="&quot;">&lt;&amp;&gt;<b>x</b></p>'
    assert joined([Html("<i>"), "<i>"]) == "<i>&lt;i&gt;"
