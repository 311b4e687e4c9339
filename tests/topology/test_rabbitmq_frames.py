"""Frames from the socket: whatever is in them, wherever they are cut, and what is no frame at all."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader, ProtocolHeader

from tests.topology.amqp_streams import (
    CHANNELS,
    LOOKS_LIKE_AN_OFFSET,
    RawHeader,
    Understood,
    Use,
    decoded,
    frame,
    in_pieces_of,
    pieces,
    properties,
    start,
    streams,
    understood,
    uses,
)
from topology.rabbitmq.frames import (
    AROUND_BYTES,
    HEARTBEAT,
    LARGEST_BODY_BYTES,
    LARGEST_FRAME_BYTES,
    LARGEST_HEADER_FRAMES,
    PREFIX,
    Confirm,
    Delivery,
    FrameError,
    FrameScanner,
)
from topology.rabbitmq.messages import OFFSET_HEADER, message

#: Making streams takes long, and on a busy machine several times as long.
pytestmark = pytest.mark.timeout(300)

LARGEST_PART = LARGEST_FRAME_BYTES - AROUND_BYTES
DELIVER = frame(Basic.Deliver("c", 7, False, "x", ""), 1)
TAKEN = {1: Use.DELIVERIES}


def never() -> float:
    """A clock by which it is never time for a sign of life."""
    return -10.0


class Scanned(Understood):
    """What a scanner made of a stream, piece by piece."""

    def __init__(self, taken: Mapping[int, Use], monotonic: Callable[[], float] = never) -> None:
        super().__init__({channel: [] for channel, use in taken.items() if use is not Use.NOTHING})
        self.scanner = FrameScanner(self._pass_on, monotonic)
        self.error: FrameError | None = None
        self._handed: set[int] = set()
        for channel, use in taken.items():
            if use is Use.DELIVERIES:
                self.scanner.take(channel, self._receiver(channel))
            elif use is Use.CONFIRMS:
                self.scanner.take_confirms(channel, self._receiver(channel))

    def _pass_on(self, data: bytes) -> None:
        self.rest += data

    def _receiver(self, channel: int) -> Callable[[Any], None]:
        def receive(came: Iterable[Delivery | Confirm]) -> None:
            assert channel not in self._handed, "more than once for one piece"
            self._handed.add(channel)
            before = len(self.taken[channel])
            self.taken[channel] += came
            assert len(self.taken[channel]) > before, "nothing"

        return receive

    def feed(self, *stream: bytes) -> Scanned:
        """Until the end, or an error."""
        for piece in stream:
            self._handed.clear()
            try:
                self.scanner.feed(piece)
            except FrameError as error:
                self.error = error
                break
        return self

    def agrees_with(self, expected: Understood) -> bool:
        assert self.error is None
        assert self.taken == expected.taken
        assert self.rest == expected.rest
        return True


def content_header(body_bytes: int, given: bytes = b"\0\0") -> RawHeader:
    return RawHeader(struct.pack(">HHQ", 60, 0, body_bytes) + given)


def delivered(tag: int, body: bytes, channel: int = 1, part: int = LARGEST_PART) -> bytes:
    """As from a stream, at offset ``tag``."""
    header = ContentHeader(0, len(body), Basic.Properties(headers={OFFSET_HEADER: tag}))
    return b"".join(
        (
            frame(Basic.Deliver("c", tag, False, "x", ""), channel),
            frame(header, channel),
            *(frame(ContentBody(body[at : at + part]), channel) for at in range(0, len(body), part)),
        )
    )


# -- frames --


@given(streams(), uses, st.data())
def test_however_a_stream_is_cut_it_is_read_as_pamqp_reads_it(
    stream: bytes, taken: Mapping[int, Use], data: st.DataObject
) -> None:
    expected = understood(stream, taken)
    assert Scanned(taken).feed(*data.draw(pieces(stream))).agrees_with(expected)
    for came in expected.taken.values():
        for delivery in came:
            if isinstance(delivery, Delivery):
                assert message(delivery) == decoded(delivery)


SMALL = b"".join(
    (
        start(),
        frame(Basic.ConsumeOk("c"), 1),
        delivered(1, b"one"),
        delivered(2, b""),
        frame(Basic.Deliver("c", 9, False, "x", ""), 2),
        delivered(3, b"\xce" * 9, part=4),
        HEARTBEAT,
        frame(content_header(3), 2),
        delivered(4, b"four", channel=3, part=1),
        frame(ContentBody(b"two"), 2),
        frame(Basic.Ack(3, multiple=True), 65_535),
        frame(Basic.Return(312, "NO_ROUTE", "x", ""), 65_535),
        frame(content_header(2), 65_535),
        frame(ContentBody(b"rr"), 65_535),
        frame(Basic.Nack(4), 65_535),
        frame(Basic.Cancel("c"), 1),
    )
)
SMALL_TAKEN = {1: Use.DELIVERIES, 2: Use.DELIVERIES, 3: Use.NOTHING, 65_535: Use.CONFIRMS}


def test_a_stream_can_be_cut_at_every_place() -> None:
    expected = understood(SMALL, SMALL_TAKEN)
    assert [len(came) for came in expected.taken.values()] == [3, 1, 3]
    for cut in range(len(SMALL) + 1):
        assert Scanned(SMALL_TAKEN).feed(SMALL[:cut], SMALL[cut:]).agrees_with(expected)
    for size in range(1, 60):
        assert Scanned(SMALL_TAKEN).feed(*in_pieces_of(SMALL, size)).agrees_with(expected)


@pytest.mark.parametrize("piece_bytes", [1 << 16, 1 << 18, 20 << 20, None])
def test_a_body_of_many_megabytes_comes_whole_between_others(piece_bytes: int | None) -> None:
    random.seed(piece_bytes)
    large, other = random.randbytes(20 << 20), random.randbytes(300_000)
    lead, *parts = in_pieces_of(delivered(2, large), LARGEST_FRAME_BYTES)
    stream = b"".join((start(), delivered(1, other), lead, *parts, delivered(3, b"")))
    expected = understood(stream, TAKEN)
    cut = [piece_bytes or random.randrange(1, 1 << 18) for _ in range(len(stream) // 4096)]
    at = 0
    scanned = Scanned(TAKEN)
    for size in cut:
        scanned.feed(stream[at : at + size])
        at += size
        if at >= len(stream):
            break
    assert scanned.feed(stream[at:]).agrees_with(expected)
    assert [came.body for came in scanned.taken[1] if isinstance(came, Delivery)] == [other, large, b""]


@pytest.mark.parametrize("end", [Channel.CloseOk(), Channel.Close(404, "gone", 60, 20)])
def test_what_comes_for_a_channel_that_was_left_goes_nowhere_until_its_end(end: Frame) -> None:
    scanned, stream = Scanned({}), delivered(1, b"body")
    came: list[Delivery] = []
    later: list[Delivery] = []
    scanned.scanner.take(1, came.extend)
    scanned.scanner.leave(1, later.extend)  # of somebody who has it no more
    scanned.feed(stream)
    scanned.scanner.leave(1, came.extend)
    scanned.feed(stream)
    assert (len(came), scanned.rest) == (1, b"")
    scanned.feed(frame(end, 1))
    scanned.feed(stream)  # of whoever aiormq gives the number to
    assert scanned.rest == frame(end, 1) + stream
    scanned.scanner.take(1, later.extend)
    scanned.feed(stream)
    assert (len(came), len(later)) == (1, 1)


def test_who_is_left_by_another_receiver_is_called_no_more() -> None:
    scanner = FrameScanner(lambda _: None)
    came: list[Delivery] = []
    scanner.take(1, lambda _: scanner.leave(2, came.extend))
    scanner.take(2, came.extend)
    scanner.feed(delivered(1, b"") + delivered(1, b"", channel=2))
    assert came == []


def test_a_sign_of_life_is_shown_where_everything_was_taken_and_no_more_than_once_a_second() -> None:
    now = 100.0
    scanned = Scanned(TAKEN, lambda: now)
    scanned.feed(delivered(1, b"one"))
    now = 100.99
    scanned.feed(delivered(1, b"one"))
    assert scanned.rest == HEARTBEAT
    scanned.feed(delivered(1, b"x" * 1000, part=100)[:500])  # no whole delivery, but whole frames
    now = 101.5
    scanned.feed(delivered(1, b"x" * 1000, part=100)[500:])
    assert scanned.rest == HEARTBEAT * 2
    now = 200.0
    scanned.feed(delivered(1, b"one") + frame(Basic.QosOk(), 1))  # which is one itself
    scanned.feed(HEARTBEAT[:3])
    assert scanned.rest == HEARTBEAT * 2 + frame(Basic.QosOk(), 1)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_broker_of_another_version_is_passed_on_as_it_is(cut: int) -> None:
    stream = ProtocolHeader(1, 0, 0).marshal() + b"anything"
    assert Scanned(TAKEN).feed(stream[:cut], stream[cut:-1], stream[-1:]).rest == stream


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(4096, 4096), (131_072, 131_072), (131_073, 131_072), (0, 131_072), (0xFFFFFFFF, 131_072)],
)
def test_larger_frames_than_memory_is_meant_for_are_never_agreed_on(offered: int, agreed: int) -> None:
    scanned = Scanned(TAKEN).feed(start(offered))
    assert scanned.rest == start(agreed)  # which aiormq confirms as it is
    assert scanned.feed(PREFIX.pack(3, 1, agreed - AROUND_BYTES)).error is None
    assert Scanned(TAKEN).feed(start(offered), PREFIX.pack(3, 1, agreed - AROUND_BYTES + 1)).error


def test_a_header_that_the_brokers_own_ones_made_too_large_is_no_fault() -> None:
    header = ContentHeader(0, 1, Basic.Properties(headers={"a": "x" * LARGEST_FRAME_BYTES, OFFSET_HEADER: 4}))
    stream = start() + DELIVER + frame(header, 1) + frame(ContentBody(b"x"), 1)
    assert Scanned(TAKEN).feed(*in_pieces_of(stream, 1000)).agrees_with(understood(stream, TAKEN))


def test_why_publishing_is_blocked_is_overheard() -> None:
    scanner = FrameScanner(lambda _: None)
    scanner.feed(start() + frame(Connection.Blocked(reason="low on memory"), 0))
    assert scanner.blocked == "low on memory"
    scanner.feed(frame(Connection.Unblocked(), 0))
    assert scanner.blocked is None


# -- messages --


def delivery(given: bytes) -> Delivery:
    return Delivery(1, struct.pack(">HHQ", 60, 0, 2) + given, b"{}")


@given(properties())
def test_a_message_is_read_as_pamqp_reads_it(given: bytes) -> None:
    assert message(delivery(given)) == decoded(delivery(given))


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda raw: b"\xff\xf8" + raw)))
@example(b"\0\1" * 40)
@example(b"\x20\0\xff\xff\xff\xff" + LOOKS_LIKE_AN_OFFSET)
@example(b"\x20\0" + LOOKS_LIKE_AN_OFFSET[:-1])
def test_no_garbage_of_properties_raises(given: bytes) -> None:
    message(delivery(given))
    message(Delivery(1, given, b""))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> tuple[int, bytes]:
    """Where the first fault is, and the bytes with some faults."""
    first, raw = len(whole), bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        first = min(first, at)
        match draw(st.sampled_from(["change", "cut out", "put in", "repeat", "end"])):
            case "change":
                raw[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut out":
                del raw[at : at + draw(st.integers(1, 40))]
            case "put in":
                raw[at:at] = draw(st.binary(min_size=1, max_size=40))
            case "repeat":
                raw[at:at] = raw[max(0, at - draw(st.integers(1, 200))) : at]
            case "end":
                del raw[at:]
    return first, bytes(raw)


@given(st.data())
def test_no_damage_to_properties_raises(data: st.DataObject) -> None:
    _, given = data.draw(damaged(data.draw(properties())))
    message(delivery(given))


@pytest.mark.parametrize(
    "given",
    [
        Basic.Properties(content_type=LOOKS_LIKE_AN_OFFSET.decode(), headers={}),
        Basic.Properties(message_id=LOOKS_LIKE_AN_OFFSET.decode()),
        Basic.Properties(headers={"a": LOOKS_LIKE_AN_OFFSET.decode()}),
        Basic.Properties(headers={"a": {OFFSET_HEADER: 1 << 36}}),
        Basic.Properties(headers={"a": [{OFFSET_HEADER: 1 << 36}]}),
    ],
)
def test_what_only_looks_like_an_offset_is_none(given: Basic.Properties) -> None:
    assert message(delivery(given.marshal())) is None
    given.headers = {**(given.headers or {}), OFFSET_HEADER: 1 << 37, "z": LOOKS_LIKE_AN_OFFSET.decode()}
    read = message(delivery(given.marshal()))
    assert read is not None
    assert read.offset == 1 << 37


def test_the_offset_is_found_behind_what_is_not_known() -> None:
    table = b"\1a?" + LOOKS_LIKE_AN_OFFSET
    read = message(delivery(b"\x20\0" + struct.pack(">I", len(table)) + table))
    assert read is not None
    assert read.offset == 5


# -- garbage --


@given(streams(), uses, st.data())
def test_a_damaged_stream_is_an_error_or_passed_on_and_loses_nothing_before_the_damage(
    stream: bytes, taken: Mapping[int, Use], data: st.DataObject
) -> None:
    first, raw = data.draw(damaged(stream))
    whole, cut = Scanned(taken).feed(raw), Scanned(taken).feed(*data.draw(pieces(raw)))
    # Where it is cut changes nothing of what is delivered, nor whether it is an error.
    assert whole.taken == cut.taken
    assert str(whole.error) == str(cut.error)
    assert cut.rest.startswith(whole.rest) if whole.error else cut.rest == whole.rest
    before = Scanned(taken).feed(raw[:first])
    for channel, came in before.taken.items():
        assert whole.taken[channel][: len(came)] == came
        for each in whole.taken[channel]:
            if isinstance(each, Delivery):
                message(each)


@given(st.binary(max_size=300), st.data())
def test_random_bytes_are_an_error_or_passed_on(raw: bytes, data: st.DataObject) -> None:
    scanned = Scanned(dict.fromkeys(CHANNELS, Use.DELIVERIES)).feed(*data.draw(pieces(raw)))
    assert raw.startswith(scanned.rest)
    assert not any(scanned.taken.values())


def raw_frame(kind: int, payload: bytes, end: int = 0xCE) -> bytes:
    return PREFIX.pack(kind, 1, len(payload)) + payload + bytes([end])


FAULTS = {
    "the wrong end": raw_frame(1, b"12345", end=0xCD),
    "another language": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a frame larger than agreed": PREFIX.pack(3, 1, LARGEST_PART + 1),
    "a frame of the largest size that can be written": PREFIX.pack(1, 0, 0xFFFFFFFF),
    "a header larger than a broker makes them": PREFIX.pack(2, 1, LARGEST_PART * LARGEST_HEADER_FRAMES + 1),
    "a body longer than announced": DELIVER + frame(content_header(3), 1) + frame(ContentBody(b"four"), 1),
    "a body that is announced too large": DELIVER + frame(content_header(LARGEST_BODY_BYTES + 1), 1),
    "a body of negative size": DELIVER + frame(content_header((1 << 64) - 1), 1),
    "a short header": DELIVER + raw_frame(2, b"\0" * 13),
    "two headers": DELIVER + frame(content_header(3), 1) * 2,
    "a delivery followed by a delivery": DELIVER * 2,
    "a delivery followed by another method": DELIVER + frame(Channel.CloseOk(), 1),
    "a body that breaks off": DELIVER + frame(content_header(3), 1) + frame(Basic.QosOk(), 1),
    "an unknown frame within a delivery": DELIVER + raw_frame(9, b"?"),
    "a delivery without a tag": raw_frame(1, struct.pack(">HHB", 60, 60, 9) + b"c" * 9 + b"\0" * 7),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_what_is_not_amqp_is_an_error_at_once(fault: bytes) -> None:
    good = start() + delivered(1, b"one")
    for stream in ([good + fault], [good, *in_pieces_of(fault, 1)]):
        scanned = Scanned(TAKEN).feed(*stream)
        assert isinstance(scanned.error, FrameError)
        assert len(scanned.taken[1]) == 1


OTHERS = {
    "an unknown frame": raw_frame(9, b"?"),
    "an empty method": raw_frame(1, b""),
    "an unknown method": raw_frame(1, b"\xff" * 9),
    "a header that belongs to nothing": frame(content_header(3), 1),
    "a body that belongs to nothing": frame(ContentBody(b"body"), 1),
    "an ack": frame(Basic.Ack(1), 1),
    "a delivery on a channel that nobody has": DELIVER.replace(b"\1\0\1", b"\1\0\5", 1) * 2,
    "a body of the largest size": raw_frame(3, b"x" * LARGEST_PART),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=list(OTHERS))
def test_what_is_not_ours_to_judge_is_passed_on(other: bytes) -> None:
    scanned = Scanned(TAKEN).feed(start() + other, other + delivered(1, b"one"))
    assert (scanned.error, scanned.rest) == (None, start() + other * 2)
    assert len(scanned.taken[1]) == 1


@pytest.mark.parametrize("part", [b"", b"xy"])
def test_no_number_of_frames_takes_more_memory_than_the_body(part: bytes) -> None:
    scanned = Scanned(TAKEN).feed(start(), DELIVER, frame(content_header(LARGEST_BODY_BYTES), 1))
    piece = raw_frame(3, part) * 1000
    tracemalloc.start()
    try:
        for _ in range(60):
            scanned.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scanned.error is None
    assert peak < 2 * 60_000 * len(part) + 100_000


def test_a_frame_in_many_pieces_takes_no_more_memory_than_some_frames() -> None:
    scanned = Scanned(TAKEN).feed(start())
    tracemalloc.start()
    try:
        for piece in in_pieces_of(delivered(1, b"x" * LARGEST_PART), 100):
            scanned.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(scanned.taken[1]) == 1
    assert peak < 5 * LARGEST_FRAME_BYTES
