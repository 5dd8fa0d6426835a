"""What must hold for every report page, in a real browser."""

import re
from pathlib import Path
from typing import Any

from tests.browser import SCHEMES, WIDTHS, overflow, page_of, unfold, violations

LARGEST_PAGE = 3_000_000  # bytes
LARGEST_FIGURE = 1_000_000  # bytes
DRAWING = re.compile(r'<svg class="drawing".*?</svg>', re.DOTALL)


def require_good_page(browser: Any, path: Path) -> None:
    """Check sizes, accessibility, width, and that no request leaves the page."""
    text = path.read_text("utf-8")
    assert len(text.encode()) < LARGEST_PAGE
    for drawing in DRAWING.findall(text):
        assert len(drawing.encode()) < LARGEST_FIGURE
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), sorted({one for one in ids if ids.count(one) > 1})
    for width in WIDTHS:
        for scheme in SCHEMES:
            with page_of(browser, path, width, scheme) as page:
                unfold(page)
                assert violations(page) == [], (width, scheme)
                assert overflow(page) <= 0, width
