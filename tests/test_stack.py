"""The local stack fits the program. No test can start it, so what it says is held against the code."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from aiohttp.web import RouteDef
from prometheus_client import CollectorRegistry

from cli.main import COMMANDS
from cli.settings import load
from cli.settings_sources import NAMES
from monitors.config import read
from web import probes
from web.keys import Keys

ROOT = Path(__file__).parent.parent
#: Of this environment.
TOOLS = Path(sys.executable).parent
#: Whoever adds a server decides on its image here, with a version: `latest` is another one tomorrow.
IMAGES = {
    "rabbitmq": "rabbitmq:3.13-management",
    "influxdb": "influxdb:2.7",
    "mongo": "mongo:7",
    "worker": "eventsink:local",
    "web": "eventsink:local",
    "monitor-key": "eventsink:local",
    "monitor": "eventsink:local",
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.3.1",
    "demo": "eventsink:local",
}
PROFILES = {
    "core": {"rabbitmq", "influxdb", "mongo", "worker", "web", "monitor-key", "monitor"},
    "observe": {"prometheus", "grafana"},
    "demo": {"demo"},
}
OURS = ("worker", "web", "monitor-key", "monitor", "demo")
#: Those with every setting of a pipeline.
PIPELINE = ("worker", "web")
#: Those that serve, with the port that is their command's default.
PORTS = {"worker": 8081, "web": 8080, "monitor": 8082}
SERVERS = ("rabbitmq", "influxdb", "mongo")
VALUES = {
    "RABBITMQ_PASSWORD": "operator-secret",
    "RABBITMQ_WORKER_PASSWORD": "worker-secret",
    "RABBITMQ_WEB_PASSWORD": "web-secret",
    "RABBITMQ_CLOWDER_PASSWORD": "clowder-secret",
    "INFLUX_PASSWORD": "influx-secret",
    "INFLUX_TOKEN": "influx-token",
    "GRAFANA_INFLUX_PASSWORD": "reader-secret",
    "MONGO_ROOT_PASSWORD": "mongo-root-secret",
    "MONGO_PASSWORD": "mongo-secret",
    "GRAFANA_PASSWORD": "grafana-secret",
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def interpolated(written: str) -> str:
    """As Docker Compose does it: ``${NAME:?message}`` and ``${NAME:-default}`` from .env, ``$$`` for one dollar."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return VALUES[match[1]] if match[2] == "?" else VALUES.get(match[1], match[3])

    inner = re.sub(r"(?<!\$)\$\{(\w+):([?-])([^${}]*)\}", value, written)
    return re.sub(r"\$\$|\$\{(\w+):([?-])([^}]*)\}", value, inner)


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


