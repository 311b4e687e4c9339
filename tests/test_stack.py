"""The local stack fits the program. No test can start it, so what it says is held against the code."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from aiohttp.web import RouteDef
from prometheus_client import CollectorRegistry

from cli.main import COMMANDS
from cli.settings import NAMES, load
from web import probes

ROOT = Path(__file__).parent.parent
#: Whoever adds a server decides on its image here, with a version: `latest` is another one tomorrow.
IMAGES = {
    "rabbitmq": "rabbitmq:3.13-management",
    "influxdb": "influxdb:2.7",
    "mongo": "mongo:7",
    "worker": "eventsink:local",
    "web": "eventsink:local",
}
OURS = ("worker", "web")
SERVERS = ("rabbitmq", "influxdb", "mongo")
VALUES = {
    "RABBITMQ_PASSWORD": "rabbit-secret",
    "INFLUX_PASSWORD": "influx-secret",
    "INFLUX_TOKEN": "influx-token",
    "MONGO_PASSWORD": "mongo-secret",
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def interpolated(written: str) -> str:
    """As Docker Compose does it: ``${NAME:?message}`` from .env, ``$$`` for one dollar."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else VALUES[match[1]]

    return re.sub(r"\$\$|\$\{(\w+):\?[^}]*\}", value, written)


STACK: dict[str, Any] = yaml.safe_load(interpolated(text("compose.yaml")))
SERVICES: dict[str, Any] = STACK["services"]


def command_of(service: str) -> click.Command:
    command = import_module(COMMANDS[SERVICES[service]["command"][0]]).command
    assert isinstance(command, click.Command)
    return command


def chosen(service: str) -> dict[str, Any]:
    """The options of a service's command, as the command line itself reads them."""
    words = SERVICES[service]["command"][1:]
    return command_of(service).make_context(service, list(words), resilient_parsing=False).params


def copied() -> list[str]:
    """What the Dockerfile takes from this tree."""
    return [
        source
        for line in text("Dockerfile").splitlines()
        if line.startswith("COPY ")
        for source in shlex.split(line)[1:-1]
    ]


def test_the_images_are_those_decided_on() -> None:
    assert {name: service["image"] for name, service in SERVICES.items()} == IMAGES


def test_what_is_built_is_here() -> None:
    for name in OURS:
        context = ROOT / SERVICES[name]["build"]["context"]
        assert (context / SERVICES[name]["build"].get("dockerfile", "Dockerfile")).is_file()


@pytest.mark.parametrize("name", OURS)
def test_the_program_takes_the_settings_as_they_are(name: str) -> None:
    settings = load(SERVICES[name]["environment"])
    assert settings.log.url.reveal() == "amqp://eventsink:rabbit-secret@rabbitmq:5672/"
    assert settings.influx is not None
    assert settings.influx.token.reveal() == "influx-token"
    assert settings.mongo is not None
    assert settings.state == settings.mongo


@pytest.mark.parametrize("name", OURS)
def test_servers_and_program_agree_on_names_and_passwords(name: str) -> None:
    ours = SERVICES[name]["environment"]
    rabbitmq, influxdb, mongo = (SERVICES[server]["environment"] for server in SERVERS)

    user, password = rabbitmq["RABBITMQ_DEFAULT_USER"], rabbitmq["RABBITMQ_DEFAULT_PASS"]
    assert ours["EVENTSINK_BROKER_URL"] == f"amqp://{user}:{password}@rabbitmq:5672/"

    assert ours["EVENTSINK_INFLUX_URL"] == "http://influxdb:8086"
    assert ours["EVENTSINK_INFLUX_TOKEN"] == influxdb["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
    assert ours["EVENTSINK_INFLUX_ORG"] == influxdb["DOCKER_INFLUXDB_INIT_ORG"]
    assert ours["EVENTSINK_INFLUX_BUCKET"] == influxdb["DOCKER_INFLUXDB_INIT_BUCKET"]

    user, password = mongo["MONGO_INITDB_ROOT_USERNAME"], mongo["MONGO_INITDB_ROOT_PASSWORD"]
    # A user made by the image is a user of the database `admin`.
    assert ours["EVENTSINK_MONGO_URL"] == f"mongodb://{user}:{password}@mongo:27017/?authSource=admin"


def test_every_setting_named_in_the_stack_is_one() -> None:
    for file in ("compose.yaml", "Dockerfile", ".env.example"):
        assert set(re.findall(r"EVENTSINK_\w+", text(file))) <= NAMES, file


@pytest.mark.parametrize("name", OURS)
def test_commands_and_their_options_exist_and_listen_where_others_can_reach_them(name: str) -> None:
    assert SERVICES[name]["command"][0] == name
    assert chosen(name)["host"] == "0.0.0.0"  # noqa: S104 - inside a container; the ports are published on loopback


@pytest.mark.parametrize(("name", "port"), [("worker", 8081), ("web", 8080)])
def test_the_ports_are_the_defaults_of_the_command_line(name: str, port: int) -> None:
    default = next(option.default for option in command_of(name).params if option.name == "port")
    assert default == port
    assert chosen(name)["port"] == port
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_nothing_listens_beyond_this_machine() -> None:
    for service in SERVICES.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])


