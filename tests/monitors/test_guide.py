"""The configurations in the guide are read as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitors.config import read
from monitors.probe import Surroundings
from monitors.probes import build

GUIDE = (Path(__file__).parents[2] / "docs/guides/monitoring-nginx.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
ENDPOINT = 'endpoint = "http://127.0.0.1:8080"\n'
PROBE = '[[probe]]\nkind = "port"\nservice = "clowder"\nhost = "127.0.0.1"\nport = 443\n'


def test_the_guide_has_examples() -> None:
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_guide_is_a_configuration(example: str, tmp_path: Path) -> None:
    whole = ("" if example.startswith("endpoint") else ENDPOINT) + example
    file = tmp_path / "monitors.toml"
    file.write_text(whole if "[[probe]]" in example else whole + PROBE, "utf-8")
    config = read(file)
    surroundings = Surroundings(environment={"RABBITMQ_PASSWORD": "secret of the test"})
    assert [build(settings, surroundings) for settings in config.probe]
