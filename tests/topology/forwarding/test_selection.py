from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.events import Event, LoggedIn, PageViewed, ResourceViewed
from schemas.reading import read
from topology.batch import LogEvent
from topology.forwarding.properties import page, properties, user_of
from topology.forwarding.samples import samples
from topology.forwarding.selection import Rule, Selection
from topology.position import Position


def placed(event: dict[str, Any], at: int = 0) -> LogEvent:
    body = json.dumps(event).encode()
    found = read(body)
    assert isinstance(found, Event)
    return LogEvent(Position(at), 0, 0, found, body)


LOGIN = {"type": "activity.logged_in", "user_id": "someone"}


def test_health_is_never_selected_whatever_a_rule_says() -> None:
    every = Selection((Rule("*"), Rule("health.*")))
    assert not any(name.startswith("health.") for name, _ in every.types())
    assert (
        every.reason(placed({"type": "health.queue_measured", "service": "s", "queue": "q", "messages": 1}))
        == "type"
    )


@pytest.mark.parametrize(
    "without",
    [
        LOGIN | {"consent": False},
        {"category": "user_activity", "type": "login", "user_id": "someone", "consent": False},
        LOGIN | {"cloudevent": {"consent": False}},
        LOGIN | {"cloudevent": {"consent": "false"}},
    ],
)
def test_without_consent_nothing_goes_out(without: dict[str, Any]) -> None:
    assert Selection().reason(placed(without)) == "consent"


@pytest.mark.parametrize("given", [{}, {"consent": True}, {"consent": None}, {"message": "consent"}])
def test_only_a_refusal_is_a_refusal(given: dict[str, Any]) -> None:
    assert Selection().reason(placed(LOGIN | given)) is None


def test_a_sample_is_whole_users_and_the_same_each_time() -> None:
    half = Selection((Rule("activity.*", 0.5),))
    chosen = {
        user: {half.reason(placed(LOGIN | {"user_id": user}, at)) for at in range(5)}
        for user in map("user-{}".format, range(400))
    }
    assert all(len(reasons) == 1 for reasons in chosen.values())
    assert 150 < sum(reasons == {None} for reasons in chosen.values()) < 250


def test_the_first_rule_that_fits_decides() -> None:
    selection = Selection((Rule("traffic.page_viewed", 0.0), Rule("traffic.*")))
    assert selection.reason(placed({"type": "traffic.page_viewed", "url": "/"})) == "sample"
    assert dict(selection.types())["traffic.resource_viewed"] == 1.0


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "https://user:pw@c.example/datasets/5f3a1c2b9d8e7f6a5b4c3d2e?q=x#y",
            "c.example/datasets/5f3a1c2b9d8e7f6a5b4c3d2e",
        ),
        ("/spaces/My%20Thesis/files", "/spaces/*/files"),
        ("http://[::1", "*"),
        ("", "/"),
    ],
)
def test_a_page_is_shown_without_what_could_be_a_name(given: str, shown: str) -> None:
    assert page(given) == shown
    assert properties(PageViewed(url=given))["page"] == shown


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ("5f3a1c2b9d8e7f6a5b4c3d2e", "5f3a1c2b9d8e7f6a5b4c3d2e"),
        (None, None),
        ("0" * 24, None),
        ("Anonymous", None),
        ("0", None),
    ],
)
def test_users(given: str | None, user: str | None) -> None:
    assert user_of(LoggedIn(user_id=given)) == user


@pytest.mark.parametrize(
    "given", ["ada@example.org", "Ada Lovelace", "ada.lovelace", "ada-1815", "u1", "x" * 500, "Jürgen"]
)
def test_a_user_who_could_be_known_by_the_id_is_replaced(given: str) -> None:
    shown = user_of(LoggedIn(user_id=given))
    assert shown is not None
    assert shown.startswith("user-")
    assert given not in shown
    assert shown == user_of(LoggedIn(user_id=given))


@pytest.mark.parametrize("given", ["Ada_Lovelace_thesis.pdf", "My thesis", "ada", "x" * 300])
def test_a_thing_whose_id_could_be_a_title_is_replaced(given: str) -> None:
    event = ResourceViewed(resource_type="dataset", resource_id=given, space_id=given)
    sent = properties(event)
    assert given not in str(sent)
    assert str(sent["resource_id"]).startswith("resource-")
    assert sent == properties(event)


@pytest.mark.parametrize(
    "given",
    [
        "5f3a1c2b9d8e7f6a5b4c3d2e",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "s1",
        "42",
    ],
)
def test_what_is_plainly_an_id_goes_out_as_it_is(given: str) -> None:
    assert properties(ResourceViewed(resource_type="dataset", resource_id=given))["resource_id"] == given


def test_there_is_a_sample_of_every_type_that_goes_out() -> None:
    assert [sample.event.type for sample in samples(0)] == [name for name, _ in Selection().types()]
