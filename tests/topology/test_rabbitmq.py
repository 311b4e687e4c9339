"""RabbitMQ without a broker: addresses, declarations, and what is made of other people's messages."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from topology.errors import SettingsError
from topology.log import Message, Outgoing
from topology.rabbitmq.connection import Broker
from topology.rabbitmq.declarer import FanoutExchange, LogDeclaration, StreamQueue
from topology.rabbitmq.frames import Delivery
from topology.rabbitmq.messages import OFFSET_HEADER, content_header, message
from topology.rabbitmq.publisher import PublisherLimits
from topology.rabbitmq.reader import ReaderLimits

SECRET = "s3cr%2Ft"


@pytest.mark.parametrize(
    ("url", "shown", "vhost"),
    [
        (f"amqp://user:{SECRET}@host:5673/events", "amqp://user:***@host:5673/events", "events"),
        (f"amqps://user:{SECRET}@host/a%2Fb?cadata={SECRET}", "amqps://user:***@host/a%2Fb", "a/b"),
        (f"amqp://user:{SECRET}@[::1]/", "amqp://user:***@[::1]/", "/"),
        ("amqp://host", "amqp://host", "/"),
        ("amqp://user@host/%2F", "amqp://user@host/%2F", "/"),
    ],
)
def test_a_broker_is_written_without_its_secrets(url: str, shown: str, vhost: str) -> None:
    broker = Broker(url)
    assert (str(broker), repr(broker), broker.vhost) == (shown, f"Broker({shown!r})", vhost)


@pytest.mark.parametrize(
    "url", ["", "host", f"http://user:{SECRET}@host", f"amqp://user:{SECRET}@", f"amqp://u:{SECRET}@h:port/"]
)
def test_what_is_no_amqp_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="EVENTSINK_BROKER_URL") as refused:
        Broker(url)
    assert SECRET not in str(refused.value)


def test_declarations_are_values() -> None:
    def declaration(max_bytes: int = 1000) -> LogDeclaration:
        return LogDeclaration(FanoutExchange("events"), StreamQueue("log", "14D", max_bytes))

    assert declaration() == declaration()
    assert len({declaration(), declaration(), declaration(2000)}) == 2


@pytest.mark.parametrize(
    ("max_bytes", "segment_bytes"),
    [
        (20_000_000_000, 500_000_000),  # never more than RabbitMQ's own default
        (1_000_000_000, 50_000_000),  # a twentieth: so much more than asked for is kept at most
        (19, 1),
    ],
)
def test_a_segment_is_a_small_part_of_the_log(max_bytes: int, segment_bytes: int) -> None:
    assert StreamQueue("log", "14D", max_bytes).arguments == {
        "x-queue-type": "stream",
        "x-max-age": "14D",
        "x-max-length-bytes": max_bytes,
        "x-stream-max-segment-size-bytes": segment_bytes,
    }


def test_limits_stay_within_half_a_minute() -> None:
    # Silence begins just after a look: it is seen at the second one, which takes 10 s at most to fail.
    assert 2 * ReaderLimits().supervise_every.total_seconds() + 10 <= 30
    assert PublisherLimits().timeout.total_seconds() == 10


def delivery(given: Basic.Properties, body: bytes = b"{}") -> Delivery:
    return Delivery(1, ContentHeader(0, len(body), given).marshal(), body)


@pytest.mark.parametrize(
    "sent",
    [
        Outgoing(b"{}", "application/json", "an id", 1_700_000_000_123),
        Outgoing(b"", "application/x-ndjson", "ä" * 300, 0),
        Outgoing(b"x" * 70_000, "", None, None),
        Outgoing(b"{}", "text/plain", None, 5),
        Outgoing(b"{}", "text/plain", "i", None),
    ],
)
def test_our_own_messages_come_back_as_they_were(sent: Outgoing) -> None:
    payload = content_header(sent)
    header = ContentHeader()
    header.unmarshal(payload)
    given = header.properties
    assert payload.startswith(struct.pack(">HHQ", 60, 0, len(sent.body)))
    assert given.delivery_mode == 2
    assert given.timestamp == (
        None if sent.received_ms is None else datetime.fromtimestamp(sent.received_ms // 1000, UTC)
    )
    assert given.message_id == (sent.event_id if len(sent.event_id or "") < 128 else None)
    given.headers = {**(given.headers or {}), OFFSET_HEADER: 7}
    read = message(Delivery(1, header.marshal(), sent.body))
    assert read == Message(7, sent.body, sent.content_type or None, sent.event_id, sent.received_ms)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("exchnge=a", "no parameter 'exchnge': did you mean 'exchange'"),
        ("exchange=a", "no parameter 'exchange': set EVENTSINK_EXCHANGE"),
        ("heartbeet=5", "did you mean 'heartbeat'"),
        ("x=1", "known are auth, "),
    ],
)
def test_a_parameter_that_would_be_passed_over_is_refused(query: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Broker(f"amqp://host/?heartbeat=5&{query}")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (Basic.Properties(), (None, None, None)),
        (Basic.Properties(content_type="text/html"), ("text/html", None, None)),
        (Basic.Properties(content_type=""), (None, None, None)),
        (Basic.Properties(timestamp=datetime(2024, 1, 1, tzinfo=UTC)), (None, None, 1_704_067_200_000)),
        # Headers named as ours that hold something else.
        (Basic.Properties(headers={"x-eventsink-id": 5}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-id": ["a"]}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-id": ""}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-received": True}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-received": "1700000000000"}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-received": -1}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-received": 2**63 - 1}), (None, None, None)),
        (Basic.Properties(headers={"x-eventsink-received": 1.5}), (None, None, None)),
        # The header is more precise than AMQP's timestamp; where it is useless, that one counts.
        (
            Basic.Properties(
                headers={"x-eventsink-received": 1_700_000_000_123},
                timestamp=datetime(2024, 1, 1, tzinfo=UTC),
            ),
            (None, None, 1_700_000_000_123),
        ),
        (
            Basic.Properties(
                headers={"x-eventsink-received": "soon"}, timestamp=datetime(2024, 1, 1, tzinfo=UTC)
            ),
            (None, None, 1_704_067_200_000),
        ),
    ],
)
def test_what_others_put_into_properties_never_raises(
    given: Basic.Properties, read: tuple[str | None, str | None, int | None]
) -> None:
    given.headers = {**(given.headers or {}), OFFSET_HEADER: 3}
    assert message(delivery(given)) == Message(3, b"{}", *read)


@pytest.mark.parametrize("headers", [None, {}, {OFFSET_HEADER: "first"}])
def test_a_delivery_without_an_offset_is_not_from_a_stream(headers: dict[str, Any] | None) -> None:
    assert message(delivery(Basic.Properties(headers=headers))) is None


def test_of_two_offsets_the_first_counts_which_is_the_one_that_a_broker_wrote() -> None:
    entry = b"\x0fx-stream-offsetl"
    table = entry + struct.pack(">q", 77) + entry + struct.pack(">q", 1 << 45)
    payload = struct.pack(">HHQHI", 60, 0, 2, 1 << 13, len(table)) + table
    assert message(Delivery(1, payload, b"{}")) == Message(77, b"{}")


@pytest.mark.parametrize("offset", [-1, 1 << 38, 1 << 62])
def test_an_offset_that_no_log_has_is_none(offset: int) -> None:
    assert message(delivery(Basic.Properties(headers={OFFSET_HEADER: offset}))) is None


def test_a_timestamp_of_zero_is_none() -> None:
    given = Basic.Properties(headers={OFFSET_HEADER: 3}, timestamp=datetime.fromtimestamp(0, UTC))
    assert message(delivery(given)) == Message(3, b"{}")


def broken(before: bytes, after: bytes, **given: Any) -> bytes:
    """A content header at offset 77 of which one part is replaced by something that is not allowed."""
    headers = {**given.pop("headers", {}), OFFSET_HEADER: (1 << 37) + 77}
    payload = ContentHeader(0, 300, Basic.Properties(headers=headers, **given)).marshal()
    assert before in payload
    return payload.replace(before, after)


BROKEN = [
    pytest.param(broken(b"QQQQ", b"\xff\xfe\xff\xfe", content_type="QQQQ"), id="text that is not UTF-8"),
    pytest.param(
        broken(
            struct.pack(">Q", 1 << 30),
            struct.pack(">Q", 1_700_000_000_000_000),
            timestamp=datetime.fromtimestamp(1 << 30, UTC),
        ),
        id="timestamp in microseconds",
    ),
    pytest.param(
        broken(
            struct.pack(">Q", 1 << 30),
            b"\xff" * 8,
            timestamp=datetime.fromtimestamp(1 << 30, UTC),
        ),
        id="timestamp beyond all years",
    ),
    pytest.param(broken(b"QQQQ", b"\xff\xfe\xff\xfe", headers={"QQQQ": 1}), id="name that is not UTF-8"),
]


@pytest.mark.parametrize("payload", BROKEN)
def test_what_cannot_be_read_counts_as_left_out_and_the_offset_stays(payload: bytes) -> None:
    assert message(Delivery(1, payload, b"{}")) == Message((1 << 37) + 77, b"{}", None, None, None)
