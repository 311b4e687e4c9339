from __future__ import annotations

import errno
import logging
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cli.main import COMMANDS, eventsink
from topology.errors import Refused, Unavailable


def run(*args: str) -> Result:
    return CliRunner().invoke(eventsink, list(args))


def paths(command: click.Command, *path: str) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = [path] if path else []
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        found += paths(inner, *path, name)
    return found


def test_help_names_every_command_with_what_it_does() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        line = next(line for line in result.output.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 3, line


@pytest.mark.parametrize("path", paths(eventsink), ids=" ".join)
def test_the_help_of_each_command_explains_it_with_an_example(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    example = result.output.partition("Example")[2]
    assert f"eventsink {' '.join(path)}" in example
    assert all(len(line) <= 100 for line in result.output.splitlines())


def test_wrong_use_is_one_line_that_points_to_the_help_and_2() -> None:
    for args in (["nonsense"], ["send", "--nonsense"], ["send", "--rate", "x"], ["keys", "revoke"]):
        result = run(*args)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert "--help`" in result.stderr


def test_without_a_command_the_help_is_shown_and_2() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def test_the_version_is_printed() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("eventsink ")


def test_wrong_settings_are_one_line_and_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSINK_KEEP", "soon")
    result = run("keys", "list", "--data", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith("eventsink: EVENTSINK_KEEP ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("before", [True, False])
def test_a_settings_file_may_be_named_before_or_after_the_command(tmp_path: Path, before: bool) -> None:
    file = tmp_path / "eventsink.toml"
    file.write_text(f'EVENTSINK_DATA = "{tmp_path}/elsewhere"')
    option = ("--settings", str(file))
    create = ("keys", "create", "--name", "a", "--scopes", "read")
    result = run(*option, *create) if before else run(*create, *option)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "elsewhere" / "keys.json").exists()


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unavailable("the broker is away:\nstart it"), "eventsink: the broker is away: start it"),
        (Refused("no to amqp://u:secret-password@h"), "eventsink: no to amqp://u:***@h"),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), "eventsink: /etc/x cannot be used"),
        (KeyboardInterrupt(), "eventsink: stopped"),
        (ZeroDivisionError("by zero"), "a fault of this program"),
    ],
)
def test_every_error_is_one_line_and_1(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    monkeypatch.setattr(eventsink, "get_command", lambda ctx, name: failing(error))
    result = run("send")
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.strip("\n").count("\n") == 0
    assert "Traceback" not in result.output


def test_a_fault_shows_where_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventsink, "get_command", lambda ctx, name: failing(ZeroDivisionError()))
    result = run("--debug", "send")
    assert result.exit_code == 1
    assert "test_main.py:" in result.stderr


def test_a_reader_that_has_enough_ends_the_command_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        eventsink, "get_command", lambda ctx, name: failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    )
    result = run("send")
    assert result.stderr == ""


def test_warnings_of_ours_are_said_aside_and_those_of_libraries_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def command() -> None:
        logging.getLogger("topology.sqlite.log").warning("data at\nrisk")
        logging.getLogger("aiormq.connection").error("error when creating transport")

    monkeypatch.setattr(eventsink, "get_command", lambda ctx, name: command)
    before = list(logging.getLogger().handlers)
    result = run("send")
    assert (result.exit_code, result.stderr) == (0, "eventsink: data at\\nrisk\n")
    assert logging.getLogger().handlers == before
