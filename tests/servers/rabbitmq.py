"""A RabbitMQ node of the test session: private, on loopback only, and free to be stopped or killed. It listens
with TLS, too, behind a certificate of an authority that nobody else knows.

It is Debian's server, started as itself: the wrapper in ``/usr/sbin`` would change the user. Name, ports,
cookie, folders and port mapper are its own, so it meets no other node of this machine.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.ports import unused_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CTL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
LOOPBACK = "127.0.0.1"
#: Seconds. A cold start takes 4 to 8 on two cores; a busy machine may need many times that.
START_LIMIT_S = 150.0
STOP_LIMIT_S = 60.0
CTL_LIMIT_S = 150.0
#: Few enough bytes that the node starts on any machine, more than the tests need.
MEMORY_LIMIT = "1GB"
VHOSTS_AT_A_TIME = 10


class RabbitNode:
    """The node. ``start`` returns when it takes connections; ``stop`` and ``kill`` keep its data."""

    def __init__(self, folder: Path, *settings: str, plugins: Sequence[str] = ()) -> None:
        """``settings``: more lines of rabbitmq.conf."""
        self._folder = folder
        self.port, self.tls_port, distribution, self._mapper_port, tool = (unused_port() for _ in range(5))
        #: The certificate of the authority behind the one that the TLS listener shows.
        self.authority = folder / "authority.pem"
        self._mapper: _Process | None = None
        self._server: _Process | None = None
        self._vhosts: list[str] = []
        self._numbers = itertools.count(1)
        (folder / "home").mkdir()
        (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            f"listeners.ssl.1 = {LOOPBACK}:{self.tls_port}\n"
            f"{_certified(folder, self.authority)}"
            f"vm_memory_high_watermark.absolute = {MEMORY_LIMIT}\n"
            "disk_free_limit.absolute = 1MB\n" + "".join(f"{line}\n" for line in settings)
        )
        on_loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),  # of the cookie
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": f"eventsink{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            # These two do not exist; those of the machine must not be read in their stead.
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": on_loopback,
            "RABBITMQ_CTL_ERL_ARGS": on_loopback,
            "RABBITMQ_CTL_DIST_PORT_MIN": str(tool),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(tool + 9),
            # The script then becomes the node itself: its process is the one to be signalled.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def url(self, vhost: str = "%2F", *, user: str = "guest", password: str = "guest") -> str:
        """Where the node listens."""
        return f"amqp://{user}:{password}@{LOOPBACK}:{self.port}/{vhost}"

    def tls_url(self, vhost: str = "%2F") -> str:
        """Where it listens with TLS."""
        return f"amqps://guest:guest@{LOOPBACK}:{self.tls_port}/{vhost}"

    @property
    def words(self) -> str:
        """Everything that it has logged so far."""
        return "".join(
            path.read_text(errors="replace") for path in sorted((self._folder / "log").glob("*@*.log"))
        )

    @property
    def pid(self) -> int:
        """The process of the running node."""
        assert self._server is not None, "the node is not running"
        return self._server.pid

    def start(self) -> None:
        """Start unless it runs. Fails with the node's own words when it does not come up."""
        if self._server is not None:
            return
        for program in (SERVER, CTL):
            if not program.exists():
                pytest.fail(f"{program} is missing: `make test` installs the package rabbitmq-server")
        if self._mapper is None:
            # In the foreground and ours: the one that the node starts itself would outlive it.
            self._mapper = self._spawn("epmd", "-port", str(self._mapper_port), "-address", LOOPBACK)
        self._server = self._spawn(str(SERVER))
        self._wait_until_ready(self._server)

    def stop(self) -> None:
        """End in good order, as a package upgrade does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``."""
        self._end(signal.SIGKILL)

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` prints; about half a second each."""
        ran = subprocess.run(
            [CTL, "--quiet", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CTL_LIMIT_S,
            check=False,
        )
        if ran.returncode != 0:
            pytest.fail(f"rabbitmqctl {' '.join(arguments)}: {ran.stderr or ran.stdout}")
        return ran.stdout

    def fresh_vhost(self) -> str:
        """A virtual host that nobody has used. Some are made at a time: the tool takes longer than they do."""
        if not self._vhosts:
            vhosts = [f"test{next(self._numbers)}" for _ in range(VHOSTS_AT_A_TIME)]
            made = ", ".join(
                f'ok = rabbit_vhost:add(<<"{vhost}">>, <<"tests">>), '
                f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{vhost}">>, '
                '<<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
                for vhost in vhosts
            )
            self.ctl("eval", f"{made}.")
            self._vhosts = vhosts
        return self._vhosts.pop(0)

    def end(self) -> None:
        """End everything that was started here."""
        self.kill()
        mapper, self._mapper = self._mapper, None
        if mapper is not None:
            mapper.end(signal.SIGKILL)

    def _spawn(self, *command: str) -> _Process:
        return _Process(command, self._environment, self._folder / "output")

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end(how)

    def _wait_until_ready(self, server: _Process) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if not server.runs:
                break
            try:
                with socket.create_connection((LOOPBACK, self.port), timeout=5) as connection:
                    connection.sendall(b"AMQP\x00\x00\x09\x01")
                    if connection.recv(1):
                        return
            except OSError:
                pass  # not listening yet
            time.sleep(0.05)
        output = (self._folder / "output").read_text(errors="replace")[-4000:]
        self.kill()
        pytest.fail(f"RabbitMQ did not start within {START_LIMIT_S:.0f} s:\n{output}")


class _Process:
    """A process that does not outlive this one, even where this one is killed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then ends us
            )
        # It waits for the end of its input, which is the end of this process.
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", "read line; kill -9 $0", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self, how: signal.Signals) -> None:
        self._guardian.kill()
        self._guardian.communicate()
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)


class Broker(NamedTuple):
    """A virtual host of its own for one test, with the names that the test is to declare."""

    node: RabbitNode
    vhost: str
    exchange: str
    queue: str

    @property
    def url(self) -> str:
        return self.node.url(self.vhost)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitNode]:
    """The node, started when the first test asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="eventsink-rabbitmq-"))
    node = RabbitNode(folder)
    try:
        node.start()
        yield node
    finally:
        node.end()
        shutil.rmtree(folder, ignore_errors=True)


class Managed(NamedTuple):
    """A node with the management API, which is at ``url``."""

    node: RabbitNode
    url: str


@pytest.fixture(scope="session")
def managed_rabbitmq() -> Iterator[Managed]:
    """A node of its own: with the plugin, a node takes seconds longer to start and to end."""
    folder = Path(tempfile.mkdtemp(prefix="eventsink-rabbitmq-"))
    port = unused_port()
    node = RabbitNode(
        folder,
        f"management.tcp.ip = {LOOPBACK}",
        f"management.tcp.port = {port}",
        "collect_statistics_interval = 200",  # milliseconds between two counts of a queue
        plugins=["rabbitmq_management"],
    )
    try:
        node.start()
        yield Managed(node, f"http://{LOOPBACK}:{port}")
    finally:
        node.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker(rabbitmq: RabbitNode) -> Broker:
    """A fresh virtual host on the node, which runs again if an earlier test left it stopped."""
    rabbitmq.start()
    return Broker(rabbitmq, rabbitmq.fresh_vhost(), "clowder.metrics", "eventsink.log")


def _certified(folder: Path, authority: Path) -> str:
    """Makes an authority and a certificate by it; returns the configuration of whoever is to show that."""
    made = trustme.CA()
    made.cert_pem.write_to_path(authority)
    certificate = made.issue_cert(LOOPBACK)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(folder / "certificate.pem", append=number > 0)
    return (
        f"ssl_options.cacertfile = {authority}\n"
        f"ssl_options.certfile = {folder / 'certificate.pem'}\n"
        f"ssl_options.keyfile = {folder / 'key.pem'}\n"
    )
