"""Formulas: LaTeX in the source, MathML in the page."""

import xml.etree.ElementTree as ET

from common import source
from common.syllabus import Lesson, lessons
from labs.kit.report.formulas import FormulaError, mathml
from labs.kit.report.markdown import Markdown, tokens

import pytest
from markdown_it.token import Token

LESSONS = pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)


def prose(lesson: Lesson) -> list[str]:
    return [cell.text for cell in source.split(lesson.source) if cell.prose]


@LESSONS
def test_every_formula_of_a_lesson_is_typeset(lesson: Lesson) -> None:
    for text in prose(lesson):
        for token in tokens(text):
            if "math" in token.type:
                ET.fromstring(mathml(token.content, display=token.type == "math_block"))


@LESSONS
def test_every_dollar_of_a_lesson_belongs_to_a_formula(lesson: Lesson) -> None:
    left = [token.content for text in prose(lesson) for token in tokens(text) if dollar(token)]
    assert left == [], "write $x$ without spaces inside, and $$ on lines of its own; money as \\$"


def dollar(token: Token) -> bool:
    return token.type == "text" and "$" in token.content


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        (r"\frac{QK^\top}{\sqrt{d_k}}", "<mfrac><mrow><mi>Q</mi><msup><mi>K</mi><mi>⊤</mi></msup>"),
        (r"\sim\mathcal N(0, \sigma^2)", "<mo>∼</mo><mi>𝒩</mi>"),
        (r"\mathbb{R}^{B \times T}", "<msup><mi>ℝ</mi>"),
        (r"-p\log_2 p", '<mi>p</mi><mspace width="0.167em" /><msub><mi>log</mi><mn>2</mn></msub>'),
        (r"\operatorname{softmax}(x)", '<mi>softmax</mi><mo stretchy="false">(</mo>'),
        (r"\lfloor x \rfloor", '<mo stretchy="false" lspace="0" rspace="0">⌊</mo>'),
        (r"\begin{aligned}a &= b\\ c &= d\end{aligned}", '<mtd columnalign="right"><mi>a</mi>'),
        (r"a < b", "<mo>&lt;</mo>"),
        (r"\text{train\_loss}", "<mtext>train_loss</mtext>"),
        (r"|x|", '<mo stretchy="false" lspace="0" rspace="0">|</mo><mi>x</mi>'),
        (r"(-1, 1)", '<mo form="prefix">−</mo><mn>1</mn>'),
        (r"x = -1", '<mo form="prefix">−</mo><mn>1</mn>'),
        (r"|x| - 1", "<mo>−</mo><mn>1</mn>"),
        (r"(n - 1) - m", "<mo>−</mo><mi>m</mi>"),
        (r"\odot", '<mo lspace="0" rspace="0">⊙</mo>'),
        (r"p(a)\ln p", '<mspace width="0.167em" /><mi>ln</mi>'),
    ],
)
def test_a_formula_becomes_mathml_that_browsers_know(latex: str, shown: str) -> None:
    assert shown in mathml(latex)


@pytest.mark.parametrize(
    "latex",
    [
        r"\nosuch{x}",
        r"\frac{1",
        r"\frac{1}",
        r"\left(x",
        "x_",
        "a & b",
        r"\operatorname{}",
        "}{",
        "",
    ],
)
def test_a_wrong_formula_is_refused(latex: str) -> None:
    with pytest.raises(FormulaError):
        mathml(latex)


def test_a_wrong_formula_is_shown_as_code_on_the_page() -> None:
    page = Markdown().render("Here $\\nosuch{<b>}$ is wrong.")
    assert r'<code class="formula">\nosuch{&lt;b&gt;}</code>' in page


def test_money_and_code_are_no_formulas() -> None:
    for text in ("It costs $5 or $6.", "It costs 5$ or 6$.", "In the shell, `$x$` is code."):
        assert "<math" not in Markdown().render(text), text


def test_a_formula_of_its_own_is_a_block() -> None:
    assert '<math display="block">' in Markdown().render("Text.\n\n$$\n\\sum_i x_i\n$$\n\nText.")


def test_a_formula_and_its_comma_stand_on_the_same_line() -> None:
    page = Markdown().render("All $z$ are 0 with ($x$) and $y$, not more.")
    assert page.count('<span class="together">') == 2
    assert 'with <span class="together">(<span class="math inline">' in page
    assert "</math></span>,</span> not more" in page
    assert "</math></span> are 0" in page
