"""The image, the passwords of the stack and the locks that it is built from."""

from __future__ import annotations

import re
import tomllib

from cli.main import COMMANDS
from tests.test_stack import ROOT, VALUES, copied, text


def test_the_image_asks_the_port_of_its_default_command() -> None:
    check = re.search(r"HEALTHCHECK .*?'(http://[^']+)'", text("Dockerfile"), re.DOTALL)
    assert check is not None
    assert check[1] == "http://127.0.0.1:8080/healthz"
    assert re.search(r'^ENTRYPOINT \["eventsink"\]$', text("Dockerfile"), re.MULTILINE)
    assert '"up"' in text("Dockerfile").rpartition("CMD")[2]
    assert "up" in COMMANDS


def test_the_image_does_not_run_as_root() -> None:
    (user,) = re.findall(r"^USER (\d+)$", text("Dockerfile"), re.MULTILINE)
    assert user != "0"
    assert f"useradd --uid {user} --create-home eventsink" in text("Dockerfile")


def test_the_image_keeps_nothing_to_install_or_build_with() -> None:
    last = text("Dockerfile").rpartition("\nFROM ")[2]
    assert "pip uninstall --yes --disable-pip-version-check setuptools wheel pip" in last
    assert "apt-get" not in last
    assert "--mount=type=bind,from=wheels" in last


def test_what_the_image_copies_is_here_and_not_ignored() -> None:
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert set(copied()) == allowed
    for path in copied():
        assert (ROOT / path).exists(), path


def test_the_image_has_every_package_of_the_distribution() -> None:
    packaging = tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]
    named = packaging["packages"]["find"]["include"]
    packages = {name for name in named if "*" not in name and (ROOT / name).is_dir()}
    assert packages - {"docs"} <= set(copied())
    # Of the documentation it has what is served, and no more.
    served = {f"docs/{name}" for name in packaging["package-data"]["docs"]}
    assert served == {path for path in copied() if path.startswith("docs")}


def test_the_passwords_asked_for_are_the_ones_that_stack_env_writes() -> None:
    asked = {
        *re.findall(r"\$\{(\w+):\?", text("compose.yaml")),
        *re.findall(r"\$\{(\w+)\}", text("deploy/rabbitmq/definitions.template.json")),
    }
    offered = set(re.findall(r"^(\w+)=$", text(".env.example"), re.MULTILINE))
    assert asked == offered == set(VALUES)


def test_every_password_is_explained() -> None:
    for block in text(".env.example").split("\n\n"):
        assert block.startswith("# ")
        assert "=" in block.splitlines()[-1] or block == text(".env.example").split("\n\n")[0]


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
