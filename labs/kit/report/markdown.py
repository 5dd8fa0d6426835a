"""Render the Markdown of a lab: no HTML of its author reaches the page, formulas are typeset."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from labs.kit.report.code import highlight
from labs.kit.report.formulas import typeset

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token
from markupsafe import Markup, escape
from mdit_py_plugins.dollarmath import dollarmath_plugin

FOCUSABLE = ("<pre", '<div class="math block"', '<div class="scroll"')  # they may scroll
_BEFORE_PERCENT = re.compile(r"(?<=[\d\]]) (?=%)")
_TAG = re.compile(r"<[^>]*>")
# Browsers break a line between a formula and the comma after it.
_FORMULA_AND_PUNCTUATION = re.compile(
    r'\(*<span class="math inline">(?:(?!</span>).)*</span>[^\s<]+', re.DOTALL
)


@dataclass(frozen=True)
class Heading:
    """A heading of the page, for its table of contents."""

    level: int
    anchor: str
    text: Markup


class Markdown:
    """The Markdown of one page.

    Attributes:
        headings: those rendered so far, in the order of the page.
    """

    def __init__(self) -> None:
        """Start a page without headings."""
        self.headings: list[Heading] = []

    def render(self, text: str) -> Markup:
        """Render paragraphs, lists, tables and headings; each heading gets an anchor."""
        parsed = _PARSER.parse(text)
        for place, token in enumerate(parsed):
            if token.type == "heading_open":
                self._anchor(token, parsed[place + 1], parsed[place + 2])
            if token.type == "th_open" and not parsed[place + 1].content:
                token.tag = parsed[place + 2].tag = "td"  # an empty cell heads nothing
            elif token.type == "th_open":
                token.attrSet("scope", "col")
        return self._finish(parsed)

    def heading(self, level: int, anchor: str, text: str) -> Markup:
        """Return a heading with this anchor, and remember it."""
        shown = render_inline(text)
        self.headings.append(Heading(level, anchor, shown))
        return Markup('<h{0} id="{1}">{2} {3}</h{0}>').format(
            level, anchor, shown, link_to(anchor, shown)
        )

    def _anchor(self, opening: Token, inline: Token, closing: Token) -> None:
        level = int(opening.tag[1])
        if level == 1 and self.headings:  # a page has one title
            level = 2
        opening.tag = closing.tag = f"h{level}"
        text = Markup(_PARSER.renderer.render(inline.children or [], _PARSER.options, {}))
        anchor = self._unique(slug(inline.content))
        opening.attrSet("id", anchor)
        if level > 1:
            link = Token("html_inline", "", 0, content=f" {link_to(anchor, text)}")
            inline.children = [*(inline.children or []), link]
        self.headings.append(Heading(level, anchor, text))

    def _unique(self, anchor: str) -> str:
        taken = {heading.anchor for heading in self.headings}
        numbered = (f"{anchor}-{number}" for number in range(2, len(taken) + 3))
        return anchor if anchor not in taken else next(one for one in numbered if one not in taken)

    def _finish(self, parsed: Sequence[Token]) -> Markup:
        html: str = _PARSER.renderer.render(parsed, _PARSER.options, {})
        html = _FORMULA_AND_PUNCTUATION.sub(r'<span class="together">\g<0></span>', html)
        html = html.replace("<table>", '<div class="scroll"><table>')
        html = html.replace("</table>", "</table></div>")
        for opening in FOCUSABLE:
            html = html.replace(opening, f'{opening} tabindex="0"')
        return Markup(html)


def unbroken(text: str) -> str:
    """Return a text in which no line ends between a number and its percent sign."""
    return _BEFORE_PERCENT.sub("\u00a0", text)


def _text(_renderer: object, tokens: Sequence[Token], place: int, *_: object) -> str:
    return escapeHtml(unbroken(tokens[place].content))


def _parser() -> MarkdownIt:
    """Return a parser without HTML and images: a page asks nothing of the network."""

    def formula(latex: str, options: dict[str, bool]) -> str:
        return str(typeset(latex, display=options["display_mode"]))

    def code(text: str, language: str, _: str) -> str:
        shown = highlight(text) if language in ("py", "python") else escape(text)
        return f'<pre class="code"><code>{shown}</code></pre>'

    parser = MarkdownIt("commonmark", {"html": False, "highlight": code})
    parser.enable("table").disable("image")
    parser.add_render_rule("text", _text)
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


def render_inline(text: str) -> Markup:
    """Render a line: emphasis, code, links and formulas."""
    return Markup(_PARSER.renderInline(text))


def tokens(text: str) -> list[Token]:
    """Return all tokens of a text, inner ones after their parents."""
    return [part for token in _PARSER.parse(text) for part in (token, *(token.children or ()))]


def slug(text: str) -> str:
    """Return the anchor of a heading: its words in lower case, joined by dashes."""
    return "-".join(re.findall(r"\w+", text.lower())) or "section"


def plain(html: str) -> str:
    """Return the text of rendered Markdown, for an attribute such as alt."""
    return Markup(_TAG.sub("", html)).unescape()


def link_to(anchor: str, text: str) -> Markup:
    """Return the link that stands behind a heading."""
    name = f"Link to “{plain(text)}”"
    return Markup('<a class="anchor" href="#{}" aria-label="{}">#</a>').format(anchor, name)
