"""RabbitMQ without a broker: addresses, declarations, and what is made of other people's messages."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from typing import Any, cast

import pamqp.frame
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from topology.errors import SettingsError
from topology.log import Message, Outgoing
from topology.rabbitmq import Broker, FanoutExchange, LogDeclaration, StreamQueue
from topology.rabbitmq_frames import GuardedReader, decodable
from topology.rabbitmq_messages import OFFSET_HEADER, delivered, properties
from topology.rabbitmq_publisher import PublisherLimits
from topology.rabbitmq_reader import ReaderLimits

SECRET = "s3cr%2Ft"


@pytest.mark.parametrize(
    ("url", "shown", "vhost"),
    [
        (f"amqp://user:{SECRET}@host:5673/events", "amqp://user:***@host:5673/events", "events"),
        (f"amqps://user:{SECRET}@host/a%2Fb?password={SECRET}", "amqps://user:***@host/a%2Fb", "a/b"),
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


def delivery(given: Basic.Properties, body: bytes = b"{}") -> DeliveredMessage:
    return DeliveredMessage(
        Basic.Deliver("consumer", 1), ContentHeader(0, len(body), given), body, cast(AbstractChannel, None)
    )


def test_our_own_messages_come_back_as_they_were() -> None:
    sent = Outgoing(b"{}", "application/json", "an id", 1_700_000_000_123)
    given = properties(sent)
    assert given.headers is not None
    given.headers[OFFSET_HEADER] = 7
    assert delivered(delivery(given)) == Message(7, *sent)
    assert given.delivery_mode == 2
    assert given.timestamp == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


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
    assert delivered(delivery(given)) == Message(3, b"{}", *read)


@pytest.mark.parametrize("headers", [None, {}, {OFFSET_HEADER: "first"}])
def test_a_delivery_without_an_offset_is_not_from_a_stream(headers: dict[str, Any] | None) -> None:
    assert delivered(delivery(Basic.Properties(headers=headers))) is None


def broken(before: bytes, after: bytes, **given: Any) -> bytes:
    """A content header at offset 77 of which one part is replaced by something that is not allowed."""
    headers = {**given.pop("headers", {}), OFFSET_HEADER: (1 << 40) + 77}
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
def test_a_header_that_cannot_be_decoded_keeps_its_offset(payload: bytes) -> None:
    guarded = decodable(payload)
    header = ContentHeader()
    header.unmarshal(guarded)
    assert len(guarded) == len(payload)  # or the frame would end elsewhere
    assert header.body_size == 300
    assert header.properties.headers == {OFFSET_HEADER: (1 << 40) + 77}
    assert header.properties.content_type is None


def test_a_header_that_can_be_decoded_is_left_alone() -> None:
    payload = ContentHeader(0, 5, Basic.Properties(content_type="a", headers={"b": [1, "c"]})).marshal()
    assert decodable(payload) is payload


@given(st.binary(max_size=200))
def test_any_bytes_after_the_fixed_part_become_a_header(rest: bytes) -> None:
    payload = struct.pack(">HHQ", 60, 0, 12) + rest.ljust(8, b"\0")
    ContentHeader().unmarshal(decodable(payload))


@given(st.lists(st.integers(1, 40), max_size=30))
async def test_the_guard_passes_frames_on_in_any_pieces(pieces: list[int]) -> None:
    frames = [
        pamqp.frame.marshal(Basic.Deliver("consumer", 1, False, "events", ""), 3),
        pamqp.frame.marshal(ContentHeader(0, 2, Basic.Properties(content_type="a")), 3),
        b"\x03\x00\x03\x00\x00\x00\x02{}\xce",
    ]
    inner = asyncio.StreamReader()
    inner.feed_data(b"".join(frames))
    inner.feed_eof()
    reader = GuardedReader(inner)
    read = b""
    left = len(b"".join(frames))
    for piece in [*pieces, left]:
        read += await reader.readexactly(min(piece, left - len(read)))
    assert read == b"".join(frames)
    assert reader.at_eof()
