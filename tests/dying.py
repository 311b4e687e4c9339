"""The program `eventsink`, killed by SIGKILL at a step that it is told by name: `python -m tests.dying STEP worker …`.

STEP is `MODULE:CLASS.METHOD:MOMENT:NUMBER`: before or after the call of this number.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from typing import Any, NoReturn


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def dies_at(step: str) -> None:
    """Arrange for the death."""
    module, name, moment, number = step.split(":")
    owner_name, method = name.split(".")
    owner = getattr(importlib.import_module(module), owner_name)
    real = getattr(owner, method)
    left = int(number)

    @functools.wraps(real)
    async def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        last = left == 0
        if last and moment == "before":
            die()
        answer = await real(*arguments, **named)
        if last:
            die()
        return answer

    setattr(owner, method, dying)


if __name__ == "__main__":
    dies_at(sys.argv.pop(1))
    from cli.main import main

    sys.exit(main())
