"""Programs in a network of their own, in which what should not answer does not: Linux network namespaces.

Where none can be made (no root, and no user namespaces), the tests fail: nothing else shows what they are to show.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.processes import STARTED

ROOT = Path(__file__).parents[2]
#: Packets to this network come back in on the loopback device, are for nobody, and are dropped without a word.
SILENT_NETWORK = "ip addr add 10.99.0.1/32 dev lo && ip route add 10.99.0.0/24 dev lo"
LOOPBACK = "ip link set lo up"
SILENT_ADDRESS = "10.99.0.2"
#: Root, as namespaces need it, without the right to open raw sockets.
WITHOUT_RAW = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
#: Names are asked of a server that keeps silent, for two minutes; one is known without it.
KNOWN_NAME = "known.invalid"
SILENT_NAME_SERVER = (
    "printf 'nameserver 10.99.0.2\\noptions timeout:30 attempts:5\\n' > resolv.conf"
    " && mount --bind resolv.conf /etc/resolv.conf"
    f" && echo 127.0.0.1 {KNOWN_NAME} > hosts && mount --bind hosts /etc/hosts"
)
ALLOW_UNPRIVILEGED = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range"
_OWN = ("unshare", "--net", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


async def begun_in_namespace(
    setup: Sequence[str], module: str, *arguments: str, prefix: Sequence[str] = (), folder: Path = ROOT
) -> asyncio.subprocess.Process:
    """Start `python -m MODULE` in a new network and in ``folder``, after these shell commands."""
    script = " && ".join([*setup, 'exec "$@"'])
    process = await asyncio.create_subprocess_exec(
        *_OWN,
        "sh",
        "-c",
        script,
        "sh",
        *prefix,
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    STARTED.append(process)
    return process


async def its_end(process: asyncio.subprocess.Process) -> Ended:
    """Wait for its end."""
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def in_namespace(
    setup: Sequence[str], module: str, *arguments: str, prefix: Sequence[str] = (), folder: Path = ROOT
) -> Ended:
    """As ``begun_in_namespace``, to its end."""
    return await its_end(await begun_in_namespace(setup, module, *arguments, prefix=prefix, folder=folder))
