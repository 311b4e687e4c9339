"""Secrets come from the environment or from files, named in the configuration by keys that end in ``_env`` or
``_file``. They are read where they are used and put into nothing that is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
