"""One check of a ping probe, as a program: `python -m tests.monitors.pinging HOST SETTINGS`, run in a namespace.

Prints the result as JSON, with the kind of socket that was opened.
"""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec

from monitors.ping import PingProbe, PingSettings
from monitors.probe import Surroundings

if __name__ == "__main__":
    settings = msgspec.convert(
        {"service": "clowder", "host": sys.argv[1], **json.loads(sys.argv[2])}, PingSettings
    )
    probe = PingProbe(settings, Surroundings())
    json.dump(asyncio.run(probe.check()), sys.stdout)
