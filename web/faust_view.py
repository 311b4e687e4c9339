"""The web application as the web server of a Faust app: the same routes, with the same answers, in a Faust worker.

    app = faust.App("name", broker=URL("amqp://…"), web="eventsink://", web_bind="127.0.0.1", web_port=8081)
    use(app, parts)          # before the app starts

Faust finds the driver by the entry-point group ``faust.web.drivers``. Pages of the app's own (``@app.page``) are
served beside ours, each address by whoever has it first: ours. Those that Faust would add (``/router``, ``/table``,
a page at ``/``) are not: they tell everybody what is inside.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.exceptions import ImproperlyConfigured
from faust.web.drivers.aiohttp import Web

from web.application import WebParts, install
from web.server import runner


class EventsinkWeb(Web):
    """Faust's driver for aiohttp, running the application as every process of ours does."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._runner = runner(self.web_app)

    def serve(self, parts: WebParts) -> None:
        """Serve the application over these parts. Once, before the app starts."""
        install(self.web_app, parts)

    async def _cleanup_app(self) -> None:
        """Faust cleans up a second time what its runner has cleaned up."""


def use(app: faust.App, parts: WebParts) -> None:
    """Serve the application from a Faust app. The parts are opened before the app starts, and closed after it.

    Raises ``ImproperlyConfigured`` where the app has another driver, or would serve in a thread with a loop of its own,
    to which the parts do not belong.
    """
    driver: Any = app.web
    if not isinstance(driver, EventsinkWeb):
        raise ImproperlyConfigured('the app has another web driver: make it with web="eventsink://"')
    if app.conf.web_in_thread:
        raise ImproperlyConfigured(
            "web_in_thread is on: the stores that the routes use belong to the loop of the app"
        )
    driver.serve(parts)
