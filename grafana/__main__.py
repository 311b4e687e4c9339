"""Write every dashboard to its file."""

from __future__ import annotations

import json
from pathlib import Path

from grafana.boards import Board
from grafana.extractors import extractors
from grafana.overview import overview
from grafana.pipeline import pipeline
from grafana.spaces import spaces
from grafana.uptime import uptime

FOLDER = Path(__file__).with_name("dashboards")
BOARDS = (overview, spaces, extractors, uptime, pipeline)


def written(board: Board) -> str:
    """The file of a dashboard, as git keeps it."""
    return json.dumps(board.json(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write what differs; files of dashboards that are no more go away."""
    wanted = {f"{board.name}.json": written(board) for board in BOARDS}
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for file in FOLDER.glob("*.json"):
        if file.name not in wanted:
            file.unlink()


if __name__ == "__main__":
    main()
