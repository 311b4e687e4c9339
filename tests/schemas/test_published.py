from __future__ import annotations

import json
import re
from typing import Any

import pytest

from schemas.events import EVENT_TYPES
from schemas.published import ANY, json_schemas

SCHEMAS = json_schemas()
TYPES = [str(kind.__struct_config__.tag) for kind in EVENT_TYPES]


def references(schema: object) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"]} if "$ref" in schema else set()
        return own.union(*(references(member) for member in schema.values()))
    if isinstance(schema, list):
        return set().union(*(references(member) for member in schema))
    return set()


def test_there_is_one_for_each_type_and_one_for_any() -> None:
    assert list(SCHEMAS) == [*TYPES, ANY]


@pytest.mark.parametrize("name", [*TYPES, ANY])
def test_each_is_whole_in_itself(name: str) -> None:
    schema = SCHEMAS[name]
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == name
    assert schema["description"]
    defined = {f"#/$defs/{definition}" for definition in schema.get("$defs", {})}
    assert references(schema) == defined


@pytest.mark.parametrize("name", TYPES)
def test_each_names_its_type_and_allows_unknown_members(name: str) -> None:
    schema: dict[str, Any] = SCHEMAS[name]
    assert schema["type"] == "object"
    assert schema["properties"]["type"] == {"enum": [name]}
    assert "type" in schema["required"]
    assert "time" not in schema["required"]
    assert schema.get("additionalProperties", True) is True


def test_a_time_is_text_or_milliseconds_as_the_readers_have_it() -> None:
    for name in TYPES:
        integer, text, null = SCHEMAS[name]["properties"]["time"]["anyOf"]
        assert (integer["type"], integer["minimum"], integer["maximum"]) == (
            "integer",
            0,
            253_402_300_799_999,
        )
        assert (text["type"], text["format"]) == ("string", "date-time")
        assert null == {"type": "null"}
        for readable in ("2026-11-23T21:00:03.855Z", "2026-11-23 21:00:03+01:00", "2016-12-31T23:59:60Z"):
            assert re.search(text["pattern"], readable)
        for unreadable in ("", "now", "2026-11-23", "2026-11-23T21:00:03", "1795467603855"):
            assert not re.search(text["pattern"], unreadable)


def test_bounds_are_those_of_the_contract() -> None:
    uploaded = SCHEMAS["storage.file_uploaded"]["properties"]
    assert (uploaded["bytes"]["minimum"], uploaded["bytes"]["maximum"]) == (0, 2**53 - 1)
    assert uploaded["id"]["anyOf"][0]["maxLength"] == 128
    pinged = SCHEMAS["health.pinged"]["properties"]
    assert (pinged["valid_for_s"]["minimum"], pinged["valid_for_s"]["maximum"]) == (1, 3600)
    assert pinged["valid_for_s"]["default"] == 120
    assert (pinged["loss"]["anyOf"][0]["minimum"], pinged["loss"]["anyOf"][0]["maximum"]) == (0, 1)
    assert SCHEMAS["storage.file_uploaded"]["required"] == ["type", "file_id", "bytes"]
    started = SCHEMAS["extraction.started"]["properties"]
    clock = started["clock_ms"]["anyOf"][0]
    assert (clock["type"], clock["minimum"], clock["maximum"]) == ("integer", 0, 253_402_300_799_999)
    assert started["clock_ms"]["default"] is None
    assert SCHEMAS["extraction.started"]["required"] == ["type", "job_id", "extractor"]
