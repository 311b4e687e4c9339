"""Secrets come from the environment or from files, named in the configuration by keys that end in ``_env`` or
``_file``. They are read where they are used and put into nothing that is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from topology.errors import SettingsError


def read_secret(
    key: str, environment: Mapping[str, str], *, env: str | None = None, file: str | None = None
) -> str | None:
    """The secret that ``KEY_env`` or ``KEY_file`` names, without white space around it; None where neither does.

    Raises ``SettingsError``, which names the variable or the file and never the value.
    """
    if env is not None and file is not None:
        raise SettingsError(f"{key}_env and {key}_file are both given: leave one out")
    if env is not None:
        value = environment.get(env, "").strip()
        if not value:
            raise SettingsError(f"{key}_env names {env}, which is not set: set that environment variable")
    elif file is not None:
        value = _content(key, Path(file))
    else:
        return None
    if not value.isprintable():
        raise SettingsError(f"the secret of {key} has more than one line: put the secret alone there")
    return value


def named_secrets(config: msgspec.Struct, environment: Mapping[str, str]) -> set[str]:
    """The values of all secrets that a configuration names, for whoever hides them. One that cannot be read is left
    out: whoever needs it says so."""
    found: set[str] = set()
    _look(msgspec.to_builtins(config), environment, found)
    return found


def _look(where: object, environment: Mapping[str, str], found: set[str]) -> None:
    if isinstance(where, list | tuple):
        for each in where:
            _look(each, environment, found)
    elif isinstance(where, dict):
        for key, value in where.items():
            names = list(value.values()) if isinstance(value, dict) else [value]
            named = [name for name in names if isinstance(name, str)]
            if str(key).endswith("_env"):
                found.update(filter(None, (environment.get(name, "").strip() for name in named)))
            elif str(key).endswith("_file") and key != "ca_file":
                for name in named:
                    try:
                        found.add(_content(str(key), Path(name)))
                    except SettingsError:
                        pass
            else:
                _look(value, environment, found)


def _content(key: str, path: Path) -> str:
    try:
        value = path.read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{key}_file names {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{key}_file names {path}, which is not text") from error
    if not value:
        raise SettingsError(f"{key}_file names {path}, which is empty")
    return value
