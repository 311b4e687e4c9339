"""Messages of the log as AMQP carries them."""

from __future__ import annotations

from datetime import UTC, datetime

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldValue

from topology.log import ID_HEADER, RECEIVED_HEADER, Message, Outgoing

#: Where a stream says which message this is.
OFFSET_HEADER = "x-stream-offset"

PERSISTENT = 2

#: The end of the year 9999. No arrival is later; a number beyond it is something else.
LATEST_MS = 253_402_300_799_999


def properties(message: Outgoing) -> Basic.Properties:
    """The properties under which a message is published."""
    headers: dict[str, FieldValue] = {}
    timestamp = None
    if message.event_id is not None:
        headers[ID_HEADER] = message.event_id
    if message.received_ms is not None:
        headers[RECEIVED_HEADER] = message.received_ms
        # For other people's consumers, who know no header of ours.
        timestamp = datetime.fromtimestamp(message.received_ms // 1000, UTC)
    return Basic.Properties(
        content_type=message.content_type,
        delivery_mode=PERSISTENT,
        headers=headers,
        timestamp=timestamp,
    )


def delivered(delivery: DeliveredMessage) -> Message | None:
    """The message of a delivery from a stream; None if it has no offset, so is not from a stream.

    A producer may put anything into headers and properties: what is not as it should be counts as left out.
    """
    given = delivery.header.properties
    headers = given.headers or {}
    offset = headers.get(OFFSET_HEADER)
    if not isinstance(offset, int):
        return None
    event_id = headers.get(ID_HEADER)
    received_ms = headers.get(RECEIVED_HEADER)
    if isinstance(received_ms, bool) or not (isinstance(received_ms, int) and 0 <= received_ms <= LATEST_MS):
        stamp = given.timestamp  # AMQP's own, in seconds
        received_ms = int(stamp.timestamp() * 1000) if isinstance(stamp, datetime) else None
    return Message(
        offset,
        delivery.body,
        given.content_type or None,
        event_id if isinstance(event_id, str) and event_id else None,
        received_ms,
    )