def test_every_volume_is_declared_and_used() -> None:
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service["volumes"]}
    assert used == set(STACK["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_data_and_keys_are_in_volumes_and_belong_to_the_user_of_the_image(name: str) -> None:
    settings = load(SERVICES[name]["environment"])
    mounts = {mount.split(":")[1] for mount in SERVICES[name]["volumes"]}
    assert mounts == {str(settings.data), str(settings.keys_file.parent)}
    assert f"install -d -o eventsink -g eventsink {settings.data} {settings.keys_file.parent}" in text(
        "Dockerfile"
    )


def test_worker_and_web_share_keys_and_no_data_folder() -> None:
    worker, web = (set(SERVICES[name]["volumes"]) for name in OURS)
    assert worker & web == {"keys:/keys"}


@pytest.mark.parametrize("name", OURS)
def test_ours_start_when_the_servers_are_ready(name: str) -> None:
    needed = SERVICES[name]["depends_on"]
    assert needed == {server: {"condition": "service_healthy"} for server in SERVERS}


def test_every_service_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        check = service["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name


@pytest.mark.parametrize("name", OURS)
def test_the_health_checks_ask_a_route_that_is_there(name: str) -> None:
    url = re.search(r"'(http://[^']+)'", SERVICES[name]["healthcheck"]["test"][-1])
    assert url is not None

    async def ready() -> dict[str, str | None]:
        return {}

    routes = probes.routes(ready, CollectorRegistry())
    assert "/healthz" in {route.path for route in routes if isinstance(route, RouteDef)}
    assert url[1] == f"http://127.0.0.1:{chosen(name)['port']}/healthz"


def test_the_image_asks_the_port_of_its_default_command() -> None:
    check = re.search(r"HEALTHCHECK .*?'(http://[^']+)'", text("Dockerfile"), re.DOTALL)
    assert check is not None
    assert check[1] == "http://127.0.0.1:8080/healthz"
    assert re.search(r'^ENTRYPOINT \["eventsink"\]$', text("Dockerfile"), re.MULTILINE)
    assert '"up"' in text("Dockerfile").rpartition("CMD")[2]
    assert "up" in COMMANDS


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\w+)$", text("Dockerfile"), re.MULTILINE)
    assert users == ["eventsink"]


def test_what_the_image_copies_is_here_and_not_ignored() -> None:
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert set(copied()) == allowed
    for path in copied():
        assert (ROOT / path).exists(), path


def test_the_image_has_every_package_of_the_distribution() -> None:
    packaging = tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {name for name in packaging if "*" not in name and (ROOT / name).is_dir()}
    assert packages <= set(copied())


def test_the_passwords_asked_for_are_the_ones_that_stack_env_writes() -> None:
    asked = set(re.findall(r"\$\{(\w+)", text("compose.yaml")))
    offered = set(re.findall(r"^(\w+)=$", text(".env.example"), re.MULTILINE))
    assert asked == offered == set(VALUES)


def test_stack_env_writes_random_passwords_that_only_the_owner_reads(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/stack-env", ".env.example"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    script = tmp_path / "scripts" / "stack-env"

    def run() -> str:
        subprocess.run(["bash", script], check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
        return (tmp_path / ".env").read_text()

    first = run()
    values = re.findall(r"^\w+=([0-9a-f]{48})$", first, re.MULTILINE)
    assert len(set(values)) == len(VALUES)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert run() == first  # the volumes were made with these
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", ".env.example", "scripts"]


def test_the_locks_name_no_index_and_no_path_and_have_a_hash_for_each_package() -> None:
    for name in ("requirements-build.lock", "requirements.lock", "requirements-dev.lock"):
        lock = text(name)
        assert not re.findall(r"^-|://| @ |^[./]", lock, re.MULTILINE), name
        for entry in re.split(r"\n(?=[a-z])", lock)[1:]:
            assert "==" in entry.splitlines()[0], name
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_development_lock_has_the_same_versions_as_the_others() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z][\w.-]*==[^ ]+", text(name), re.MULTILINE))

    assert pins("requirements-build.lock") | pins("requirements.lock") <= pins("requirements-dev.lock")
