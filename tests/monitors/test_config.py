"""The configuration: what is wrong is one line, with its place in the file."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from monitors.config import Maintenance, read
from monitors.page import PageSettings
from monitors.schedule import valid_for_s
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
        (
            ("[[probe]]", "[[prob]]"),
            "prob: is not known, did you mean probe? (there are endpoint, key_env, key_file, ca_file, region, ",
        ),
        (("[[probe]]", "[probe]"), "monitors.toml:4: probe: write [[probe]], in two brackets"),
        (
            ('"page"', '"pages"'),
            "probe[0].kind: 'pages' is not known, did you mean page? (there are ping, page, healthz, port, ",
        ),
        (('kind = "page"\n', ""), "probe[0].kind: is missing: there are ping, page, healthz, port, "),
        (
            ('kind = "page"', 'kind = "page"\ntimeot = 3'),
            "probe[0].timeot: is not known, did you mean timeout? (there are kind, service, interval, ",
        ),
        (
            ('service = "clowder"\n', ""),
            'monitors.toml:4: probe[0].service: is missing: write service = "clowder"',
        ),
        (
            ("https://clowder.example/", "clowder.example"),
            "monitors.toml:7: probe[0].url: must be http://HOST/… or https://HOST/…",
        ),
        (("https://clowder", "https://me:hunter2@clowder"), "probe[0].url: holds credentials"),
        (
            ('service = "clowder"', 'service = "clowder"\ninterval = 0'),
            "monitors.toml:7: probe[0].interval: must be a number more than 0 and at most 3600, not 0",
        ),
        (
            ('service = "clowder"', 'service = "clowder"\nheaders = {Cookie = "hunter2"}'),
            "probe[0].headers: Cookie is a secret",
        ),
        (("[[probe]]", 'reference = ["192.0.2.1"]\n[[probe]]'), "reference: '192.0.2.1' must be HOST:PORT"),
        (("key_env", 'key_file = "x"\nkey_env'), "monitors.toml:4: key_env: key_file is given, too"),
        (("kind", "kind ="), "monitors.toml:5: kind: a text stands in quotes"),
        (
            ('"http://127.0.0.1:8080"', "http://127.0.0.1:8080"),
            "monitors.toml:2: endpoint: a text stands in quotes: ",
        ),
        (('service = "clowder"', 'service = "hunter2'), "monitors.toml:6: service: the quotes do not fit"),
        (("[[probe]]", "[[probe]"), "monitors.toml:4: probe: write [[probe]], in two brackets"),
        (("kind =", "kind:"), "monitors.toml:5: kind: write kind = VALUE"),
        (("[[probe]]", "[[probe]]\ninterval = 60s"), "monitors.toml:5: interval: a number stands alone"),
        (("[[probe]]", '[[probe]]\nservice = "x"'), "monitors.toml:7: service is given twice: leave one out"),
        (
            ("[[probe]]", "reference = [\n'a:1']\nreference = [\n'b:1']\n[[probe]]"),
            "monitors.toml:6: reference is given twice: leave one out",
        ),
        (
            ("[[probe]]", "reference = [\n'a:1',\n[[probe]]"),
            "monitors.toml:4: reference: a quote, a comma or",
        ),
        (
            ("[[probe]]", "hunter2\n[[probe]]"),
            "monitors.toml:4: is no TOML: write NAME = VALUE, or [[probe]]",
        ),
        (("[[probe]]", "hunter2==\n[[probe]]"), "monitors.toml:4: a text stands in quotes: NAME ="),
        (("[[probe]]", "key: hunter2\n[[probe]]"), "monitors.toml:4: key_env: write key_env = VALUE"),
        (("endpoint =", "endpiont"), "monitors.toml:2: endpoint: write endpoint = VALUE"),
        (("[[probe]]", "[[probe]]\ninterval = '60'"), "and at most 3600: write it without quotes"),
        (("[[probe]]", "[[probe]]\ninterval = 'often'"), "at most 3600, not a text"),
        (
            ("[[probe]]", "[[probe]]\nregion = 'eu'"),
            "probe[0].region: is a key of the whole file: write it above",
        ),
        (
            ("[[probe]]", "ca_file = 1\n[[probe]]"),
            "monitors.toml:4: ca_file: must be a text in quotes, not 1",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    is_said_in_one_line(SIX_LINES.replace(*change, 1), said, tmp_path)


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        (
            "2026-01-01T00:00:00",
            "2026-01-02T00:00:00Z",
            "monitors.toml:10: maintenance[0].since: needs an offset",
        ),
        ("2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z", "maintenance[0].until: is not after since"),
        (
            "2026-01-01T00:00:00Z",
            '2026-01-02T00:00:00Z\nevery = "day"',
            "maintenance[0].until: is not before the next since, a day later",
        ),
        (
            "2026-01-01T00:00:00Z",
            '2026-01-01T01:00:00Z\nevery = "month"',
            'maintenance[0].every: must be "day" or "week"',
        ),
    ],
)
def test_a_window_of_maintenance_has_two_instants(since: str, until: str, said: str, tmp_path: Path) -> None:
    window = f'[[maintenance]]\nservice = "clowder"\nsince = {since}\nuntil = {until}\n'
    is_said_in_one_line(SIX_LINES + window, said, tmp_path)


@pytest.mark.parametrize(
    ("more", "most"),
    [
        # below (3600 - 1 - 3 attempts of 12 s - 2 delays of 1 s) / 1.1
        ("", 3237),
        ("retries = 0\ntimeout = 3\n", 3267),
        ("retries = 10\ntimeout = 300\n", 242),
    ],
)
def test_an_interval_that_would_leave_unknown_time_is_refused(more: str, most: int, tmp_path: Path) -> None:
    probe = read(written(tmp_path, f"{SIX_LINES}{more}interval = {most}\n")).probe[0]
    attempts = probe.retries + 1
    longest = most * 1.1 + attempts * (probe.timeout + 2) + probe.retries * probe.retry_delay
    assert longest < valid_for_s(probe, reference_s=0.0) <= 3600
    text = f"{SIX_LINES}{more}interval = {most + 1}\n"
    said = f"probe[0].interval: must be at most {most} with this timeout and these retries: a result holds for an hour"
    is_said_in_one_line(text, said, tmp_path)


def test_a_check_that_may_take_longer_than_its_result_holds_is_refused(tmp_path: Path) -> None:
    is_said_in_one_line(
        f"{SIX_LINES}timeout = 1200", "probe[0].timeout: with these retries one check", tmp_path
    )


def test_a_count_holds_for_no_time_and_may_come_every_hour(tmp_path: Path) -> None:
    queue = '[[probe]]\nkind = "queue"\nservice = "c"\nqueue = "q"\nurl = "amqp://h"\ninterval = 3600\n'
    assert read(written(tmp_path, f"{SIX_LINES}{queue}")).probe[1].interval == 3600


def test_two_probes_of_one_subject_would_contradict_each_other(tmp_path: Path) -> None:
    again = SIX_LINES[SIX_LINES.index("[[probe]]") :]
    is_said_in_one_line(SIX_LINES + again, "probe[1]: measures what probe[0] does", tmp_path)


def test_the_second_line_of_a_secret_is_shown_as_little_as_its_first(tmp_path: Path) -> None:
    file = written(tmp_path, SIX_LINES + 'headers = { Cookie = "hunter1\nhunter2" }\n')
    with pytest.raises(SettingsError) as raised:
        read(file)
    assert [line.removeprefix(f"{file}:") for line in str(raised.value).splitlines()] == [
        "8: headers: a quote, a comma or the bracket at the end is missing",
        "9: is no TOML: write NAME = VALUE, or [[probe]]",
    ]


def is_said_in_one_line(text: str, said: str, folder: Path) -> None:
    file = written(folder, text)
    with pytest.raises(SettingsError) as raised:
        read(file)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{file}:")
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


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'endpoint = 8080\nregio = "eu"\n'
        '[[probe]]\nkind = "pages"\nservice = "clowder"\n'
        '[[probe]]\nkind = "port"\nservice = "clowder"\nport = 0\ninterval = "often"\n'
        '[[probe]]\nkind = "page"\nservice = "clowder"\nurl = "clowder.example"\n'
        '[[maintenance]]\nservice = "clowder"\nsince = 2026-01-01T00:00:00Z\nuntill = 2026-01-02T00:00:00Z\n',
    )
    with pytest.raises(SettingsError) as raised:
        read(file)
    places = [tuple(line.removeprefix(f"{file}:").split(": ")[:2]) for line in str(raised.value).splitlines()]
    assert places == [
        *(("1", "endpoint"), ("2", "regio"), ("4", "probe[0].kind")),
        *(("6", "probe[1].host"), ("9", "probe[1].port"), ("10", "probe[1].interval")),
        ("14", "probe[2].url"),
        *(("15", "maintenance[0].until"), ("18", "maintenance[0].untill")),
    ]


def test_faults_of_fields_hide_none_between_fields_or_tables(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'endpoint = "here"\nregion = 3\n'
        '[[probe]]\nkind = "connections"\nservice = "a"\ninterval = "often"\n'
        '[[probe]]\nkind = "page"\nservice = "b"\nurl = "x"\nretries = 99\n'
        '[[probe]]\nkind = "page"\nservice = "b"\n'
        '[[maintenance]]\nservice = "b"\nreason = 1\nsince = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\n'
        '[[maintenance]]\nservice = "b"\nsince = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\n'
        '[[maintenance]]\nservice = "b"\nsince = 2026-01-01T00:00:00Z\nuntil = "x"\n',
    )
    with pytest.raises(SettingsError) as raised:
        read(file)
    said = [line.removeprefix(f"{file}:") for line in str(raised.value).splitlines()]
    assert [" ".join(line.split()[:2]).rstrip(":") for line in said] == [
        *("1: endpoint", "2: region", "3: probe[0]", "6: probe[0].interval"),
        *("10: probe[1].url", "11: probe[1].retries", "12: probe[2].url", "12: probe[2]"),
        *("17: maintenance[0].reason", "20: maintenance[1]", "27: maintenance[2].until"),
    ]


def test_a_mark_at_the_beginning_of_the_file_is_no_fault(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, f"\ufeff{SIX_LINES}")).probe) == 1


def test_lines_are_told_below_tables_in_tables_and_values_of_many_lines(tmp_path: Path) -> None:
    text = (
        'key_file = """a\nb"""\n# nothing\nendpoint = [\n "x",\n]\n'
        '[[probe]]\nkind = "page"\nservice = "a"\nurl = "http://a/"\n[probe.headers]\nA = "b"\n'
        '[[probe]]\nkind = "page"\nservice = "b"\nurl = "http://b/"\n[probe.headers]\nA = "b"\nCookie = "c"\n'
    )
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        read(file)
    said = [line.removeprefix(f"{file}:").partition(" ")[0] for line in str(raised.value).splitlines()]
    assert said == ["4:", "17:"]


def test_every_contradiction_is_said_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, 'endpoint = "x"\nkey_env = "A"\nkey_file = "b"\nreference = ["c"]\n')
    with pytest.raises(SettingsError) as raised:
        read(file)
    assert len(str(raised.value).splitlines()) == 4


DAY, WEEK = timedelta(days=1), timedelta(days=7)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        # hours from Monday, hours long, how often
        ((10, 2, None), (11, 2, None), True),
        ((10, 2, None), (12, 2, None), False),
        ((10, 2, "day"), (24 * 9 + 11, 1, None), True),
        ((10, 2, "day"), (24 * 9 + 12, 1, None), False),
        ((10, 2, "day"), (-24 + 10, 2, None), False),  # before the first
        ((10, 2, "day"), (-24 + 10, 25, None), True),
        ((10, 2, "day"), (24 * 9 + 12, 23, None), True),
        ((10, 2, "week"), (24 * 7 + 9, 2, None), True),
        ((10, 2, "week"), (24 * 9 + 10, 2, None), False),
        ((10, 2, "day"), (24 * 3 + 11, 2, "day"), True),
        ((23, 2, "day"), (0, 2, "day"), True),
        ((22, 2, "day"), (0, 2, "day"), False),
        ((22, 2, "day"), (24 * 5 + 23, 2, "week"), True),
        ((22, 2, "day"), (24 * 5, 22, "week"), False),
        ((22, 2, "day"), (24 * 5, 30, "week"), True),
        ((10, 2, "week"), (24 + 10, 2, "week"), False),
        ((10, 2, "week"), (11 - 24 * 14, 2, "week"), True),
    ],
)
def test_windows_of_one_service_that_ever_overlap_are_refused(
    one: tuple[int, int, Literal["day", "week"] | None],
    other: tuple[int, int, Literal["day", "week"] | None],
    meet: bool,
) -> None:
    windows = [
        Maintenance(
            service="clowder",
            since=MONDAY + timedelta(hours=since),
            until=MONDAY + timedelta(hours=since + hours),
            every=every,
        )
        for since, hours, every in (one, other)
    ]
    assert windows[0].meets(windows[1]) is windows[1].meets(windows[0]) is meet


def test_overlapping_windows_are_said_where_they_are_of_one_service(tmp_path: Path) -> None:
    window = "since = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\n"
    two = [f'[[maintenance]]\nservice = "{service}"\n{window}' for service in ("clowder", "clowder", "other")]
    said = "maintenance[1]: overlaps maintenance[0]"
    is_said_in_one_line(SIX_LINES + two[0] + two[1], said, tmp_path)
    assert len(read(written(tmp_path, SIX_LINES + two[0] + two[2])).maintenance) == 2
