"""Open a file in the desktop's browser, if this machine has a desktop."""

import os
import shutil
import subprocess
from pathlib import Path

SECONDS_TO_OPEN = 10  # xdg-open returns once the browser has the page


def why_no_desktop() -> str:
    """Return why no browser can be opened here; empty if one can."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "This machine has no desktop."
    return "" if shutil.which("xdg-open") else "This machine has no xdg-open."


def open_file(path: Path) -> str:
    """Open a file in the browser; return what went wrong, or an empty text."""
    # In its own session, because xdg-open may become the browser, which stays open.
    child = subprocess.Popen(
        ["xdg-open", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = child.wait(SECONDS_TO_OPEN)
    except subprocess.TimeoutExpired:
        return ""
    return f"xdg-open failed with exit code {code}." if code else ""
