"""Dead letters once more: published again as they came, and forgotten when that is certain.

    ① still refused?      then publishing would only make another letter: it is kept
      still to be read?   a group that has not saved a position past it reads the message itself, and would read it
                          twice: it is kept
    ② published           with its bytes, its arrival, and an id that is always the same for this letter
    ③ confirmed           durable in the log
    ④ forgotten

A death between ② and ④ leaves the letter; who retries it again publishes a message that is recognised as the same one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.reading import Refusal, read
from topology.log import JSON, Outgoing
from topology.sinks import DeadLetter, DeadLetters
from topology.state import GroupState

PAGE_LETTERS = 100


@dataclass(slots=True)
class Outcome:
    """What became of the letters: how many were published again, and of those that were kept the id and the reason."""

    published: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)


async def all_letters(letters: DeadLetters) -> AsyncIterator[Sequence[DeadLetter]]:
    """All letters that there are, a page at a time: their bodies need not fit into memory. They may be removed
    meanwhile."""
    before = None
    while page := await letters.list(limit=PAGE_LETTERS, before=before):
        yield page
        before = (page[-1].position, page[-1].agent, page[-1].id)


async def retry(
    page: Sequence[DeadLetter],
    letters: DeadLetters,
    groups: Mapping[str, GroupState],
    publish: Callable[[Sequence[Outgoing]], Awaitable[None]],
    outcome: Outcome,
) -> None:
    """Retry these letters. ``groups``: where those that may still read the letters' messages are, read after the
    letters were; empty to retry in spite of them. ``publish`` returns when all are durable. Raises what it raises; then
    all are kept."""
    good: list[DeadLetter] = []
    for letter in page:
        reason = _why_kept(letter) or _who_reads_it(letter, groups)
        if reason is None:
            good.append(letter)
        else:
            outcome.kept.append((letter.id, reason))
    if good:
        await publish([_outgoing(letter) for letter in good])
        await letters.remove([letter.id for letter in good])
        outcome.published += len(good)


def _outgoing(letter: DeadLetter) -> Outgoing:
    return Outgoing(letter.body, JSON, f"dead-{letter.id}-{letter.sha256[:16]}", letter.received)


def _why_kept(letter: DeadLetter) -> str | None:
    """Why the letter cannot be published again, None if it can."""
    if letter.agent:
        # The event itself is in the log, and the others have counted it: published again it would count twice.
        return f"only {letter.agent} could not take it, all others have counted it"
    if letter.length != len(letter.body):
        return f"only its first {len(letter.body):,} of {letter.length:,} bytes were kept"
    found = read(letter.body)
    if isinstance(found, Refusal):
        at = f" at {found.pointer}" if found.pointer else ""
        return f"it would be refused again: {found.reason}{at}"
    return None


def _who_reads_it(letter: DeadLetter, groups: Mapping[str, GroupState]) -> str | None:
    """Why the letter is not to be published yet, None if it may be. What lies behind the saved position of every agent
    is not read again: a position never turns back."""
    for name, group in groups.items():
        if any(reached < letter.position for reached in group.positions.values()):
            return (
                f"group {name} is still to read its message, and would count it twice: try again when it has "
                "(--force if it never will)"
            )
    return None
