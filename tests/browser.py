"""A real browser for the tests of pages: Chromium as it is installed, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VARIABLE = "SECONDGLANCE_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",  # containers forbid it, and the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PHONE = 390
"""Width of a phone's screen in pixels."""


def chromium() -> str | None:
    """Where Chromium is: named by `SECONDGLANCE_CHROMIUM`, or on the path."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


# A module's, not a session's: while Playwright runs, no test of its thread can run an asyncio loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips the test where there is no Playwright or no Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip(f"no Chromium: set {VARIABLE}, or put one of {', '.join(NAMES)} on the path")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS])
        yield started
        started.close()


def sideways(page: Page) -> int:
    """By how many pixels the page can be scrolled to the right."""
    found: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return found
