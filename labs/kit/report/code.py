"""Colour Python code; style.css has the colours of its classes."""

from typing import Any

import pygments
from markupsafe import Markup
from pygments.formatters import HtmlFormatter
from pygments.lexers.python import PythonLexer

_FORMATTER: Any = HtmlFormatter(nowrap=True)


def highlight(code: str) -> Markup:
    """Return Python code as HTML."""
    return Markup(pygments.highlight(code, PythonLexer(), _FORMATTER))
