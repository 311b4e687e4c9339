"""The running application, held against its own OpenAPI document by schemathesis: no answer that it does not describe,
whatever is sent, and nothing refused that it allows."""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from agents import ROLLUPS
from tests.web.in_a_thread import Target, served_in_a_thread
from topology.log import JSON, NDJSON
from web import openapi
from web.cloudevents import BATCH, STRUCTURED
from web.limits import Limits, Rate
from web.problems import PROBLEM_JSON

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT = openapi.document(ROLLUPS, loopback=False)
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
#: Those that can be asked wrongly, and those that want a key.
TAKING = [
    (path, method)
    for path, method in OPERATIONS
    if {"parameters", "requestBody"} & DOCUMENT["paths"][path][method].keys()
]
KEYED = [(path, method) for path, method in OPERATIONS if DOCUMENT["paths"][path][method]["security"]]
#: `make test` has a share of a developer's examples for each, `make fuzz` as many times more as it has of all.
EXAMPLES = max(10, settings().max_examples // 8)


AnyCase: TypeAlias = Case[Any]


@schemathesis.serializer(NDJSON, STRUCTURED, BATCH)
def as_json(ctx: schemathesis.SerializationContext, value: Any) -> bytes:
    """Texts are lines already, the rest is JSON."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="surrogateescape")


class Api:
    """What is tested, and how it is asked."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.schema: BaseSchema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
        self.session = requests.Session()

    def keys(self, path: str, method: str) -> dict[str, str]:
        scope = "health" if path == "/service" else "events" if method == "post" else "read"
        return {"Authorization": f"Bearer {self.target.secrets[scope]}"}

    def check(self, case: AnyCase, **headers: str) -> int:
        response = case.call(base_url=self.target.url, session=self.session, headers=headers)
        case.validate_response(response, checks=CHECKS, headers=headers)
        return response.status_code


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Not on loopback, so that reading needs a key too."""
    with served_in_a_thread(tmp_path_factory.mktemp("contract"), loopback=False) as target:
        yield Api(target)


@pytest.fixture(autouse=True)
def nothing_went_wrong_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def some(examples: int = EXAMPLES) -> settings:
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


def test_the_document_is_openapi_3_1(api: Api) -> None:
    api.schema.validate()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_to_what_is_allowed_is_described(api: Api, path: str, method: str) -> None:
    operation = api.schema[path][method]

    @some()
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: AnyCase) -> None:
        api.check(case, **api.keys(path, method))

    ask()


@pytest.mark.parametrize(("path", "method"), TAKING)
def test_every_answer_to_what_is_not_allowed_is_described(api: Api, path: str, method: str) -> None:
    operation = api.schema[path][method]

    @some()
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: AnyCase) -> None:
        api.check(case, **api.keys(path, method))

    ask()


@pytest.mark.parametrize(("path", "method"), KEYED)
def test_no_key_and_a_wrong_key_are_401_everywhere(api: Api, path: str, method: str) -> None:
    operation = api.schema[path][method]

    @some(10)
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        header=st.sampled_from(["Authorization", "API-KEY", "X-API-Key"]),
        value=st.text(string.ascii_letters + string.digits + "_ ", max_size=50).map(str.strip),
    )
    def ask(case: AnyCase, header: str, value: str) -> None:
        assert api.check(case, **{header: value}) == 401

    ask()


@pytest.mark.parametrize("path", ["/v1/events", "/service"])
def test_too_many_requests_are_answered_as_described(tmp_path: Path, path: str) -> None:
    once = Limits(key_rate=Rate(per_s=0.001, burst=1), failed_attempts_rate=Rate(per_s=0.001, burst=1))
    with served_in_a_thread(tmp_path, limits=once) as target:
        api = Api(target)
        operation = api.schema[path]["post"]
        for headers, status in (
            (api.keys(path, "post"), 202),
            (api.keys(path, "post"), 429),
            ({"API-KEY": "wrong"}, 401),
            ({"API-KEY": "wrong"}, 429),
        ):
            body: Any = (
                {"ping_status": {"healthy": True}} if path == "/service" else {"type": "activity.logged_in"}
            )
            assert api.check(operation.Case(body=body, media_type=JSON), **headers) == status


def test_what_the_document_calls_an_event_is_taken(api: Api) -> None:
    operation = schemathesis.openapi.from_dict(only_events())["/v1/events"]["post"]

    @some()
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: AnyCase) -> None:
        case.body = as_integers(case.body)
        response = case.call(
            base_url=api.target.url, session=api.session, headers=api.keys("/v1/events", "post")
        )
        # That a text is a day of the calendar, and after 1970 in UTC, is more than a pattern can say.
        wrong = [item for item in response.json()["rejected"] if item["pointer"] != "/time"]
        assert not wrong, (case.body, wrong)

    ask()


def as_integers(value: Any) -> Any:
    """JSON Schema calls 7.0 an integer, and we want one to be written as such."""
    if isinstance(value, dict):
        return {name: as_integers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [as_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def only_events() -> dict[str, Any]:
    """The document, with one body of one route: one canonical event as JSON."""
    post = DOCUMENT["paths"]["/v1/events"]["post"]
    body = {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Event"}}}}
    return {**DOCUMENT, "paths": {"/v1/events": {"post": {**post, "parameters": [], "requestBody": body}}}}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_method_that_is_not_described_is_405(api: Api, path: str, method: str) -> None:
    others = {"get", "post", "put", "delete", "patch"} - DOCUMENT["paths"][path].keys()
    operation = api.schema[path][method]
    for other in others:
        url = f"{api.target.url}{operation.path.replace('{name}', next(iter(ROLLUPS)))}"
        answer = api.session.request(other, url)
        assert answer.status_code == 405, (other, path)
        assert answer.headers["Content-Type"] == PROBLEM_JSON
        assert answer.headers["Allow"]
