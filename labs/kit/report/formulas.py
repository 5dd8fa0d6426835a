r"""Typeset formulas: LaTeX in the source, MathML in the page.

Browsers implement MathML Core. latex2mathml writes some older MathML, and accepts commands that it
doesn't know. This module translates the former and refuses the latter.
"""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

from markupsafe import Markup, escape

THIN_SPACE = "0.167em"
_RENAMED = {r"{aligned}": "{align*}", r"\operatorname*": r"\operatorname"}
# Operators that latex2mathml writes as identifiers, which get no space around them.
_OPERATORS = {"~": "∼", "±": "±", "∓": "∓", "⌈": "⌈", "⌉": "⌉", "⌊": "⌊", "⌋": "⌋", "*": "∗"}
_IDENTIFIERS = set("∞⊤")  # the opposite case
_FENCES = set("⌈⌉⌊⌋‖|/∂")  # no space around them
_CLOSING = set(")]}|‖⌉⌋")
_SIGNS = set("+−±∓")
_ACCENTS = set("^~¯―→")
_CHILDREN = {
    "mfrac": 2,
    "mover": 2,
    "mroot": 2,
    "msub": 2,
    "msubsup": 3,
    "msup": 2,
    "munder": 2,
    "munderover": 3,
}
# MathML Core has letters of other styles only as characters of their own: the first of each style,
# for A and a (Unicode, Mathematical Alphanumeric Symbols), and those that have older code points.
_LETTERS = {
    "bold": (0x1D400, 0x1D41A),
    "bold-italic": (0x1D468, 0x1D482),
    "script": (0x1D49C, 0x1D4B6),
    "fraktur": (0x1D504, 0x1D51E),
    "double-struck": (0x1D538, 0x1D552),
    "sans-serif": (0x1D5A0, 0x1D5BA),
    "monospace": (0x1D670, 0x1D68A),
}
_OLDER = {
    "script": dict(zip("BEFHILMRego", "ℬℰℱℋℐℒℳℛℯℊℴ", strict=True)),
    "fraktur": dict(zip("CHIRZ", "ℭℌℑℜℨ", strict=True)),
    "double-struck": dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True)),
}


class FormulaError(ValueError):
    """A formula that can't be typeset."""


def mathml(latex: str, *, display: bool = False) -> str:
    """Return a formula as a `<math>` element.

    Args:
        latex: the formula, without dollars.
        display: whether it stands on a separate line.

    Raises:
        FormulaError: if it has an unknown command, or isn't complete.
    """
    from latex2mathml.converter import convert_to_element

    for old, new in _RENAMED.items():
        latex = latex.replace(old, new)
    if _depth(latex) != 0:
        raise FormulaError(f"unbalanced braces: {latex}")
    try:
        root = convert_to_element(latex, display="block" if display else "inline")
        text = ET.tostring(root, encoding="unicode")
        # latex2mathml escapes characters on its own: parse what it would write.
        root = ET.fromstring(re.sub(r"&amp;(#x?[0-9A-Fa-f]+;)", r"&\1", text))
    except Exception as error:  # its exceptions have no common class
        raise FormulaError(f"{type(error).__name__} {error}: {latex}") from error
    for element in root.iter():
        _translate(element, latex)
    for element in list(root.iter()):
        _space_operators(element)
        _space_functions(element)
    return ET.tostring(root, encoding="unicode")


def typeset(latex: str, *, display: bool = False) -> Markup:
    """Return a formula as MathML, or its source as code if it can't be typeset."""
    try:
        return Markup(mathml(latex, display=display))
    except FormulaError:
        return Markup(f'<code class="formula">{escape(latex.strip())}</code>')


def _depth(latex: str) -> int:
    r"""Return the number of braces that stay open; \{ and \} don't count."""
    braces = re.findall(r"(?<!\\)(?:\\\\)*([{}])", latex)
    return braces.count("{") - braces.count("}")


def _translate(element: ET.Element, latex: str) -> None:
    """Translate an element into MathML Core.

    Raises:
        FormulaError: if it shows a command, or lacks a part.
    """
    name = element.tag = element.tag.rpartition("}")[2]  # in HTML, no namespace is needed
    text = (element.text or "").replace(r"\_", "_")
    if "\\" in text or text == "&":
        raise FormulaError(f"unknown command {text}: {latex}")
    if len(element) != _CHILDREN.get(name, len(element)) or (name == "mo" and not text):
        raise FormulaError(f"incomplete: {latex}")
    if name == "mi" and text in _OPERATORS:
        element.tag = "mo"
        text = _OPERATORS[text]
    if text in _FENCES and "form" not in element.attrib:
        element.attrib.update(stretchy="false", lspace="0", rspace="0")
    is_name = len(text) > 1 and text.isalpha() and text != "mod"
    if name == "mo" and (is_name or text in _IDENTIFIERS):
        element.tag = "mi"
    if name == "mover" and element[1].text in _ACCENTS:
        element.attrib["accent"] = "true"
    if element.attrib.get("mathvariant") in _LETTERS:
        variant = element.attrib.pop("mathvariant")
        text = "".join(_letter(character, variant) for character in text)
    if text:
        element.text = text


def _letter(character: str, variant: str) -> str:
    """Return a letter in another style; other characters stay."""
    if character in _OLDER.get(variant, {}):
        return _OLDER[variant][character]
    upper, lower = _LETTERS[variant]
    if "A" <= character <= "Z":
        return chr(upper + ord(character) - ord("A"))
    if "a" <= character <= "z":
        return chr(lower + ord(character) - ord("a"))
    return character


def _space_operators(row: ET.Element) -> None:
    """Take the space from the sign of a number, and from an operator that stands alone."""
    children = list(row)
    if len(children) == 1 and children[0].tag == "mo":
        children[0].attrib.update(lspace="0", rspace="0")
    for before, after in pairwise(children):
        if after.tag == "mo" and after.text in _SIGNS and _separates(before):
            after.attrib["form"] = "prefix"


def _separates(element: ET.Element) -> bool:
    """Return whether an element is a space or an operator, closing brackets excepted."""
    return element.tag == "mspace" or (element.tag == "mo" and element.text not in _CLOSING)


def _space_functions(row: ET.Element) -> None:
    """Put a thin space between the name of a function (log, softmax) and its neighbours."""
    if row.tag not in ("mrow", "mtd", "mstyle", "math"):
        return
    children = list(row)
    for before, after in pairwise(children):
        spaced = _separates(before) or after.tag in ("mo", "mspace") or _opens(after)
        if not spaced and (_is_function(before) or _is_function(after)):
            row.insert(list(row).index(after), ET.Element("mspace", width=THIN_SPACE))


def _is_function(element: ET.Element) -> bool:
    """Return whether an element is a name of several letters, with or without scripts."""
    if element.tag.startswith(("msu", "mund", "mov")):
        element = element[0]
    text = element.text or ""
    return element.tag == "mi" and len(text) > 1 and text.isalpha()


def _opens(element: ET.Element) -> bool:
    """Return whether an element starts with an opening bracket."""
    while element.tag == "mrow" and len(element):
        element = element[0]
    return element.tag == "mo" and element.attrib.get("form") == "prefix"
