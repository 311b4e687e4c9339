"""Rebuilding: windows computed anew from the archive, by the owner of their group, while it works.

A rebuild is a request in the store of rows. The owner folds the archived events of the range into rows that begin
empty, with the very operators that live events go through, and puts them in the place of the rows that there are:
between two batches, once the archive has everything that the rows have. What cannot be computed anew is left alone: a
window that has more events in it than the archive holds.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import Literal

import msgspec

from topology.errors import Refused
from topology.parts import GroupParts
from topology.rebuild.differences import MOST_TOLD
from topology.rebuild.recomputing import Owner, ReadAgain, Rebuild, Work
from topology.state import Request

log = logging.getLogger(__name__)

#: A finished request that nobody has fetched goes after this.
FORGOTTEN_AFTER_MS = 24 * 3600 * 1000


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is. ``generation`` of the owner that carries it out, ``told_ms``: when; ``part``: of the range, 0 to
    1. ``changed`` counts rows that are other than before (with ``check``: would be), ``left_alone`` those that were
    not touched; ``differences`` and ``refused`` describe the first of either, when it is over."""

    status: Literal["running", "done", "failed"]
    generation: int
    told_ms: int
    part: float = 0.0
    events: int = 0
    windows: int = 0
    changed: int = 0
    differences: tuple[str, ...] = ()
    left_alone: int = 0
    refused: tuple[str, ...] = ()
    said: str = ""

    @property
    def over(self) -> bool:
        return self.status != "running"


def progress(request: Request) -> Progress | None:
    """How far a request is; None where nobody has taken it yet."""
    return msgspec.json.decode(request.state, type=Progress) if request.state else None


class Rebuilding:
    """Carries out the requests of one group."""

    def __init__(self, owner: Owner, parts: GroupParts) -> None:
        self._owner = owner
        self._parts = parts

    async def carry_out_all(self) -> None:
        """All requests that are open. Waits while a store is away."""
        store, outages = self._parts.store, self._parts.outages
        for request in await outages.ridden_out("state", lambda: store.requests(self._owner.name)):
            known = progress(request)
            if known is None or not known.over:
                await self._carry_out(request)
            elif self._parts.clock_ms() - known.told_ms > FORGOTTEN_AFTER_MS:
                await outages.ridden_out("state", lambda: store.delete_request(request.id))  # noqa: B023 - at once

    async def _carry_out(self, request: Request) -> None:
        try:
            asked = _asked(request)
        except msgspec.DecodeError as error:
            # Of another version, perhaps. It would end every worker that starts.
            await self._tell(
                request, self._progress("failed", said=f"what is asked is not understood: {error}")
            )
            return
        rollup = self._owner.rollups.get(asked.rollup)
        if rollup is None:
            said = f"group {self._owner.name} has no rollup {asked.rollup}"
            await self._tell(request, self._progress("failed", said=said))
            return
        told = await self._tell(request, self._progress("running"))
        work = Work(self._owner, self._parts, rollup, asked)
        try:
            async with aclosing(work.steps()) as steps:
                async for part in steps:
                    if told is not None:
                        told = await self._tell(told, self._progress("running", work, part=part))
                    if told is None:
                        return  # whoever asked has taken it back, or another owner has taken it over
            if not asked.check:
                await self._owner.checkpoint()
                work.still_holds()
                await self._owner.delivered()
        except Refused as error:
            outcome = self._progress("failed", work, part=1.0, said=str(error))
        except ReadAgain:
            return  # rows changed under us: the next round begins it anew
        else:
            outcome = self._progress("done", work, part=1.0)
            log.info(
                "%s %s from %d archived events: %d of %d rows changed, %d left alone",
                "compared" if asked.check else "rebuilt",
                asked.rollup,
                outcome.events,
                outcome.changed,
                outcome.windows,
                outcome.left_alone,
            )
        if told is not None:
            await self._tell(told, outcome)

    def _progress(
        self,
        status: Literal["running", "done", "failed"],
        work: Work | None = None,
        *,
        part: float = 0.0,
        said: str = "",
    ) -> Progress:
        generation, now_ms = self._owner.generation, self._parts.clock_ms()
        if work is None:
            return Progress(status=status, generation=generation, told_ms=now_ms, said=said)
        found = work.found
        return Progress(
            status=status,
            generation=generation,
            told_ms=now_ms,
            part=part,
            events=work.events,
            windows=found.windows,
            changed=found.changed,
            # Told at its end: they may be many, and progress is written often.
            differences=() if status == "running" else tuple(found.told),
            left_alone=len(found.refused),
            refused=() if status == "running" else tuple(found.refused[:MOST_TOLD]),
            said=said,
        )

    async def _tell(self, request: Request, now: Progress) -> Request | None:
        """The request as it is stored now; None where it is not ours any more."""
        changed = msgspec.structs.replace(
            request, state=msgspec.json.encode(now), version=request.version + 1
        )
        store = self._parts.store
        saved = await self._parts.outages.ridden_out(
            "state", lambda: store.save_request(changed, expected=request.version)
        )
        return changed if saved else None


def _asked(request: Request) -> Rebuild:
    return msgspec.json.decode(request.what, type=Rebuild)
