"""The forwarder of the guide forwards."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from tests.servers.vendors import serving
from tests.topology.engine import Engine, publish
from tests.topology.forwarding.running import FAST, event, settled
from tests.topology.stores import opened
from topology.forwarding.forwarder import Forwarding

GUIDE = (Path(__file__).parents[3] / "docs/guides/adding-a-forwarder.md").read_text()


async def test_the_forwarder_of_the_guide_works_as_it_stands(tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n# agents/collector\.py\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)  # noqa: S102 - it is ours
    async with serving() as vendors, opened(tmp_path) as stores:
        vendor = module["Collector"](f"{vendors.url}/collector", "a-token")
        engine = Engine(stores, by_hand=True, groups=())
        engine.parts = dataclasses.replace(
            engine.parts, forwardings={"collector": Forwarding(vendor=vendor, pace=FAST)}
        )
        engine._by_hand = [module["collector"]]
        await publish(stores, [event(1), event(2)])
        await engine.start()
        await settled(engine)
        await engine.stop()
        assert [each["what"] for each in vendors.hooked.values()] == ["traffic.resource_viewed"] * 2
        assert vendors.requests[0][1]["Authorization"] == "Bearer a-token"
