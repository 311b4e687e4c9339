"""Streams of AMQP frames for tests: how they are drawn, and what pamqp, frame by frame, makes of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import pamqp.frame
from hypothesis import assume
from hypothesis import strategies as st
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from topology.log import ID_HEADER, RECEIVED_HEADER, Message
from topology.position import MAX_OFFSET
from topology.rabbitmq.frames import (
    AROUND_BYTES,
    LARGEST_FRAME_BYTES,
    PREFIX,
    PREFIX_BYTES,
    Answer,
    Confirm,
    Delivery,
)
from topology.rabbitmq.messages import LATEST_MS, OFFSET_HEADER

CHANNELS = (1, 2, 3, 65_535)
#: What an offset looks like in a table of headers; it is one there only, not inside of a value.
LOOKS_LIKE_AN_OFFSET = b"\x0fx-stream-offsetl" + struct.pack(">q", 5)


class Use(Enum):
    """What a channel is taken for, if at all."""

    NOTHING = auto()
    DELIVERIES = auto()
    CONFIRMS = auto()


class RawHeader(ContentHeader):
    """A content header whose payload was made elsewhere: pamqp writes only some types of fields."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self._payload = payload

    def marshal(self) -> bytes:
        return self._payload


# -- what a stream is made of --


def sized(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def short_string(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


texts = st.one_of(
    st.text(max_size=8).map(str.encode), st.sampled_from([LOOKS_LIKE_AN_OFFSET, b"", b"application/json"])
)
names = st.one_of(
    st.sampled_from([OFFSET_HEADER, ID_HEADER, RECEIVED_HEADER, "x"]).map(str.encode),
    st.text(max_size=8).map(str.encode),
)
blobs = st.one_of(st.binary(max_size=12), st.just(LOOKS_LIKE_AN_OFFSET))
#: As pamqp reads them: seconds, or milliseconds where they are many.
stamps = st.integers(0, LATEST_MS).map(struct.Struct(">Q").pack)


def of_bytes(kind: bytes, size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).map(kind.__add__)


def tables(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    fields = st.tuples(names, values).map(lambda entry: short_string(entry[0]) + entry[1])
    return st.lists(fields, max_size=4).map(b"".join)


#: Of every type that there is, the letter and the value.
values: st.SearchStrategy[bytes] = st.recursive(
    st.one_of(
        st.sampled_from([b"V", b"\0", b"l" + bytes(8), b"S" + sized(b"an id"), b"l\0\0" + b"\1" * 6]),
        *(of_bytes(kind, size) for kind, size in [(b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2)]),
        *(of_bytes(kind, 4) for kind in (b"I", b"i", b"f")),
        *(of_bytes(kind, 8) for kind in (b"l", b"L", b"d")),
        of_bytes(b"D", 5),
        stamps.map(b"T".__add__),
        texts.map(lambda raw: b"S" + sized(raw)),
        blobs.map(lambda raw: b"x" + sized(raw)),
        blobs.map(lambda raw: b"S" + sized(raw)),
    ),
    lambda inner: st.one_of(
        tables(inner).map(lambda raw: b"F" + sized(raw)),
        st.lists(inner, max_size=3).map(lambda raws: b"A" + sized(b"".join(raws))),
    ),
    max_leaves=5,
)
offsets = st.integers(0, (1 << 63) - 1).map(
    lambda offset: LOOKS_LIKE_AN_OFFSET[:-8] + struct.pack(">q", offset)
)


@st.composite
def properties(draw: st.DrawFn) -> bytes:
    """Flags and properties of a content header, all valid; often with an offset, as from a stream."""
    table = draw(tables(values)) + draw(st.one_of(offsets, st.just(b""))) + draw(tables(values))
    # Of two offsets pamqp takes the last one, and the broker's is the first: a test of its own tells.
    assume(table.count(bytes([len(OFFSET_HEADER)]) + OFFSET_HEADER.encode()) < 2)
    given: list[Callable[[], bytes]] = [
        lambda: short_string(draw(texts)),  # content type
        lambda: short_string(draw(texts)),
        lambda: sized(table),
        lambda: b"\2",
        lambda: b"\0",
        *[lambda: short_string(draw(texts))] * 4,
        lambda: draw(stamps),
        *[lambda: short_string(draw(texts))] * 3,
    ]
    flags = draw(st.sampled_from([0, 1 << 13, 0xA000, 0xFFF8])) | draw(st.integers(0, 0x1FFF)) << 3
    present = [make() for place, make in enumerate(given) if flags & 1 << 15 - place]
    return struct.pack(">H", flags) + b"".join(present)


@st.composite
def contents(draw: st.DrawFn, channel: int) -> list[bytes]:
    """Header and body of a message; into how many frames a broker cuts the body is its own business."""
    body = draw(st.one_of(st.just(b""), st.binary(max_size=40), st.just(b"\xce" * 200)))
    part = draw(st.integers(1, 64)) if body else 1
    header = struct.pack(">HHQ", 60, 0, len(body)) + draw(properties())
    return [
        frame(RawHeader(header), channel),
        *(frame(ContentBody(body[at : at + part]), channel) for at in range(0, len(body), part)),
    ]


def frame(content: Frame | ContentHeader | ContentBody, channel: int) -> bytes:
    return pamqp.frame.marshal(content, channel)


tags = st.integers(0, (1 << 63) - 1)
short_texts = st.text(max_size=6)
#: What leads a message.
leads: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Basic.Deliver,
        consumer_tag=short_texts,
        delivery_tag=tags,
        redelivered=st.booleans(),
        exchange=st.just("x"),
        routing_key=short_texts,
    ),
    st.builds(
        Basic.Return,
        reply_code=st.just(312),
        reply_text=st.just("NO_ROUTE"),
        exchange=st.just("x"),
        routing_key=short_texts,
    ),
    st.builds(
        Basic.GetOk,
        delivery_tag=tags,
        redelivered=st.booleans(),
        exchange=st.just("x"),
        routing_key=short_texts,
        message_count=st.just(1),
    ),
)
methods: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Basic.Ack, delivery_tag=tags, multiple=st.booleans()),
    st.builds(Basic.Nack, delivery_tag=tags, multiple=st.booleans()),
    st.builds(Basic.ConsumeOk, consumer_tag=short_texts),
    st.builds(Basic.CancelOk, consumer_tag=short_texts),
    st.builds(Basic.Cancel, consumer_tag=short_texts),
    st.sampled_from([Basic.QosOk(), Channel.OpenOk(), Channel.CloseOk()]),
    st.builds(
        Channel.Close,
        reply_code=st.just(404),
        reply_text=short_texts,
        class_id=st.just(0),
        method_id=st.just(0),
    ),
)


