"""Ids of our own producers: sortable by time, unique without coordination."""

from __future__ import annotations

import os

_RANDOM_B = (1 << 62) - 1
_BYTES = 10
#: Ids for which the system is asked for random bytes at once: a call of it costs more than the rest of an id.
_AT_ONCE = 256

_unused: list[bytes] = []
# Two processes must not go on with the same ones.
os.register_at_fork(after_in_child=_unused.clear)


def uuid7(unix_ms: int) -> str:
    """A UUID of version 7 for this instant (https://www.rfc-editor.org/rfc/rfc9562#section-5.7).

    48 bits of epoch milliseconds, 74 random bits around version and variant.
    """
    random = int.from_bytes(_random()) >> 6
    value = (unix_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 62) << 64
    # Written here: uuid.UUID checks at each what is right by construction, and costs more than all else.
    text = f"{value | 0b10 << 62 | random & _RANDOM_B:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _random() -> bytes:
    # Threads may ask at the same time: each takes what no other one gets.
    try:
        return _unused.pop()
    except IndexError:
        drawn = os.urandom(_BYTES * _AT_ONCE)
        _unused.extend(drawn[at : at + _BYTES] for at in range(_BYTES, len(drawn), _BYTES))
        return drawn[:_BYTES]
