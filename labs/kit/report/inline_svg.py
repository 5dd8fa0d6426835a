"""Put an SVG file of matplotlib into a page: ids of its own, and the ink of the page."""

import re

from labs.kit.report.figure_style import INK

from markupsafe import Markup, escape

_SVG = re.compile(r"<svg\b[^>]*>")
_VIEW_BOX = re.compile(r'viewBox="[^"]*"')
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style\b.*?</style>|<!--.*?-->", re.DOTALL)
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(href="#|url\(#)([^")]*)')
_BLACK_LINES = re.compile(r"stroke: #000000")


def inline(text: str, prefix: str, alt: str) -> Markup:
    """Return the `<svg>` element of a file.

    Args:
        text: the file.
        prefix: what makes its ids unique in the page.
        alt: its text for readers who can't see it.
    """
    text = text[text.index("<svg") :]
    text = _DROPPED.sub("", text)
    used = {match[2] for match in _REFERENCE.finditer(text)}
    text = _ID.sub(lambda id: f' id="{prefix}-{id[1]}"' if id[1] in used else "", text)
    text = _REFERENCE.sub(lambda one: f"{one[1]}{prefix}-{one[2]}", text)
    text = text.replace(INK, "currentColor")
    text = _BLACK_LINES.sub("stroke: currentColor", text)
    box = _VIEW_BOX.search(text)
    opening = f'<svg class="drawing" role="img" aria-label="{escape(alt)}" {box[0] if box else ""}>'
    return Markup(_SVG.sub(lambda _: opening, text, count=1))
