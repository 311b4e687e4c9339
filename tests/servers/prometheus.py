"""Prometheus itself, from Debian, with the configuration that this project ships and other targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.servers.daemons import LOOPBACK, Daemon

#: What the configuration asks the environment for.
RUNBOOK = "https://events.example.org/docs/runbook"


class Prometheus:
    """``targets`` by job; only these jobs are scraped, every second. ``config``: the file that is shipped."""

    def __init__(self, folder: Path, port: int, config: Path, targets: Mapping[str, int]) -> None:
        document = yaml.safe_load(config.read_text())
        document["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        document["rule_files"] = [str(config.parent / each) for each in document["rule_files"]]
        document["scrape_configs"] = [
            {**each, "static_configs": [{"targets": [f"{LOOPBACK}:{targets[each['job_name']]}"]}]}
            for each in document["scrape_configs"]
            if each["job_name"] in targets
        ]
        assert len(document["scrape_configs"]) == len(targets)
        ours = folder / "prometheus.yml"
        ours.write_text(yaml.safe_dump(document))
        self._folder = folder
        self._daemon = Daemon(
            "prometheus",
            [
                f"--config.file={ours}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={LOOPBACK}:{port}",
                "--log.level=warn",
                "--enable-feature=expand-external-labels",  # what releases from 3.0 on do by themselves
            ],
            package="prometheus",
            port=port,
            ready="/-/ready",
            environment={"RUNBOOK_URL": RUNBOOK},
        )

    def start(self) -> None:
        """Fails the test when it does not come up."""
        self._daemon.start(self._folder)

    def end(self) -> None:
        """Idempotent."""
        self._daemon.end()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series of an instant query: ``metric`` and ``value``."""
        found: list[dict[str, Any]] = self._get(f"/api/v1/query?query={quote(expression)}")["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its ``health`` and ``lastError``."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def labels(self) -> Mapping[str, str]:
        """What it puts on everything that it tells others."""
        loaded = yaml.safe_load(self._get("/api/v1/status/config")["yaml"])
        found: Mapping[str, str] = loaded["global"]["external_labels"]
        return found

    def _get(self, path: str) -> Any:
        status, body = self._daemon.ask("GET", path)
        assert status == 200, body
        return json.loads(body)["data"]
