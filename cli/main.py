"""The command ``eventsink``. Exit codes: 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from cli import logs
from cli.options import FILE_KEY, examples, settings_file_option
from topology.errors import EventsinkError, SettingsError

DONE = 0
FAILED = 1
WRONG_USE = 2

#: Every command, in the order of the help, and the module that has it as ``command``. A module is
#: imported when its command is used: `eventsink keys` does not wait for Faust.
COMMANDS: Mapping[str, str] = {
    "up": "cli.up",
    "worker": "cli.worker",
    "web": "cli.web",
    "monitor": "cli.monitor",
    "send": "cli.send",
    "demo": "cli.demo",
    "rollups": "cli.rollups",
    "events": "cli.events",
    "top": "cli.top",
    "report": "cli.report",
    "dead": "cli.dead",
    "forward": "cli.forward",
    "rebuild": "cli.rebuild",
    "keys": "cli.keys",
    "backup": "cli.backup",
    "check": "cli.check",
    "schema": "cli.schema",
}


class Commands(click.Group):
    """The group; every way in which a command can end leaves through ``main``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)  # noqa: S101 - a slip of ours, not of a user
        return command

    def main(  # type: ignore[override] # one way of calling it is enough, and it never returns
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "eventsink",
        **extra: Any,
    ) -> NoReturn:
        extra.pop("standalone_mode", None)
        debug = "--debug" in (sys.argv[1:] if args is None else args)
        try:
            with logs.for_a_person():
                result = super().main(args, prog_name=prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else DONE
        except click.exceptions.NoArgsIsHelpError as help_wanted:
            help_wanted.show()
            code = WRONG_USE
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx is not None else "eventsink"
            _complain(f"{error.format_message().rstrip('.')} (see `{where} --help`)", name=where)
            code = WRONG_USE
        except click.ClickException as error:
            _complain(error.format_message())
            code = FAILED
        except click.Abort:
            _complain("stopped")
            code = FAILED
        except SettingsError as error:
            for line in str(error).splitlines():  # one for each thing that is wrong
                _complain(line)
            code = FAILED
        except EventsinkError as error:
            _complain(str(error))
            code = FAILED
        except OSError as error:
            code = FAILED
            if error.errno == errno.EPIPE:  # `eventsink events | head`: whoever read has enough
                _drop_stdout()
            elif error.filename is not None:
                _complain(f"{error.filename} cannot be used ({error.strerror}): mend path or permissions")
            else:
                code = _unexpected(error, debug=debug)
        except Exception as error:  # noqa: BLE001 - a user is shown a line, not a traceback
            code = _unexpected(error, debug=debug)
        sys.exit(code)


def _complain(message: str, *, name: str = "eventsink") -> None:
    click.echo(f"{name}: {' '.join(logs.Redactor()(message).split())}", err=True)


def _unexpected(error: Exception, *, debug: bool) -> int:
    if logs.is_configured():
        logging.getLogger("cli").critical("ended by an error of its own", exc_info=error)
    elif debug:
        click.echo(logs.Redactor()(logs.written_error(error)), err=True)
    hint = "" if debug else "; `eventsink --debug …` shows where"
    _complain(f"a fault of this program, please report it: {type(error).__name__}: {error}{hint}")
    return FAILED


def _drop_stdout() -> None:
    # The interpreter flushes once more when it ends; let it do so into nothing.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:
        pass  # no real stdout (a test's): nothing is flushed there either


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "eventsink send events.jsonl", "eventsink rollups space_storage --window 1h --since now-7d"
    ),
)
@settings_file_option
@click.option("--debug", is_flag=True, help="Show where a fault of this program comes from.")
@click.version_option(package_name="eventsink", message="%(prog)s %(version)s")
@click.pass_context
def eventsink(ctx: click.Context, settings_file: Path | None, debug: bool) -> None:
    """Turns the events of a Clowder research-data platform into numbers that people can query.

    Settings come from EVENTSINK_* variables or a TOML file with the same names; without any,
    everything is embedded in the folder ./data.
    """
    del debug  # looked at where an error ends
    ctx.meta[FILE_KEY] = settings_file


def main() -> NoReturn:
    """The console script."""
    eventsink.main()


if __name__ == "__main__":
    main()
