"""`make bench`, or one part of it: `python -m bench reading`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from bench import embedded, forwarding, ingest, limits, page, queries, rabbitmq

PARTS: Mapping[str, Callable[[], object]] = {
    "reading": rabbitmq.reading,
    "publishing": rabbitmq.publishing,
    "latency": rabbitmq.latency,
    "archive": rabbitmq.archive,
    "embedded": embedded.main,
    "limits": limits.main,
    "ingest": ingest.main,
    "forwarding": forwarding.main,
    "queries": queries.main,
    "page": page.main,
}

names = sys.argv[1:] or list(PARTS)
for name in names:
    if name not in PARTS:
        raise SystemExit(f"bench: there is no part {name}: choose of {', '.join(PARTS)}")
for name in names:
    PARTS[name]()
