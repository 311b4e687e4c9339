"""What takes too long for `make test`: `make soak`.

A million events through the embedded default, with the memory of the process held under its limit.
"""

from __future__ import annotations

from bench import embedded

EVENTS = 1_000_000
MOST_MIB = 200

resident = embedded.main(EVENTS)
if resident > MOST_MIB:
    raise SystemExit(f"{resident:.0f} MiB resident, more than {MOST_MIB}")
