"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, with axe-core."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SCHEMES = ("light", "dark")
WIDTHS = (1280, 360)
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless browser; skip the test on a machine without a browser."""
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip("Chromium isn't installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root, as which CI runs, can't use the browser's own sandbox.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Any, address: str | Path, width: int, scheme: str) -> Iterator[Any]:
    """Open a file or an address, and fail if the page reports an error or asks another server."""
    url = address.as_uri() if isinstance(address, Path) else address
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    errors: list[str] = []
    requests: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(url)
        yield page
        assert errors == []
        assert [one for one in requests if not one.startswith((url, "data:", "blob:"))] == []
    finally:
        context.close()


def unfold(page: Any) -> None:
    """Open every folded part of a page."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


def violations(page: Any) -> list[str]:
    """Return what axe-core finds: WCAG 2.0 A to 2.2 AA and best practice, a line for each node."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]


def overflow(page: Any) -> int:
    """Return by how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
