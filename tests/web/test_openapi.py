"""The OpenAPI document: whole, true to the routes, and every example in it works."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents import ROLLUPS
from schemas.events import EVENT_TYPES
from tests.web.serving import Served
from topology.log import JSON
from web.openapi import document

DOCUMENT = document(ROLLUPS, loopback=True)
PATHS = DOCUMENT["paths"]
SCHEMAS = DOCUMENT["components"]["schemas"]


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(member) for member in value.values()))
    if isinstance(value, list):
        return set().union(*(references(member) for member in value))
    return set()


async def test_it_is_served_as_it_is_made(app: Served) -> None:
    response = await app.get("/openapi.json")
    assert response.status == 200
    assert response.content_type == JSON
    assert await response.json() == json.loads(json.dumps(DOCUMENT))
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_every_reference_leads_somewhere_and_no_schema_is_left_over() -> None:
    assert references(DOCUMENT) == {f"#/components/schemas/{name}" for name in SCHEMAS}


async def test_every_route_is_in_it_and_nothing_else(app: Served) -> None:
    served = {
        (route.resource.canonical, route.method.lower())
        for route in app.client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    # What the page loads is part of the page.
    served = {(path, method) for path, method in served if not path.startswith(("/docs/", "/page/"))}
    assert served == {(path, method) for path, methods in PATHS.items() for method in methods}


def test_each_event_type_is_in_it_as_the_reader_has_it() -> None:
    tags = {str(kind.__struct_config__.tag) for kind in EVENT_TYPES}
    assert set(SCHEMAS["Event"]["discriminator"]["mapping"]) == tags
    assert SCHEMAS["FileUploaded"]["required"] == ["type", "file_id", "bytes"]


def test_each_rollup_is_in_it_with_its_key_and_fields() -> None:
    for name, rollup in ROLLUPS.items():
        row = SCHEMAS[f"Rollup.{name}"]["properties"]["rows"]["items"]["properties"]
        assert list(row) == ["time", *rollup.key, *rollup.fields]


def test_reading_needs_no_key_on_loopback_alone() -> None:
    everywhere = document(ROLLUPS, loopback=False)["paths"]
    for path in ("/", "/v1/events", "/v1/rollups", "/v1/rollups/{name}"):
        assert {} in PATHS[path]["get"]["security"]
        assert everywhere[path]["get"]["security"]
        assert {} not in everywhere[path]["get"]["security"]
    assert {} not in PATHS["/v1/events"]["post"]["security"]


EXAMPLES = [
    pytest.param(path, kind, example["value"], id=f"{path} {kind} {name}")
    for path, methods in PATHS.items()
    if "post" in methods
    for kind, content in methods["post"]["requestBody"]["content"].items()
    for name, example in content["examples"].items()
]


@pytest.mark.parametrize(("path", "kind", "example"), EXAMPLES)
async def test_every_example_is_accepted(app: Served, path: str, kind: str, example: Any) -> None:
    body = example if isinstance(example, str) else json.dumps(example)
    key = app.secrets["health" if path == "/service" else "events"]
    response = await app.client.post(path, data=body, headers={"Content-Type": kind, "API-KEY": key})
    assert response.status == 202, await response.text()
    answer = await response.json()
    assert answer["rejected"] == []
    assert answer["accepted"] == (len(example) if isinstance(example, list) else body.count("\n") or 1)


def test_every_problem_that_comes_again_says_when() -> None:
    for methods in PATHS.values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                assert (status in {"409", "429", "503"}) == ("Retry-After" in answer.get("headers", {}))


def test_any_answer_of_a_route_has_a_type() -> None:
    for methods in PATHS.values():
        for operation in methods.values():
            with_body = [each for status, each in operation["responses"].items() if status != "304"]
            assert all(answer["content"] for answer in with_body)
            assert {"400", "500", "503"} <= operation["responses"].keys()