def test_it_is_a_compose_file_by_the_specification() -> None:
    ran = subprocess.run(
        [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def test_a_key_that_the_specification_does_not_know_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        text("compose.yaml").replace("    profiles: [core]", "    profile: core")
    )
    ran = subprocess.run(
        [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "profile" in ran.stdout


def test_the_dockerfile_has_nothing_that_hadolint_knows_better() -> None:
    ran = subprocess.run(
        [TOOLS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


def test_each_service_is_in_one_profile_and_needs_none_that_starts_later() -> None:
    for profile, services in PROFILES.items():
        assert {name for name, service in SERVICES.items() if service["profiles"] == [profile]} == services
    assert set().union(*PROFILES.values()) == set(SERVICES)
    for name in PROFILES["core"]:
        assert set(SERVICES[name].get("depends_on", {})) <= PROFILES["core"]
    (started,) = re.findall(r"^COMPOSE_PROFILES=(\S+)$", text(".env.example"), re.MULTILINE)
    assert started.split(",") == ["core", "observe"]


def test_what_a_service_waits_for_can_come_true() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            if how == {"condition": "service_healthy"}:
                assert "test" in SERVICES[needed]["healthcheck"], (name, needed)
            else:
                assert how == {"condition": "service_completed_successfully"}
                assert SERVICES[needed]["restart"] == "no"


@pytest.mark.parametrize("name", PIPELINE)
def test_the_program_takes_the_settings_as_they_are(name: str) -> None:
    settings = load(SERVICES[name]["environment"])
    assert settings.log.url.reveal() == f"amqp://{name}:{name}-secret@rabbitmq:5672/"
    assert settings.influx is not None
    assert settings.influx.token.reveal() == "influx-token"
    assert settings.mongo is not None
    assert settings.state == settings.mongo


@pytest.mark.parametrize("name", PIPELINE)
def test_servers_and_program_agree_on_names_and_passwords(name: str) -> None:
    ours = SERVICES[name]["environment"]
    influxdb, mongo = (SERVICES[server]["environment"] for server in ("influxdb", "mongo"))

    assert ours["EVENTSINK_INFLUX_URL"] == "http://influxdb:8086"
    assert ours["EVENTSINK_INFLUX_TOKEN"] == influxdb["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
    assert ours["EVENTSINK_INFLUX_ORG"] == influxdb["DOCKER_INFLUXDB_INIT_ORG"]
    assert ours["EVENTSINK_INFLUX_BUCKET"] == influxdb["DOCKER_INFLUXDB_INIT_BUCKET"]

    user = re.search(r'user: "(\w+)"', text("deploy/mongo/users.js"))
    database = re.search(r'role: "readWrite", db: "(\w+)"', text("deploy/mongo/users.js"))
    assert user is not None
    assert database is not None
    assert "pwd: process.env.EVENTSINK_PASSWORD" in text("deploy/mongo/users.js")
    password = mongo["EVENTSINK_PASSWORD"]
    # The user is made in the database `admin`.
    assert ours["EVENTSINK_MONGO_URL"] == f"mongodb://{user[1]}:{password}@mongo:27017/?authSource=admin"
    assert ours["EVENTSINK_MONGO_DATABASE"] == database[1]


def test_scripts_that_the_images_run_once_have_the_variables_that_they_ask_for() -> None:
    for server, script in (
        ("mongo", "deploy/mongo/users.js"),
        ("influxdb", "deploy/influxdb/grafana-reader.sh"),
    ):
        folder = f"./{Path(script).parent}"
        assert f"{folder}:/docker-entrypoint-initdb.d:ro" in SERVICES[server]["volumes"]
        asked = set(re.findall(r"(?:process\.env\.|\$)([A-Z_]{8,})", text(script)))
        # The image itself gives the id of the bucket that it made.
        assert asked <= {*SERVICES[server]["environment"], "DOCKER_INFLUXDB_INIT_BUCKET_ID"}


def test_grafana_reads_with_the_user_that_is_made_for_it() -> None:
    (influxdb, _) = yaml.safe_load(text("grafana/provisioning/datasources/eventsink.yaml"))["datasources"]
    script = text("deploy/influxdb/grafana-reader.sh")
    assert f"--username {influxdb['user']} --password" in script
    assert "--read-bucket" in script
    assert "--write-bucket" not in script
    variable = influxdb["secureJsonData"]["password"].removeprefix("$")
    password = SERVICES["grafana"]["environment"][variable]
    assert password == SERVICES["influxdb"]["environment"][variable] == "reader-secret"
    assert (
        influxdb["jsonData"]["dbName"] == SERVICES["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_BUCKET"]
    )


def test_what_refers_to_other_services_refers_to_their_ports() -> None:
    ports = {
        name: {int(port.rpartition(":")[2]) for port in service["ports"]}
        for name, service in SERVICES.items()
        if "ports" in service
    }
    files = ("compose.yaml", "deploy/monitors.toml", "grafana/provisioning/datasources/eventsink.yaml")
    found = {
        (host, int(port))
        for file in files
        for host, port in re.findall(r"\b([a-z]+):(\d{4,5})\b", text(file))
        if host in SERVICES
    }
    assert {host for host, _ in found} >= {*SERVERS, "web", "prometheus"}
    for host, port in found:
        assert port in ports[host], (host, port)


def test_every_setting_named_in_the_stack_is_one() -> None:
    for name in OURS:
        given = {key for key in SERVICES[name].get("environment", {}) if key.startswith("EVENTSINK_")}
        assert given <= NAMES, name
    assert set(re.findall(r"EVENTSINK_\w+", text("Dockerfile"))) <= NAMES


@pytest.mark.parametrize("name", [*PORTS, "demo"])
def test_commands_and_their_options_exist(name: str) -> None:
    assert SERVICES[name]["command"][0] == name
    chosen(name)


@pytest.mark.parametrize(("name", "port"), PORTS.items())
def test_the_ports_are_the_defaults_of_the_command_line(name: str, port: int) -> None:
    assert chosen(name)["host"] == "0.0.0.0"  # noqa: S104 - inside a container; the ports are published on loopback
    default = next(option.default for option in command_of(name).params if option.name == "port")
    assert default == port
    assert chosen(name)["port"] == port
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_nothing_listens_beyond_this_machine_and_no_two_on_one_port() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
    assert len(set(ports)) == len(ports)


def test_every_variable_of_the_stack_is_named_in_the_example_with_its_default() -> None:
    # A value that stack-env would fill in: whatever has nothing behind the `=`.
    example = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text(".env.example"), re.MULTILINE))
    defaults = dict(re.findall(r"\$\{(\w+_PORT):-(\d+)\}", text("compose.yaml")))
    assert len(defaults) == 9
    assert {name: example[name] for name in defaults} == defaults
    used = set(
        re.findall(r"\$\{(\w+)", text("compose.yaml") + text("deploy/rabbitmq/definitions.template.json"))
    )
    assert used | {"COMPOSE_PROFILES"} == set(example)


def test_a_token_that_may_do_less_takes_the_place_of_the_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = text("compose.yaml").partition("EVENTSINK_INFLUX_TOKEN: ")[2].partition("\n")[0]
    assert interpolated(written) == "influx-token"
    monkeypatch.setitem(VALUES, "EVENTSINK_INFLUX_TOKEN", "one-bucket")
    assert interpolated(written) == "one-bucket"


def test_what_people_change_for_themselves_is_ignored_by_git() -> None:
    own = [
        "compose.override.yaml",
        "monitors.toml",
        "alertmanager.yml",
        "prometheus/alertmanagers.yml",
        ".env",
    ]
    ran = subprocess.run(["git", "check-ignore", *own], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == own


def mounts(name: str) -> dict[str, str]:
    """What is mounted where."""
    pairs = [mount.split(":")[:2] for mount in SERVICES[name].get("volumes", ())]
    return {there: here for here, there in pairs}


def test_every_volume_is_declared_and_used() -> None:
    used = {here for name in SERVICES for here in mounts(name).values() if not here.startswith(".")}
    assert used == set(STACK["volumes"])


def test_what_is_mounted_from_this_tree_is_here_and_cannot_be_written() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            if mount.startswith("."):
                assert (ROOT / mount.split(":")[0]).exists(), (name, mount)
                assert mount.endswith(":ro"), (name, mount)


@pytest.mark.parametrize("name", PIPELINE)
def test_data_and_keys_are_in_volumes(name: str) -> None:
    settings = load(SERVICES[name]["environment"])
    assert set(mounts(name)) == {str(settings.data), str(settings.keys_file.parent)}


def test_what_ours_write_to_belongs_to_the_user_of_the_image() -> None:
    (made,) = re.findall(
        r"install -d -m 0700 -o eventsink -g eventsink (.+)$", text("Dockerfile"), re.MULTILINE
    )
    written = {there for name in OURS for there, here in mounts(name).items() if not here.startswith(".")}
    assert written == set(made.split())


def test_worker_and_web_share_keys_and_no_data_folder() -> None:
    worker, web = (set(SERVICES[name]["volumes"]) for name in PIPELINE)
    assert worker & web == {"keys:/keys"}


@pytest.mark.parametrize("name", PIPELINE)
def test_ours_start_when_the_servers_are_ready(name: str) -> None:
    needed = SERVICES[name]["depends_on"]
    assert needed == {server: {"condition": "service_healthy"} for server in SERVERS}


def test_the_monitor_has_a_configuration_a_key_and_a_folder() -> None:
    config = read(ROOT / "deploy/monitors.toml")
    assert config.endpoint == "http://web:8080"
    there = mounts("monitor")
    assert there[chosen("monitor")["config"].as_posix()] == "./deploy/monitors.toml"
    assert "- ${MONITORS_FILE:-./deploy/monitors.toml}:" in text("compose.yaml")
    assert there[config.folder] == "monitor"
    assert config.key_file is not None
    key = Path(config.key_file)
    assert there[str(key.parent)] == mounts("monitor-key")[str(key.parent)] == "monitor-key"
    assert str(key) in SERVICES["monitor-key"]["command"][0]


class MonitorKey:
    """The script of the service ``monitor-key``, on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = Keys(folder / "keys.json")

    def run(self) -> str:
        service = SERVICES["monitor-key"]
        script = service["command"][0].replace("/run/eventsink", str(self.folder))
        subprocess.run(
            [*service["entrypoint"], script],
            check=True,
            capture_output=True,
            env={
                "PATH": f"{TOOLS}:{os.environ['PATH']}",
                "EVENTSINK_DATA": str(self.folder),
                "EVENTSINK_KEYS_FILE": str(self.keys.path),
            },
        )
        return (self.folder / "monitor-key").read_text().strip()

    def is_the_only_one(self, key: str) -> bool:
        kept = [each for each in self.keys.list() if each.name == "monitor"]
        return [(each.sha256, set(each.scopes)) for each in kept] == [
            (hashlib.sha256(key.encode()).hexdigest(), {"health"})
        ]


def test_the_key_of_the_monitor_is_made_once_and_anew_where_it_is_known_no_more(tmp_path: Path) -> None:
    service = MonitorKey(tmp_path)
    first = service.run()
    assert service.run() == first
    assert service.is_the_only_one(first)
    restored = service.keys.path.read_bytes()
    service.keys.path.unlink()
    service.keys.create("me", ["read"], None, now=0)
    second = service.run()  # the volume `keys` was lost
    assert second != first
    assert service.is_the_only_one(second)
    assert {each.name for each in service.keys.list()} == {"me", "monitor"}

    service.keys.path.write_bytes(restored)  # and comes back, with the first key in it
    third = service.run()
    assert third not in {first, second}
    assert service.is_the_only_one(third)


def test_every_service_that_serves_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        check = service["healthcheck"]
        if name in {"monitor-key", "demo"}:
            assert check == {"disable": True}
            continue
        assert check["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name


@pytest.mark.parametrize("name", PORTS)
def test_the_health_checks_ask_a_route_that_is_there(name: str) -> None:
    url = re.search(r"'(http://[^']+)'", SERVICES[name]["healthcheck"]["test"][-1])
    assert url is not None

    async def ready() -> dict[str, str | None]:
        return {}

    routes = probes.routes(ready, CollectorRegistry())
    assert "/healthz" in {route.path for route in routes if isinstance(route, RouteDef)}
    assert url[1] == f"http://127.0.0.1:{chosen(name)['port']}/healthz"


def test_nothing_can_eat_the_machine_up() -> None:
    for name, service in SERVICES.items():
        assert service["logging"]["options"]["max-size"], name
        if name != "monitor-key":
            assert {"cpus", "memory"} == set(service["deploy"]["resources"]["limits"]), name


@pytest.mark.parametrize("name", OURS)
def test_ours_may_do_nothing_that_they_need_not(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - where Python puts what lives for a moment
