"""Render the Markdown of a lab: no HTML of its author reaches the page, formulas are typeset."""

from labs.kit.report.formulas import typeset

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin


def _parser() -> MarkdownIt:
    """Return a parser without HTML and images: a page asks nothing of the network."""

    def formula(latex: str, options: dict[str, bool]) -> str:
        return str(typeset(latex, display=options["display_mode"]))

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    # "$5" and "a $ b" stay text: a formula has no space at its dollars, and no digit beside them.
    parser.use(
        dollarmath_plugin,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,
        renderer=formula,
    )
    return parser


_PARSER = _parser()


def render(text: str) -> Markup:
    """Render paragraphs, lists, tables and headings."""
    return Markup(_PARSER.render(text))


def render_inline(text: str) -> Markup:
    """Render a line: emphasis, code, links and formulas."""
    return Markup(_PARSER.renderInline(text))


def tokens(text: str) -> list[Token]:
    """Return all tokens of a text, inner ones after their parents."""
    return [part for token in _PARSER.parse(text) for part in (token, *(token.children or ()))]
