"""The certificate of the web application: shown where it is right, one line and 2 where it is not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from cli.main import eventsink
from tests.processes import Instance
from web.last_used import LastUsed


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    """Files of a certificate for localhost and its key."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def missing(cert: Path, key: Path) -> str:
    key.unlink()
    return "EVENTSINK_TLS_KEY"


def no_pem(cert: Path, key: Path) -> str:
    cert.write_text("no certificate")
    return "EVENTSINK_TLS_CERT"


def swapped(cert: Path, key: Path) -> str:
    held = cert.read_bytes()
    cert.write_bytes(key.read_bytes())
    key.write_bytes(held)
    return "EVENTSINK_TLS_CERT"


def key_of_another(cert: Path, key: Path) -> str:
    key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    return "key values mismatch"


def with_a_password(cert: Path, key: Path) -> str:
    held = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        held.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    )
    return "password"


@pytest.mark.parametrize("command", ["web", "up"])
@pytest.mark.parametrize("spoil", [missing, no_pem, swapped, key_of_another, with_a_password])
def test_a_wrong_file_is_one_line_and_2(
    tmp_path: Path, pair: tuple[Path, Path], command: str, spoil: Callable[[Path, Path], str]
) -> None:
    words = spoil(*pair)
    environment = {"EVENTSINK_TLS_CERT": str(pair[0]), "EVENTSINK_TLS_KEY": str(pair[1])}
    data = tmp_path / "data"
    result = CliRunner(env=environment).invoke(eventsink, [command, "--port", "0", "--data", str(data)])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not data.exists()


def test_check_looks_at_the_certificate(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    environment = {"EVENTSINK_TLS_CERT": str(pair[0]), "EVENTSINK_TLS_KEY": str(pair[1])}
    runner = CliRunner(env=environment)
    assert runner.invoke(eventsink, ["check", "--data", str(tmp_path)]).exit_code == 0
    pair[1].unlink()
    result = runner.invoke(eventsink, ["check", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "EVENTSINK_TLS_KEY" in result.stderr


@pytest.mark.processes
async def test_web_serves_https_with_limits_and_remembers_who_came(
    authority: trustme.CA, tmp_path: Path, pair: tuple[Path, Path], free_port: Callable[[], int]
) -> None:
    instance = Instance(
        tmp_path,
        {
            "EVENTSINK_TLS_CERT": str(pair[0]),
            "EVENTSINK_TLS_KEY": str(pair[1]),
            "EVENTSINK_KEY_RATE": "1",
            "EVENTSINK_KEY_BURST": "2",
        },
    )
    made = await instance.run("keys", "create", "--name", "monitor", "--scopes", "events")
    port = free_port()
    service = await instance.begin("web", port)
    try:
        while f"the page is at https://127.0.0.1:{port}/" not in service.output:
            assert service.process.returncode is None, service.output
            await asyncio.sleep(0.02)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with ClientSession() as session:
            statuses = []
            for _ in range(3):
                async with session.post(
                    f"https://127.0.0.1:{port}/v1/events",
                    ssl=context,
                    headers={"API-KEY": made.out.strip()},
                    json={"type": "activity.logged_in", "user_id": "u"},
                ) as answer:
                    statuses.append(answer.status)
            assert statuses == [202, 202, 429]
    finally:
        await service.stop()
    assert len(LastUsed(tmp_path / "data" / "keys.json").read()) == 1
