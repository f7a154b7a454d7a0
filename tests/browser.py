"""A real browser for tests: the system's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def chromium() -> Iterator:
    """A browser. Without Chromium the test is skipped, and fails where CI is set."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium: install the system's package `chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def keep(page, name: str) -> None:
    """A screenshot of the whole page in the folder that the environment variable CI_ARTIFACTS names, if it does."""
    if folder := os.environ.get("CI_ARTIFACTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
