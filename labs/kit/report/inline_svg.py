"""Put an SVG file of matplotlib into a page: with unique ids, and in the ink of the page."""

import re

from labs.kit.report.figure_style import INK

from markupsafe import Markup, escape

_SVG = re.compile(r"<svg\b[^>]*>")
_VIEW_BOX = re.compile(r'viewBox="\S+ \S+ ([^\s"]+) [^\s"]+"')
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style\b.*?</style>|<!--.*?-->", re.DOTALL)
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(href="#|url\(#)([^")]*)')
# Colours that a dark page would swallow.
_SCHEMES = {
    INK: "currentColor",
    "stroke: #000000": "stroke: currentColor",  # not black letters: they may lie on a bright cell
    "#0072b2": "light-dark(#0072b2, #2f8fce)",
}


def inline(text: str, prefix: str, alt: str) -> Markup:
    """Return the `<svg>` element of a file.

    Args:
        text: the file.
        prefix: of all ids, unique in the page.
        alt: its text for readers who can't see it.
    """
    text = text[text.index("<svg") :]
    text = _DROPPED.sub("", text)
    used = {match[2] for match in _REFERENCE.finditer(text)}
    text = _ID.sub(lambda match: f' id="{prefix}-{match[1]}"' if match[1] in used else "", text)
    text = _REFERENCE.sub(lambda match: f"{match[1]}{prefix}-{match[2]}", text)
    for colour, both in _SCHEMES.items():
        text = text.replace(colour, both)
    box = _VIEW_BOX.search(text)
    shape = f'{box[0]} style="--width: {box[1]}px"' if box else ""
    opening = f'<svg class="drawing" role="img" aria-label="{escape(alt)}" {shape}>'
    return Markup(_SVG.sub(lambda _: opening, text, count=1))
