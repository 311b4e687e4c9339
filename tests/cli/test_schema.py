from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from agents import ROLLUPS
from cli.main import eventsink
from schemas.published import json_schemas
from schemas.selecting import NAMES
from web import asyncapi
from web.openapi import document


def test_all_schemas_are_printed_as_one_document() -> None:
    result = CliRunner().invoke(eventsink, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schemas()


def test_the_types_are_listed_with_their_fields() -> None:
    listed = CliRunner().invoke(eventsink, ["schema", "--list"]).stdout
    assert [line.split()[0] for line in listed.splitlines() if "." in line.split()[0][:-1]] == list(NAMES)
    assert re.search(r"^storage.file_uploaded +file_id dataset_id\? space_id\? bytes$", listed, re.MULTILINE)
    assert "Every event may have time, id, source, user_id" in listed
    assert max(map(len, listed.splitlines())) <= 100
    wrong = CliRunner().invoke(eventsink, ["schema", "--list", "--out", "x"])
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)


def test_each_schema_is_a_file_of_its_own_with_out(tmp_path: Path) -> None:
    result = CliRunner().invoke(eventsink, ["schema", "--out", str(tmp_path / "new")])
    assert result.exit_code == 0
    written = json.loads((tmp_path / "new" / "openapi.json").read_text())
    assert written == json.loads(json.dumps(document(ROLLUPS, loopback=False)))
    files = {
        file.name.removesuffix(".schema.json"): file for file in (tmp_path / "new").glob("*.schema.json")
    }
    exchange = json.loads((tmp_path / "new" / "asyncapi.json").read_text())
    assert exchange == json.loads(json.dumps(asyncapi.document()))
    assert len(files) + 2 == len(list((tmp_path / "new").iterdir()))
    assert {name: json.loads(file.read_text()) for name, file in files.items()} == json_schemas()


def test_a_folder_that_cannot_be_written_is_one_line_and_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(eventsink, ["schema", "--out", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.stderr
    assert result.stderr.count("\n") == 1
