"""A platform that is made up: users, files, extractors and monitors, whose events come at random and fit together.

Nothing here reads a clock. The same randomness and the same times give the same events.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple, TypeAlias

from schemas.times import rfc3339_with_milliseconds

Json: TypeAlias = dict[str, Any]

SOURCE = "demo"
USERS = 60
SPACES = 8
REGIONS = ("eu", "us")
SERVICES = ("clowder", "api")

#: How often users do what, of all that they do.
HABITS = {
    "page": 40,
    "view": 25,
    "download": 12,
    "upload": 10,
    "log_in": 7,
    "delete": 3,
    "create": 2,
    "sign_up": 1,
}
PAGE_BYTES = 48_000


class Extractor(NamedTuple):
    """How long it runs as a rule, in seconds, and how often it fails."""

    name: str
    runtime_s: float
    failing: float


EXTRACTORS = (
    Extractor("ncsa.image.preview", 2, 0.01),
    Extractor("ncsa.image.metadata", 1, 0.0),
    Extractor("ncsa.pdf.preview", 6, 0.03),
    Extractor("ncsa.video.preview", 45, 0.08),
)

Act: TypeAlias = Callable[[int], Iterator[Json]]


class Platform:
    """What happens, as time goes on from ``began_ms``. Users do ``rate`` things a second on average."""

    def __init__(self, random: Random, *, began_ms: int, rate: float) -> None:
        self._random = random
        self._rate = rate
        self._due: list[tuple[int, int, Act]] = []
        self._numbers = itertools.count()
        #: (file, space, bytes) of files that are there.
        self._files: list[tuple[str, str, int]] = []
        #: Until when a service is down in a region.
        self._down_until: dict[tuple[str, str], int] = {}
        self._later(began_ms, self._user_acts)
        for service in SERVICES:
            for region in REGIONS:
                self._later(began_ms, self._watching(service, region))

    def until(self, now_ms: int) -> list[Json]:
        """Everything that has happened by ``now_ms`` since the last call, in order."""
        events: list[Json] = []
        while self._due and self._due[0][0] <= now_ms:
            at_ms, _, act = heapq.heappop(self._due)
            time = rfc3339_with_milliseconds(at_ms)
            events += [{"time": time, "source": SOURCE, **event} for event in act(at_ms)]
        return events

    def _later(self, at_ms: int, act: Act) -> None:
        heapq.heappush(self._due, (at_ms, next(self._numbers), act))

    def _after(self, at_ms: int, seconds: float, act: Act) -> None:
        self._later(at_ms + max(1, round(seconds * 1000)), act)

    # -- users --

    def _user_acts(self, at_ms: int) -> Iterator[Json]:
        self._after(at_ms, self._random.expovariate(self._rate), self._user_acts)
        (habit,) = self._random.choices(list(HABITS), list(HABITS.values()))
        # A few users do most.
        user = f"user-{min(USERS, 1 + int(self._random.expovariate(4 / USERS))):02}"
        match habit:
            case "page":
                yield {"type": "traffic.page_viewed", "url": "/spaces", "user_id": user}
            case "log_in":
                yield {"type": "activity.logged_in", "user_id": user}
            case "sign_up":
                yield {"type": "activity.signed_up", "user_id": user}
            case "create":
                yield {
                    "type": "activity.resource_created",
                    "resource_type": "dataset",
                    "resource_id": self._name("dataset"),
                    "space_id": self._space(),
                    "user_id": user,
                }
            case "upload":
                yield self._upload(at_ms, user)
            case _ if not self._files:
                yield self._upload(at_ms, user)  # the first thing that can be done with files
            case "delete":
                file, space, size = self._files.pop(self._random.randrange(len(self._files)))
                yield {
                    "type": "storage.file_deleted",
                    "file_id": file,
                    "space_id": space,
                    "bytes": size,
                    "user_id": user,
                }
            case "view" | "download":
                file, space, size = self._random.choice(self._files)
                seen: Json = {
                    "resource_type": "file",
                    "resource_id": file,
                    "space_id": space,
                    "user_id": user,
                }
                if habit == "view":
                    yield {"type": "traffic.resource_viewed", **seen}
                else:
                    yield {"type": "traffic.resource_downloaded", **seen, "bytes": size}

    def _upload(self, at_ms: int, user: str) -> Json:
        file, space = self._name("file"), self._space()
        size = int(self._random.lognormvariate(14, 1.8))  # about a megabyte, now and then a hundred
        self._files.append((file, space, size))
        for extractor in self._random.sample(EXTRACTORS, k=self._random.choice((1, 2))):
            self._after(at_ms, 0.05, self._job(extractor, file))
        return {
            "type": "storage.file_uploaded",
            "file_id": file,
            "space_id": space,
            "bytes": size,
            "user_id": user,
        }

    def _space(self) -> str:
        return f"space-{min(SPACES, 1 + int(self._random.expovariate(0.5)))}"

    def _name(self, kind: str) -> str:
        return f"{kind}-{self._random.getrandbits(48):012x}"

    # -- extractors --

    def _job(self, extractor: Extractor, file: str) -> Act:
        job: Json = {
            "job_id": self._name("job"),
            "extractor": extractor.name,
            "resource_type": "file",
            "resource_id": file,
        }
        wait_s = self._random.expovariate(1 / 1.5)
        runtime_s = extractor.runtime_s * self._random.lognormvariate(0, 0.5)
        end = "failed" if self._random.random() < extractor.failing else "succeeded"

        def ends(at_ms: int) -> Iterator[Json]:
            yield {"type": f"extraction.{end}", **job}

        def starts(at_ms: int) -> Iterator[Json]:
            self._after(at_ms, runtime_s, ends)
            yield {"type": "extraction.started", **job}

        def submitted(at_ms: int) -> Iterator[Json]:
            self._after(at_ms, wait_s, starts)
            yield {"type": "extraction.submitted", **job}

        return submitted

    # -- monitors --

    def _watching(self, service: str, region: str) -> Act:
        """A monitor that looks at a service twice a minute."""
        place = (service, region)

        def looks(at_ms: int) -> Iterator[Json]:
            self._after(at_ms, 30, looks)
            if at_ms >= self._down_until.get(place, 0) and self._random.random() < 0.004:
                self._break(at_ms, service)
            up = at_ms >= self._down_until.get(place, 0)
            where: Json = {"service": service, "region": region}
            ping: Json = {"type": "health.pinged", **where, "check": "ping", "up": up, "valid_for_s": 90}
            page: Json = {"type": "health.page_fetched", **where, "up": up, "valid_for_s": 90}
            if up:
                fast = self._random.uniform(8, 20) * (1 if region == "eu" else 6)
                ping["response_ms"] = {"min": fast, "avg": fast * 1.1, "max": fast * 1.5}
                page |= {
                    "status": 200,
                    "bytes": PAGE_BYTES + self._random.randrange(2000),
                    "elapsed_ms": fast * self._random.uniform(4, 9),
                }
            yield ping
            yield page
            yield {
                "type": "health.connections_counted",
                **where,
                "connections": self._random.randrange(5, 60),
                "period_s": 30,
            }
            if region == REGIONS[0]:
                waiting = len(self._due) - len(SERVICES) * len(REGIONS)
                yield {
                    "type": "health.queue_measured",
                    "service": service,
                    "queue": "extractors",
                    "messages": max(0, waiting),
                }

        return looks

    def _break(self, at_ms: int, service: str) -> None:
        """An outage of some minutes: half of them everywhere, the others in one region."""
        until_ms = at_ms + round(self._random.uniform(60, 300) * 1000)
        everywhere = self._random.random() < 0.5
        for region in REGIONS if everywhere else (self._random.choice(REGIONS),):
            self._down_until[(service, region)] = until_ms
