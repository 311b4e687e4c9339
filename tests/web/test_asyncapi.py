"""The AsyncAPI document of the exchange: valid, true to what the reader takes and what the log declares."""

from __future__ import annotations

import copy
import functools
import json
import operator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from schemas.events import EVENT_TYPES
from schemas.reading import Refusal, read
from tests.processes import sample_lines
from topology.log import ID_HEADER, RECEIVED_HEADER
from web.asyncapi import document

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = json.loads(json.dumps(document("events.of.a.test")))
MESSAGES = DOCUMENT["components"]["messages"]


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(member) for member in value.values()))
    if isinstance(value, list):
        return set().union(*(references(member) for member in value))
    return set()


def at(pointer: str) -> Any:
    found: Any = DOCUMENT
    for name in pointer.removeprefix("#/").split("/"):
        found = found[name]
    return found


@pytest.fixture(scope="module")
def specification() -> jsonschema_rs.Draft7Validator:
    """AsyncAPI's own schema of such documents."""
    file = ROOT / "tests/specs/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
    assert file.exists(), "run scripts/install-test-specs, as `make test` does"
    return jsonschema_rs.Draft7Validator(json.loads(file.read_text()))


@pytest.mark.servers
def test_it_is_asyncapi_3_0(specification: jsonschema_rs.Draft7Validator) -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert [error.message for error in specification.iter_errors(DOCUMENT)] == []


@pytest.mark.servers
@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("operations/sendEvents/action", "sends"),
        ("channels/events/bindings/amqp/is", "exchange"),
        ("info", {}),
    ],
)
def test_what_is_not_asyncapi_would_be_noticed(
    specification: jsonschema_rs.Draft7Validator, path: str, wrong: object
) -> None:
    changed: Any = copy.deepcopy(DOCUMENT)
    *way, last = path.split("/")
    functools.reduce(operator.getitem, way, changed)[last] = wrong
    assert not specification.is_valid(changed)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        assert at(reference), reference


def test_the_exchange_is_as_the_log_declares_it() -> None:
    (channel,) = DOCUMENT["channels"].values()
    assert channel["address"] == "events.of.a.test"
    exchange = channel["bindings"]["amqp"]["exchange"]
    assert exchange == {"name": "events.of.a.test", "type": "fanout", "durable": True, "autoDelete": False}


def test_the_headers_are_those_of_our_producers() -> None:
    for message in MESSAGES.values():
        assert set(message["headers"]["properties"]) == {ID_HEADER, RECEIVED_HEADER}


def test_each_event_type_is_in_it() -> None:
    event = DOCUMENT["components"]["schemas"]["Event"]
    assert event["discriminator"] == "type"
    assert len(event["anyOf"]) == len(EVENT_TYPES)


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if "examples" in message])
def test_every_example_is_read_and_is_what_the_document_says(name: str) -> None:
    for example in MESSAGES[name]["examples"]:
        payload = example["payload"]
        lines = payload.splitlines() if isinstance(payload, str) else [json.dumps(payload)]
        assert not [line for line in lines if isinstance(read(line.encode()), Refusal)]
        assert validator(MESSAGES[name]["payload"]).is_valid(payload)


def test_what_real_producers_send_is_what_the_document_says() -> None:
    anything = validator(
        {"anyOf": [MESSAGES[name]["payload"] for name in ("event", "clowder1", "pyclowderStatus")]}
    )
    lines = sample_lines()
    assert not [line for line in lines if not anything.is_valid(json.loads(line))]
    assert not anything.is_valid({"type": "storage.file_uploaded", "file_id": "f", "bytes": -1})
    assert not anything.is_valid({"type": "storage.no_such"})


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
