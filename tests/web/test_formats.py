"""``GET /v1/rollups/{name}``: parameters of questions, formats of answers, and what need not be sent again."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow
import pyarrow.parquet
import pytest
from yarl import URL

from tests.web.filling import NOW_S, point
from tests.web.serving import Served, problem
from topology.sinks import Point
from web import formats

POINTS = [point(0, "a", bytes_added=1), point(0, "b,ü", bytes_added=2), point(2, "a", bytes_added=4)]
PATH = "/v1/rollups/space_storage"


@pytest.fixture
async def filled(app: Served) -> Served:
    await app.stores.rollups.write(POINTS)
    return app


async def document(app: Served, query: str) -> Any:
    response = await app.get(f"{PATH}?{query}")
    assert response.status == 200, await response.text()
    return await response.json()


def added(rows: list[dict[str, Any]]) -> list[Any]:
    return [row["bytes_added"] for row in rows]


# -- questions --


async def test_several_values_of_a_key_are_given_one_by_one(filled: Served) -> None:
    both = f"space_id=a&space_id={quote('b,ü')}"
    assert added((await document(filled, both))["rows"]) == [1, 2, 4]
    # A comma is part of a value.
    assert added((await document(filled, f"space_id={quote('b,ü')}"))["rows"]) == [2]


async def test_rows_are_taken_together(filled: Served) -> None:
    assert await document(filled, "group_by=") == {
        "rollup": "space_storage",
        "window": "1m",
        "rows": [
            {"time": "2026-11-23T21:00:00Z", "bytes_added": 3},
            {"time": "2026-11-23T21:02:00Z", "bytes_added": 4},
        ],
    }
    top = await document(filled, "total=true&order=-bytes_added&limit=1&fields=bytes_added,files_added")
    assert top["rows"] == [{"time": "2026-11-23T21:00:00Z", "space_id": "a", "bytes_added": 5}]
    assert top["cursor"]


async def test_what_is_left_out_is_said(app: Served) -> None:
    tags = (("action", "logged_in"),)
    await app.stores.rollups.write(
        [Point("user_activity", "1m", NOW_S, tags, {"events": 3, "unique_users": 2})]
    )
    answer = await (await app.get("/v1/rollups/user_activity?group_by=")).json()
    assert answer["rows"] == [{"time": "2026-11-23T21:00:00Z", "events": 3}]
    assert list(answer["left_out"]) == ["unique_users"]
    answer = await problem(await app.get("/v1/rollups/user_activity?group_by=&fields=unique_users"), 400)
    assert "same user" in answer["detail"]


async def test_gaps_are_null(filled: Served) -> None:
    rows = (await document(filled, "space_id=a&fill=null&fields=bytes_added&until=2026-11-23T21:03:00Z"))[
        "rows"
    ]
    assert added(rows) == [1, None, 4]


async def test_the_next_page_is_linked_whatever_the_format(filled: Served) -> None:
    for form in formats.FORMATS:
        response = await filled.get(f"{PATH}?limit=2&since=now-1h&format={form}")
        # Read to its end: a connection with an answer still on its way is closed when the answer is forgotten.
        assert response.status == 200, await response.read()
        await response.read()
        (link,) = response.links.values()
        assert link["rel"] == "next"
        following = await filled.get(URL(link["url"]).path_qs)
        assert following.status == 200, await following.read()
        await following.read()
        assert "Link" not in following.headers


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("fill=none", "null nor zero"),
        ("total=1", "true nor false"),
        ("limit=0", "1 to 100000"),
        ("limit=100001", "1 to 100000"),
        ("order=", "bytes_added"),
        ("order=--time", "bytes_added"),
        ("group_by=region", "space_id"),
        ("fields=bytes", "bytes_added"),
        ("format=xlsx", "parquet"),
        ("groupby=space_id", "group_by"),
        ("cursor=x", "limit"),
        ("cursor=x&limit=1", "none of ours"),
        ("fill=null&fill=zero", "twice"),
    ],
)
async def test_a_wrong_question_is_400_that_says_what_there_is(filled: Served, query: str, hint: str) -> None:
    assert hint in (await problem(await filled.get(f"{PATH}?{query}"), 400))["detail"]


# -- formats --


async def test_lines_are_the_rows_of_the_document(filled: Served) -> None:
    response = await filled.get(f"{PATH}?format=ndjson")
    assert response.content_type == "application/x-ndjson"
    rows = [json.loads(line) for line in (await response.text()).splitlines()]
    assert rows == (await document(filled, ""))["rows"]


async def test_csv_has_the_columns_that_were_asked_for(filled: Served) -> None:
    response = await filled.get(
        f"{PATH}?format=csv&fields=bytes_added,bytes_removed&space_id=a&space_id={quote('b,ü')}"
    )
    assert list(csv.reader(io.StringIO(await response.text()))) == [
        ["time", "space_id", "bytes_added", "bytes_removed"],
        ["2026-11-23T21:00:00Z", "a", "1", ""],
        ["2026-11-23T21:00:00Z", "b,ü", "2", ""],
        ["2026-11-23T21:02:00Z", "a", "4", ""],
    ]
    assert (await (await filled.get(f"{PATH}?format=csv&group_by=&fields=bytes_added")).text()).splitlines()[
        1:
    ] == [
        "2026-11-23T21:00:00Z,3",
        "2026-11-23T21:02:00Z,4",
    ]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
async def test_columns_have_their_types(filled: Served, form: str) -> None:
    response = await filled.get(f"{PATH}?format={form}")
    assert response.content_type == formats.FORMATS[form].content_type
    assert "space_storage-1m" in response.headers["Content-Disposition"]
    body = pyarrow.BufferReader(await response.read())
    table = (
        pyarrow.parquet.read_table(body) if form == "parquet" else pyarrow.ipc.open_stream(body).read_all()
    )
    nine = datetime(2026, 11, 23, 21, tzinfo=UTC)
    assert table.to_pylist() == [
        {
            "time": nine.replace(minute=minute),
            "space_id": space,
            "bytes_added": added,
            "bytes_removed": None,
            "files_added": None,
            "files_removed": None,
        }
        for minute, space, added in ((0, "a", 1), (0, "b,ü", 2), (2, "a", 4))
    ]
    assert table.schema.field("bytes_added").type == pyarrow.int64()
    assert table.schema.metadata[b"rollup"] == b"space_storage"


async def test_a_float_stays_one_in_a_column_of_whole_numbers(app: Served) -> None:
    tags = (("service", "clowder"), ("region", "eu"))
    await app.stores.rollups.write([Point("service_uptime", "1m", NOW_S, tags, {"up_s": 60.0, "checks": 1})])
    response = await app.get("/v1/rollups/service_uptime?format=parquet")
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(await response.read()))
    assert table.schema.field("up_s").type == pyarrow.float64()
    assert table.schema.field("checks").type == pyarrow.int64()
    assert table.num_rows == 1


@pytest.mark.parametrize("form", ["parquet", "arrow"])
async def test_no_rows_are_an_empty_table(app: Served, form: str) -> None:
    response = await app.get(f"{PATH}?format={form}")
    body = pyarrow.BufferReader(await response.read())
    table = (
        pyarrow.parquet.read_table(body) if form == "parquet" else pyarrow.ipc.open_stream(body).read_all()
    )
    assert (table.num_rows, table.num_columns) == (0, 6)


async def test_without_pyarrow_it_is_said_how_to_install_it(
    filled: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = await problem(await filled.get(f"{PATH}?format=parquet"), 501)
    assert "pip install '.[arrow]'" in answer["detail"]


def test_pyarrow_is_imported_by_nobody_who_does_not_ask_for_it() -> None:
    program = "import sys, web.application, cli.rollups; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- what need not be sent again --


async def test_an_answer_that_is_the_same_is_304(filled: Served) -> None:
    for query in ("", "?format=csv", "?format=parquet"):
        first = await filled.get(f"{PATH}{query}")
        tag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
        for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await filled.get(f"{PATH}{query}", if_none_match=condition)
            assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)
        assert (await filled.get(f"{PATH}{query}", if_none_match='"other"')).status == 200
        # A late event corrects a row.
        await filled.stores.rollups.write([point(0, "a", bytes_added=100 + len(query))])
        changed = await filled.get(f"{PATH}{query}", if_none_match=tag)
        assert (changed.status, changed.headers["ETag"] != tag) == (200, True)


async def test_each_format_of_an_answer_has_a_tag_of_its_own(filled: Served) -> None:
    tags = {(await filled.get(f"{PATH}?format={form}")).headers["ETag"] for form in formats.FORMATS}
    assert len(tags) == len(formats.FORMATS)
