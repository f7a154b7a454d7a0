"""What a test leaves for people to look at: files in the folder that the environment variable CI_ARTIFACTS names."""

import os
import shutil
from pathlib import Path

import pytest


def keep(name: str, fallback: Path) -> Path:
    """Where to write a file that CI keeps; below `fallback` if nobody keeps any."""
    folder = Path(os.environ.get("CI_ARTIFACTS") or fallback)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def chromium() -> str:
    """Path of the system's Chromium. Without it a test is skipped, but on CI it fails."""
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI"):
        pytest.fail("expected the program `chromium`, found none; .ci/run installs it")
    return found or pytest.skip("needs the program `chromium` (Debian's package of that name)")