@st.composite
def spoken_on(draw: st.DrawFn, channel: int) -> list[bytes]:
    """Frames of one channel, each message in one run."""
    frames: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 3)):
            frames.append(frame(draw(leads), channel))
            frames += draw(contents(channel))
        else:
            frames.append(frame(draw(methods), channel))
    return frames


def start(frame_max: int = LARGEST_FRAME_BYTES) -> bytes:
    """What a broker says before anything else."""
    return b"".join(
        frame(content, 0)
        for content in (
            Connection.Start(server_properties={"product": "RabbitMQ"}),
            Connection.Tune(2047, frame_max, 60),
            Connection.OpenOk(),
        )
    )


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Several channels interleaved, with what a broker says of the connection in between."""
    heard = {channel: iter(draw(spoken_on(channel))) for channel in draw(st.sets(st.sampled_from(CHANNELS)))}
    aside = st.sampled_from(
        [Heartbeat().marshal(), frame(Connection.Blocked(reason="low"), 0), frame(Connection.Unblocked(), 0)]
    )
    stream = [start()]
    while heard:
        channel = draw(st.sampled_from([0, *heard]))
        # A run, so that one piece of the stream holds several messages of a channel.
        for _ in range(draw(st.sampled_from([1, 1, 2, 8]))):
            next_frame = draw(aside) if channel == 0 else next(heard[channel], None)
            if next_frame is None:
                del heard[channel]
                break
            stream.append(next_frame)
    return b"".join(stream)


uses = st.fixed_dictionaries({channel: st.sampled_from(Use) for channel in CHANNELS})


@st.composite
def pieces(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream, cut anywhere; now and then into single bytes."""
    if draw(st.integers(0, 9)) == 0:
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[at:to] for at, to in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


