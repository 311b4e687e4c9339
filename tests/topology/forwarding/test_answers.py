from __future__ import annotations

import pytest

from topology.forwarding.vendor import Answer

#: 2026-11-24 10:00:00 UTC.
ANSWERED_MS = 1_795_514_400_000


def answer(body: bytes = b"", **headers: str) -> Answer:
    return Answer(
        status=503,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body,
        received_ms=ANSWERED_MS,
    )


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ("0", 0),
        (" 40 ", 40),
        ("99999999999999999999", 3600),  # nobody waits longer than an hour
        ("Tue, 24 Nov 2026 10:00:40 GMT", 40),
        ("Tuesday, 24-Nov-26 10:00:40 GMT", 40),
        ("Tue Nov 24 10:00:40 2026", 40),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0),  # it has passed
        ("Tue, 24 Nov 2099 10:00:00 GMT", 3600),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("Tue, 99 Nov 2026 10:00:40 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(stated: str, seconds: float | None) -> None:
    assert answer(retry_after=stated).retry_after_s == seconds


def test_nothing_is_asked_without_it() -> None:
    assert answer().retry_after_s is None


def test_a_date_is_by_the_clock_of_whoever_wrote_it() -> None:
    # Its clock is an hour before ours: 40 s are meant, not 0.
    said = answer(retry_after="Tue, 24 Nov 2026 09:00:40 GMT", date="Tue, 24 Nov 2026 09:00:00 GMT")
    assert said.retry_after_s == 40


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"Invalid  API\\nkey"}', "503 (Invalid API key)"),
        (b"", "503"),
        (b"\x1b[31mred", "503 (?[31mred)"),  # no terminal is told what to do by a vendor
        (b"x" * 5000, f"503 ({'x' * 300}…)"),
        (b"[" * 100_000, f"503 ({'[' * 300}…)"),
    ],
)
def test_an_answer_is_told_in_a_short_line(body: bytes, words: str) -> None:
    assert answer(body).words == words
