"""What must hold for every report page, in a real browser."""

import re
from itertools import product
from pathlib import Path
from typing import Any

from tests.browser import SCHEMES, WIDTHS, overflow, page_of, unfold, violations

LARGEST_PAGE = 3_000_000  # bytes
LARGEST_FIGURE = 1_000_000  # bytes
DRAWING = re.compile(r'<svg class="drawing".*?</svg>', re.DOTALL)
# axe-core needs 20 seconds for the 8,000 coloured words of a lab's code. A small page has them all.
WITHOUT_COLOURS = """document.querySelectorAll("pre.code code").forEach(one => {
    one.textContent = one.textContent;
})"""


def require_good_page(browser: Any, path: Path) -> None:
    """Check a small page at each width in each scheme."""
    require_small_file(path)
    for width, scheme in product(WIDTHS, SCHEMES):
        with page_of(browser, path, width, scheme) as page:
            require_accessible(page)


def require_good_page_of_a_lab(browser: Any, path: Path) -> None:
    """Check a large page at each width and in each scheme, but not in all four ways."""
    require_small_file(path)
    for width, scheme in zip(WIDTHS, SCHEMES, strict=True):
        with page_of(browser, path, width, scheme) as page:
            page.evaluate(WITHOUT_COLOURS)
            require_accessible(page)


def require_small_file(path: Path) -> None:
    """Check the size of a page and of its figures, and that no id occurs twice."""
    text = path.read_text("utf-8")
    assert len(text.encode()) < LARGEST_PAGE
    for drawing in DRAWING.findall(text):
        assert len(drawing.encode()) < LARGEST_FIGURE
    ids = re.findall(r'<[^<>]*\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), sorted({one for one in ids if ids.count(one) > 1})


def require_accessible(page: Any) -> None:
    """Check that axe-core finds nothing and that the page isn't wider than its window."""
    unfold(page)
    assert violations(page) == []
    assert overflow(page) <= 0