# -- what pamqp makes of it --


@dataclass
class Understood:
    """What the channels that were taken are given, and all other bytes."""

    taken: dict[int, list[Delivery | Confirm]] = field(default_factory=dict)
    rest: bytes = b""


def frames_of(stream: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        following = at + PREFIX.unpack_from(stream, at)[2] + AROUND_BYTES
        yield stream[at:following]
        at = following


def understood(stream: bytes, taken: Mapping[int, Use]) -> Understood:
    """By pamqp's own decoding of one frame after the other."""
    result = Understood({channel: [] for channel, use in taken.items() if use is not Use.NOTHING})
    rest: list[bytes] = []
    leading: dict[int, Frame] = {}
    headers: dict[int, bytes] = {}
    lengths: dict[int, int] = {}
    bodies: dict[int, bytes] = {}
    for raw in frames_of(stream):
        size, channel, content = pamqp.frame.unmarshal(raw)
        assert size == len(raw)
        use = taken.get(channel, Use.NOTHING)
        lead_by = Basic.Deliver if use is Use.DELIVERIES else Basic.Return if use is Use.CONFIRMS else None
        if isinstance(content, Basic.Deliver | Basic.Return) and type(content) is lead_by:
            leading[channel] = content
        elif use is Use.CONFIRMS and isinstance(content, Basic.Ack | Basic.Nack):
            answer = Answer.CONFIRMED if isinstance(content, Basic.Ack) else Answer.REFUSED
            result.taken[channel].append(Confirm(answer, content.delivery_tag, content.multiple))
        elif channel in leading and isinstance(content, ContentHeader):
            headers[channel] = raw[PREFIX_BYTES:-1]
            lengths[channel] = content.body_size
            bodies[channel] = b""
        elif channel in leading and isinstance(content, ContentBody):
            bodies[channel] += content.value
        else:
            if use is Use.CONFIRMS and isinstance(content, Channel.Close):
                result.taken[channel].append(Confirm(Answer.CLOSED, 0, multiple=False))
            rest.append(raw)
        if channel in bodies and len(bodies[channel]) == lengths[channel]:
            lead, header, body = leading.pop(channel), headers.pop(channel), bodies.pop(channel)
            result.taken[channel].append(
                Delivery(lead.delivery_tag or 0, header, body)
                if isinstance(lead, Basic.Deliver)
                else Confirm(Answer.RETURNED, 0, multiple=False)
            )
    result.rest = b"".join(rest)
    return result


def is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def decoded(delivery: Delivery) -> Message | None:
    """The message, by pamqp's decoding of the whole content header. Raises what pamqp raises."""
    header = ContentHeader()
    header.unmarshal(delivery.header)
    given = header.properties
    headers: Mapping[str, object] = given.headers or {}
    offset, event_id, received = (headers.get(name) for name in (OFFSET_HEADER, ID_HEADER, RECEIVED_HEADER))
    if not isinstance(offset, int) or not is_number(offset) or not 0 <= offset <= MAX_OFFSET:
        return None
    received_ms = (
        received if isinstance(received, int) and is_number(received) and 0 <= received <= LATEST_MS else None
    )
    if received_ms is None and given.timestamp is not None:
        received_ms = round(given.timestamp.timestamp() * 1000) or None
    return Message(
        offset,
        delivery.body,
        given.content_type or None,
        event_id if isinstance(event_id, str) and event_id else None,
        received_ms,
    )


def in_pieces_of(stream: bytes, size: int) -> Sequence[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]
