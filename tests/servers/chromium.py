"""Debian's Chromium, without a screen, driven by Playwright (docs/decisions/0045)."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for a module; each test opens a context of its own, which shares nothing with others."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here: scripts/install-test-servers")
    # As root, as in a container, its sandbox cannot be set up.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        await browser.close()
