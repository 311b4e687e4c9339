"""Ports for those who cannot take any that the kernel gives them: servers of other programs, and what starts again at
the same address."""

from __future__ import annotations

import os
import random
import socket

LOOPBACK = "127.0.0.1"
#: Below those that the kernel hands out by itself (ip_local_port_range): else a port on which nothing listens yet, or
#: for the moment, could be given to whoever binds or connects meanwhile.
FIRST, BEHIND_LAST = 20_000, 32_000
# Where tests run in several processes, each has ports of its own; of several runs on one machine, each begins somewhere
# else.
_STEP = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OWN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_next = random.Random().randrange(FIRST, BEHIND_LAST) // _STEP * _STEP + _OWN


def unused_port() -> int:
    """A TCP port on which nothing listens, another one at each call."""
    global _next
    while True:
        port, _next = _next, _next + _STEP
        if _next >= BEHIND_LAST:
            _next = FIRST // _STEP * _STEP + _STEP + _OWN
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
