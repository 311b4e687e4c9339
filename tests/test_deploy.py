"""What docs/deploy.md tells people to type is there, and the systemd units are ones that systemd takes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml

from cli.main import COMMANDS
from cli.main import eventsink as group
from cli.settings import load
from monitors.config import read
from tests.deployments import embedded
from tests.test_stack import STACK
from web.keys import Keys

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/deploy.md"
TEXT = PAGE.read_text("utf-8")
#: Those that run, and the one that a timer starts.
UNITS = [path for path in sorted((ROOT / "deploy/systemd").glob("*.service")) if "backup" not in path.name]
BACKUP = ROOT / "deploy/systemd/eventsink-backup.service"
INSTALLED = "/opt/eventsink/.venv/bin/eventsink"

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def lines() -> list[str]:
    """Every command line of every console block, continuations joined."""
    blocks = re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines()]


def compose_lines() -> list[list[str]]:
    """Arguments of each ``docker compose``."""
    return [shlex.split(line)[2:] for line in lines() if line.startswith("docker compose")]


def eventsink_words() -> list[list[str]]:
    """Arguments of each call of ``eventsink``, in whatever it stands."""
    text = "\n".join(lines())
    return [
        shlex.split(re.split(r"[>&|'\"]", found)[0])
        for found in re.findall(r"(?:bin/eventsink|(?:web|&&) eventsink) (.+)", text)
    ]


def parsed(words: list[str]) -> str:
    """The command, as the command line itself finds it; wrong words fail."""
    context = group.make_context("eventsink", list(words))
    rest = [*context._protected_args, *context.args]
    command: click.Command = import_module(COMMANDS[rest[0]]).command
    return command.make_context(rest[0], rest[1:], parent=context).command_path


def test_every_call_of_eventsink_is_one_that_it_takes() -> None:
    commands = {parsed(words) for words in eventsink_words()}
    assert commands >= {"eventsink keys", "eventsink backup", "eventsink check", "eventsink rollups"}


def test_calls_as_the_services_user_work_from_any_folder_and_find_a_data_folder() -> None:
    asked = lines()
    calls = [at for at, line in enumerate(asked) if line.startswith("sudo -u eventsink ")]
    assert len(calls) > 4
    for at in calls:
        assert asked[at].startswith(f"sudo -u eventsink {INSTALLED} --settings /etc/eventsink/settings.toml ")
    # `check` says FAILED of a folder that is not there, which systemd makes when a unit starts.
    at = next(at for at in calls if asked[at].endswith(" check"))
    assert asked[at - 1] == "sudo install -d -m 0700 -o eventsink -g eventsink /var/lib/eventsink"


def test_an_upgrade_does_what_the_installation_did() -> None:
    def steps(section: str) -> list[str]:
        page = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        return [
            line
            for line in re.findall(r"^\$ (sudo .+)$", page, re.MULTILINE)
            if "pip" in line or "page-assets" in line
        ]

    assert steps("Upgrade") == steps("One process, with systemd") != []


def test_a_command_that_is_not_there_would_be_seen() -> None:
    with pytest.raises(click.UsageError):
        parsed(["backup", "--folder", "x"])


def test_make_knows_the_targets_that_are_named() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[1] for line in lines() if line.startswith("make ")}
    assert targets
    for target in targets:
        assert f"make {target} " in listed


def test_docker_compose_is_asked_for_services_and_profiles_that_are_there() -> None:
    services, profiles = (
        set(STACK["services"]),
        {profile for service in STACK["services"].values() for profile in service["profiles"]},
    )
    for words in compose_lines():
        named = {word for before, word in pairwise(words) if before == "--profile"}
        assert named <= profiles
        verbs = [word for word in words if not word.startswith("-") and word not in named]
        match verbs[0]:
            case "exec" | "run":
                assert services & set(verbs[1:4]), words
            case "stop" | "start" | "restart":
                assert set(verbs[1:]) <= services, words
            case "cp":
                assert {word.split(":")[0] for word in verbs[1:] if ":" in word} <= services, words
            case verb:
                assert verb in {"build", "up", "ps", "down"}, words


def test_what_runs_inside_the_containers_has_the_variables_that_it_asks_for() -> None:
    for words in compose_lines():
        for service in set(STACK["services"]) & set(words):
            asked = set(re.findall(r"\$([A-Z_]+)", words[-1]))
            assert asked <= set(STACK["services"][service].get("environment", {})), words


def test_files_and_pages_that_are_named_are_here() -> None:
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert target.startswith("http") or (PAGE.parent / target).exists(), target
    for path in re.findall(
        r"(?<![#/])\b(?:deploy|grafana|prometheus|tests|requirements)[-/][\w./-]+\w", TEXT
    ):
        # Made by stack-env, or people's own, and ignored by git.
        made = {"deploy/rabbitmq/definitions.json", "prometheus/alertmanagers.yml"}
        assert (ROOT / path).exists() or path in made, path


def test_links_within_the_page_have_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings


def test_addresses_are_those_of_the_stack() -> None:
    published = {
        port.rpartition(":")[0] for service in STACK["services"].values() for port in service.get("ports", ())
    }
    for address in re.findall(r"http://(127\.0\.0\.1:\d+)", TEXT):
        assert address in published


def definitions() -> str:
    return (ROOT / "deploy/rabbitmq/definitions.template.json").read_text("utf-8")


def test_rights_in_rabbitmq_are_those_of_the_template() -> None:
    template = definitions().replace("\\\\", "\\")
    rights = re.findall(r"set_permissions -p / worker (.+)$", TEXT, re.MULTILINE)
    assert len(rights) == 1
    (only,) = set(shlex.split(rights[0]))
    assert template.count(f'"{only}"') == 6  # worker and web, three each

    (clowders,) = re.findall(r"set_permissions -p / clowder (.+)$", TEXT, re.MULTILINE)
    (given,) = [each for each in json.loads(definitions())["permissions"] if each["user"] == "clowder"]
    assert shlex.split(clowders) == [given[right] for right in ("configure", "write", "read")]


def test_figures_of_memory_are_the_limits_of_the_stack_and_the_units() -> None:
    for name, written in (("worker", "512 MB"), ("web", "384 MB")):
        (row,) = re.findall(rf"^\| `{name}`.*\| (\d+ MB) \|$", TEXT, re.MULTILINE)
        limit = STACK["services"][name]["deploy"]["resources"]["limits"]["memory"]
        unit = (ROOT / f"deploy/systemd/eventsink-{name}.service").read_text("utf-8")
        assert row == written == limit.replace("M", " MB")
        assert f"MemoryMax={limit}\n" in unit


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.processes
@pytest.mark.parametrize("command", ["up", "worker"])
async def test_nothing_is_written_but_to_the_data_folder(
    command: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    # The container's root file system, and a unit's, is read-only.
    instance = embedded(tmp_path)
    service = await instance.start(command, free_port())
    assert await service.stop() == 0
    assert names_in(tmp_path) == {"data"}


def test_figures_are_those_that_were_measured() -> None:
    measured = (ROOT / "docs/performance.md").read_text("utf-8")
    section = TEXT.partition("## How large")[2].partition("## ")[0]
    figures = [
        figure
        for row in re.findall(r"^\| `.*$", section, re.MULTILINE)
        for cell in row.split("|")[2:4]
        for figure in re.findall(r"\d[\d,.]*\d", cell)
    ]
    figures += re.findall(r"used ([\d,]+) bytes an event for ([\d,]+) events", section)[0]
    assert len(figures) > 10
    for figure in figures:
        assert re.search(rf"\b{figure.replace(',', '[ ,]')}\b", measured), figure


# -- the units --


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Values by name; systemd allows a name several times."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text("utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.servers
def test_systemd_takes_the_drop_ins_of_the_page_and_the_backup(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("eventsink"))
    drop_ins = re.findall(r"^```ini\n(\[Service\]\n.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(drop_ins) == 3
    for drop_in in drop_ins:
        reset, started = re.findall(r"^ExecStart=(.*)$", drop_in, re.MULTILINE)
        assert reset == ""  # without it there would be two programs
        words = shlex.split(
            started.partition(INSTALLED)[2].replace("--settings /etc/eventsink/settings.toml", "")
        )
        command = parsed(words).replace("eventsink up", "eventsink").replace(" ", "-")
        (tmp_path / f"{command}.service.d").mkdir()
        (tmp_path / f"{command}.service.d/override.conf").write_text(drop_in.replace(INSTALLED, program))
    for file in (*UNITS, BACKUP, BACKUP.with_suffix(".timer")):
        (tmp_path / file.name).write_text(file.read_text("utf-8").replace(INSTALLED, program))
    ran = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.glob("*.*[er]"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_nightly_backup_keeps_fourteen_days_and_deletes_nothing_where_it_fails(tmp_path: Path) -> None:
    settings, kept = tmp_path / "settings.toml", tmp_path / "kept"
    settings.write_text(f'EVENTSINK_DATA = "{tmp_path}/data"\n')
    for days, name in (
        (13, "2026-01-16-030000"),
        (15, "2026-01-14-030000"),
        (15, "2026-01-14"),
        (15, "before-0.2"),
    ):
        (kept / name).mkdir(parents=True)
        then = time.time() - days * 86400
        os.utime(kept / name, (then, then))
    there = names_in(kept)

    def run() -> int:
        # As systemd runs them: `$$` and `%%` stand for one, and the second waits for the first to succeed.
        for line in settings_of(BACKUP)["ExecStart"]:
            text = line.replace("$$", "$").replace("%%", "%")
            for here, there in (
                (INSTALLED, str(Path(sys.executable).with_name("eventsink"))),
                ("/etc/eventsink/settings.toml", str(settings)),
                ("/var/backups/eventsink", str(kept)),
            ):
                text = text.replace(here, there)
            ran = subprocess.run(shlex.split(text), capture_output=True, check=False)
            if ran.returncode != 0:
                return ran.returncode
        return 0

    assert run() == 1  # there is no data folder
    assert names_in(kept) == there
    Keys(tmp_path / "data/keys.json").create("me", ["read"], None, now=0)
    assert run() == 0
    assert there - names_in(kept) == {"2026-01-14-030000"}  # what was made by hand stays
    (made,) = names_in(kept) - there
    assert names_in(kept / made) == {"keys.json"}


@pytest.mark.servers
@each_unit
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    # The program is where this environment has it, for systemd looks whether it is there.
    here = tmp_path / unit.name
    here.write_text(
        unit.read_text("utf-8").replace(INSTALLED, str(Path(sys.executable).with_name("eventsink")))
    )
    ran = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.servers
def test_a_name_that_systemd_does_not_know_would_be_seen(tmp_path: Path) -> None:
    here = tmp_path / "eventsink.service"
    text = (ROOT / "deploy/systemd/eventsink.service").read_text("utf-8")
    here.write_text(text.replace(INSTALLED, "/bin/true").replace("ProtectSystem=", "ProtectSystems="))
    ran = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    assert "ProtectSystems" in ran.stderr


@each_unit
def test_a_unit_starts_a_command_that_is_there(unit: Path) -> None:
    (started,) = settings_of(unit)["ExecStart"]
    program, *words = shlex.split(started)
    assert program == INSTALLED
    # Its settings are read when it starts.
    words = [word for word in words if word not in {"--settings", "/etc/eventsink/settings.toml"}]
    expected = unit.stem.partition("-")[2] or "up"
    assert parsed(words) == f"eventsink {expected}"


@each_unit
def test_a_unit_runs_as_a_user_without_rights_and_waits_for_the_drain(unit: Path) -> None:
    found = settings_of(unit)
    assert found["User"] == ["eventsink"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["CapabilityBoundingSet"] in ([""], ["CAP_NET_RAW"])
    assert int(found["TimeoutStopSec"][0]) > 10
    assert found["Restart"] == ["always"]


def test_the_settings_are_settings_and_the_data_folder_is_the_one_that_systemd_makes() -> None:
    file = ROOT / "deploy/systemd/settings.toml"
    for unit in UNITS:
        if unit.stem != "eventsink-monitor":
            assert settings_of(unit)["StateDirectory"] == ["eventsink"]
    assert load({}, file).data == Path("/var/lib/eventsink")
    every = tomllib.loads(re.sub(r"^#(?=EVENTSINK)", "", file.read_text("utf-8"), flags=re.MULTILINE))
    assert len(every) == 5
    assert load(every).influx is not None


def test_the_monitor_finds_its_key_where_systemd_puts_it() -> None:
    config = read(ROOT / "deploy/systemd/monitors.toml")
    unit = settings_of(ROOT / "deploy/systemd/eventsink-monitor.service")
    (credential,) = unit["LoadCredential"]
    name, _, source = credential.partition(":")
    assert config.key_file == f"/run/credentials/eventsink-monitor.service/{name}"
    assert source in TEXT
    assert config.folder == f"/var/lib/{unit['StateDirectory'][0]}"


def test_every_unit_is_named_on_the_page() -> None:
    for unit in (*UNITS, BACKUP):
        assert f"deploy/systemd/{unit.name} " in TEXT
        assert re.search(rf"systemctl enable --now .*{unit.stem}\b", TEXT)


def test_what_goes_into_an_override_is_taken_by_compose_and_by_the_program(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(services:\n.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for number, block in enumerate(blocks):
        file = tmp_path / f"compose.override-{number}.yaml"
        file.write_text(block)
        subprocess.run(
            [
                Path(sys.executable).with_name("check-jsonschema"),
                "--builtin-schema",
                "vendor.compose-spec",
                file,
            ],
            check=True,
            capture_output=True,
        )
        for name, service in yaml.safe_load(block)["services"].items():
            if name in STACK["services"]:
                load({**STACK["services"][name]["environment"], **service["environment"]})


def test_positions_are_dumped_while_no_worker_runs_and_before_all_else() -> None:
    # A dump of collections one after the other may have positions ahead of rows, which are then never made good.
    asked = lines()
    dumps = [number for number, line in enumerate(asked) if "mongodump" in line]
    assert [asked[at - 1 : at + 2 : 2] for at in dumps] == [
        ["sudo systemctl stop eventsink-worker", "sudo systemctl start eventsink-worker"],
        ["docker compose stop worker", "docker compose start worker"],
    ]
    order = [
        found[1]
        for line in asked
        if (found := re.search(r"\b(mongodump|influxd? backup|eventsink backup)", line))
    ]
    own = ["mongodump", "influxd backup", "influx backup"]
    assert order == [*own, "mongodump", "influx backup", "eventsink backup"]


def test_the_page_owns_up_to_the_operators_token_and_leads_to_one_that_may_do_less() -> None:
    influxdb = STACK["services"]["influxdb"]["environment"]
    ours = {STACK["services"][name]["environment"]["EVENTSINK_INFLUX_TOKEN"] for name in ("worker", "web")}
    assert ours == {influxdb["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]}
    who, _ = TEXT.split("Who may do what:")[1].split("To change a password")
    assert "`worker` and `web` have the operator's token" in who
    (command,) = [words[-1] for words in compose_lines() if "influx auth create" in words[-1]]
    assert f"--name {influxdb['DOCKER_INFLUXDB_INIT_BUCKET']} " in command
    assert command.count(f"--org {influxdb['DOCKER_INFLUXDB_INIT_ORG']} ") == 2
    assert set(re.findall(r"--(?:read|write|all|operator)[\w-]*", command)) == {
        "--read-bucket",
        "--write-bucket",
    }
