"""Ids of our own producers: sortable by time, unique without coordination."""

from __future__ import annotations

import os

_RANDOM_B = (1 << 62) - 1


def uuid7(unix_ms: int) -> str:
    """A UUID of version 7 for this instant (https://www.rfc-editor.org/rfc/rfc9562#section-5.7).

    48 bits of epoch milliseconds, 74 random bits around version and variant.
    """
    random = int.from_bytes(os.urandom(10)) >> 6
    value = (unix_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 62) << 64
    # Written here: uuid.UUID checks at each what is right by construction, and costs more than all else.
    text = f"{value | 0b10 << 62 | random & _RANDOM_B:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
