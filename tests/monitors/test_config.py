"""The configuration: what is wrong is one line, with its place in the file."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from monitors.config import read
from monitors.page import PageSettings
from monitors.secrets import read_secret
from topology.errors import SettingsError

SIX_LINES = """
endpoint = "http://127.0.0.1:8080"
key_env = "MONITOR_KEY"
[[probe]]
kind = "page"
service = "clowder"
url = "https://clowder.example/"
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "monitors.toml"
    file.write_text(text)
    return file


def blocks_of(document: str) -> list[str]:
    """Every configuration that a document shows."""
    text = (Path(__file__).parents[2] / document).read_text()
    return re.findall(r"^```toml\n(endpoint.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_what_the_readme_shows_is_six_lines_and_a_configuration(tmp_path: Path) -> None:
    (block,) = blocks_of("README.md")
    assert len(block.splitlines()) == 6
    assert len(read(written(tmp_path, block)).probe) == 1


def test_what_the_guide_shows_is_a_configuration(tmp_path: Path) -> None:
    (block,) = blocks_of("docs/guides/monitors.md")
    assert [probe.kind for probe in read(written(tmp_path, block)).probe] == ["page", "ping"]


def test_six_lines_are_enough(tmp_path: Path) -> None:
    config = read(written(tmp_path, SIX_LINES))
    (probe,) = config.probe
    assert isinstance(probe, PageSettings)
    assert (probe.interval, probe.timeout, probe.retries) == (60, 10, 2)
    assert config.region == socket.gethostname()
    assert config.installation == f"monitor-{socket.gethostname()}"


def test_the_folder_is_beside_the_file_from_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, SIX_LINES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read(Path("../monitors.toml")).folder == str(tmp_path / "elsewhere" / ".." / "monitor-data")
    assert read(tmp_path / "monitors.toml").folder == str(tmp_path / "monitor-data")
    chosen = written(tmp_path, f'folder = "/var/lib/monitor"\n{SIX_LINES}')
    assert read(chosen).folder == "/var/lib/monitor"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("http://127.0.0.1:8080", "ftp://x"),
            "endpoint: must be http://HOST or https://HOST of an eventsink",
        ),
        (("http://127.0.0.1:8080", "http://u:hunter2@x"), "endpoint: holds credentials"),
        (("[[probe]]", "[[prob]]"), "Object contains unknown field `prob`"),
        (('"page"', '"pages"'), "probe[0].kind: Invalid value 'pages'"),
        (('service = "clowder"\n', ""), "probe[0]: Object missing required field `service`"),
        (
            ("https://clowder.example/", "clowder.example"),
            "probe[0]: url: must be http://HOST/… or https://HOST/…",
        ),
        (("https://clowder", "https://me:hunter2@clowder"), "probe[0]: url: holds credentials"),
        (
            ('service = "clowder"', 'service = "clowder"\ninterval = 0'),
            "probe[0].interval: Expected `float` > 0",
        ),
        (
            ('service = "clowder"', 'service = "clowder"\nheaders = {Cookie = "hunter2"}'),
            "headers.Cookie: is a secret",
        ),
        (("[[probe]]", 'reference = ["192.0.2.1"]\n[[probe]]'), "reference[0]: must be HOST:PORT"),
        (("key_env", 'key_file = "x"\nkey_env'), "key_env and key_file are both given"),
        (("kind", "kind ="), "Invalid value (at line 5"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    is_said_in_one_line(SIX_LINES.replace(*change, 1), said, tmp_path)


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        ("2026-01-01T00:00:00", "2026-01-02T00:00:00Z", "maintenance[0]: times need an offset"),
        ("2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z", "maintenance[0].until: is not after since"),
        (
            "2026-01-01T00:00:00Z",
            '2026-01-02T00:00:00Z\nevery = "day"',
            "maintenance[0].until: is not before the next since, a day later",
        ),
        (
            "2026-01-01T00:00:00Z",
            '2026-01-01T01:00:00Z\nevery = "month"',
            "maintenance[0].every: Invalid enum value 'month'",
        ),
    ],
)
def test_a_window_of_maintenance_has_two_instants(since: str, until: str, said: str, tmp_path: Path) -> None:
    window = f'[[maintenance]]\nservice = "clowder"\nsince = {since}\nuntil = {until}\n'
    is_said_in_one_line(SIX_LINES + window, said, tmp_path)


def test_two_probes_of_one_subject_would_contradict_each_other(tmp_path: Path) -> None:
    again = SIX_LINES[SIX_LINES.index("[[probe]]") :]
    is_said_in_one_line(SIX_LINES + again, "probe[1]: measures what probe[0] does", tmp_path)


def is_said_in_one_line(text: str, said: str, folder: Path) -> None:
    file = written(folder, text)
    with pytest.raises(SettingsError) as raised:
        read(file)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read(tmp_path / "none.toml")


def test_a_secret_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("es_abc\n")
    assert read_secret("key", {}, file=str(file)) == "es_abc"
    assert read_secret("key", {"K": "es_def"}, env="K") == "es_def"
    assert read_secret("key", {}) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"two\nlines"])
def test_a_file_without_a_secret_is_said_and_not_shown(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        read_secret("key", {}, file=str(file))
    assert "lines\n" not in str(raised.value)
