"""Sheets: they contain nothing of a solution, and everything else of the lab."""

import ast
import io
import tokenize
from pathlib import Path

from common import sheets
from common.cards import Card
from common.sheets import SENTINEL
from common.syllabus import Lesson, lessons

import pytest

LABS = pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)

# Everything that may surround a body; each solution contains the word "secret".
AWKWARD = '''\
# %% [markdown]
# # LLM90 · Å läb with – wide characters
from labs.kit import Lab
lab = Lab("LLM90")
before = "kept"  # a comment that is kept

@lab.exercise(level=1, hints=("first – ünd", "secret two", "secret three"))
def one_line(x): return x + secret  # secret, behind the body

@lab.exercise(
    level=2,
    hints=(
        "first "
        "in two pieces",  # secret, behind a hint
        # secret, between them
        "secret two",
        "secret three",
    ),
)
def long_signature(
    x: dict[str, int],  # (B, T) kept
    choose=lambda y: y,
    *rest: "a: string",
) -> dict[str, "b: c"]:  # -> (B, T) kept
    """It is documented.

    In – several lines.
    """
    # secret, before the body

    def helper(y):
        return secret(y)  # secret

    return helper(x)  # secret
    # secret, after the body

    # secret, after an empty line

after = "kept"

class Module:
    def __init__(self):
        self.kept = 1

    @lab.exercise(hints=("first", "secret", "secret"), level=3)
    def forward(self, x):  # (B, T) kept
        r"""Raw documentation."""; return secret
        # secret

    # of the class: kept
    def another(self):
        return "kept"

@lab.exercise(level=1, hints=("first",
                              "secret",
                              "secret"))
def undocumented(x):
    return (
        secret
    )
# of the module: kept
'''
SHEET = '''\
# %% [markdown]
# # LLM90 · Å läb with – wide characters
from labs.kit import Lab
lab = Lab("LLM90")
before = "kept"  # a comment that is kept

@lab.exercise(level=1, hints=("first – ünd",))
def one_line(x):
    raise NotImplementedError  # yours to write

@lab.exercise(
    level=2,
    hints=(
        "first "
        "in two pieces",
    ),
)
def long_signature(
    x: dict[str, int],  # (B, T) kept
    choose=lambda y: y,
    *rest: "a: string",
) -> dict[str, "b: c"]:  # -> (B, T) kept
    """It is documented.

    In – several lines.
    """
    raise NotImplementedError  # yours to write

after = "kept"

class Module:
    def __init__(self):
        self.kept = 1

    @lab.exercise(hints=("first",), level=3)
    def forward(self, x):  # (B, T) kept
        r"""Raw documentation."""
        raise NotImplementedError  # yours to write

    # of the class: kept
    def another(self):
        return "kept"

@lab.exercise(level=1, hints=("first",
))
def undocumented(x):
    raise NotImplementedError  # yours to write
# of the module: kept
'''


def test_blanking_removes_the_solutions_and_nothing_else() -> None:
    made = sheets.blank(AWKWARD)
    assert made == SHEET
    assert "secret" not in made
    ast.parse(made)


@LABS
def test_an_exercise_in_a_sheet_is_signature_docstring_and_sentinel(lesson: Lesson) -> None:
    made = sheets.make(lesson.name, lesson.source)
    blanked = sheets.found_in(made)
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(made).readline)
        if token.type == tokenize.COMMENT
    }
    for part, exercise in sheets.exercises(lesson.source).items():
        node = blanked[part].node
        theirs = exercise.node
        assert ast.unparse(node.args) == ast.unparse(theirs.args)
        assert ast.get_docstring(node, clean=False) == ast.get_docstring(theirs, clean=False)
        assert ast.unparse(node.body[-1]) == "raise NotImplementedError"
        assert len(node.body) == 1 + (ast.get_docstring(node) is not None)
        last = node.end_lineno or 0
        inside = {
            comments[line] for line in range(node.body[0].lineno, last + 1) if line in comments
        }
        assert inside == {SENTINEL.partition("  ")[2]}
        assert not blanked[part].written
        assert exercise.written
        for hint in exercise.hints[1:]:
            assert hint not in made
        assert exercise.hints[0] in " ".join(sheets.exercises(made)[part].hints)


@LABS
def test_outside_its_exercises_a_sheet_equals_the_lab(lesson: Lesson) -> None:
    def outside(source: str) -> list[str]:
        """Return the lines outside of all exercises and their decorators."""
        taken: set[int] = set()
        for exercise in sheets.exercises(source).values():
            first = exercise.node.decorator_list[0].lineno
            taken |= set(range(first, (exercise.node.end_lineno or 0) + 1))
        return [line for n, line in enumerate(source.splitlines(), 1) if n not in taken]

    made = sheets.without_head(sheets.make(lesson.name, lesson.source))
    assert outside(made) == outside(lesson.source)
    assert len(outside(made)) > len(lesson.source.splitlines()) / 2


@LABS
def test_a_sheet_names_its_release_and_blanking_it_again_changes_nothing(lesson: Lesson) -> None:
    made = sheets.make(lesson.name, lesson.source)
    assert sheets.made_from(made) == sheets.digest(lesson.source)
    assert sheets.made_from(lesson.source) == ""
    assert sheets.blank(made) == made
    assert sheets.without_head(made) == sheets.blank(lesson.source)


def test_blanking_a_sheet_removes_what_the_learner_wrote() -> None:
    written = SHEET.replace(SENTINEL, "return 1  # mine\n    # mine, too", 1)
    assert written != SHEET
    assert sheets.blank(written) == SHEET


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ('"""Doc."""\n    raise NotImplementedError  # yours to write', False),
        ('"""Doc."""\n    raise NotImplementedError("to do")', False),
        ('"""Doc."""', False),
        ("...", False),
        ("pass", False),
        ("if x:\n        return 1\n    raise NotImplementedError", True),
        ('"""Doc."""\n    return None', True),
        ("raise ValueError", True),
    ],
)
def test_a_placeholder_is_not_a_written_body(body: str, written: bool) -> None:
    tree = f"def part(x):\n    {body}\n"
    assert sheets.found_in(tree)["part"].written is written


def test_layout_and_comments_make_no_new_attempt() -> None:
    first, same, other = (
        sheets.found_in(f"def f(x):\n{body}")["f"].text
        for body in ("    return x+1\n", "    # so\n\n    return (x + 1)\n", "    return x + 2\n")
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("text", "why"),
    [("def f(:\n", "line 1: def f(:"), ("x = 1\n  y = 2\n", "line 2"), ("a\0b", "null")],
)
def test_invalid_python_is_a_card_that_names_the_line(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(Card) as caught:
        sheets.written(text, tmp_path / "sheet.py", {})
    assert why in caught.value.why
    assert caught.value.code == 1


def test_the_head_of_a_sheet_names_the_command_that_checks_it() -> None:
    made = sheets.make("LLM90+", AWKWARD)
    assert made.startswith("# Your sheet of LLM90+, made from the lab with sha256 ")
    assert "#     invoke check LLM90+\n" in made
    assert sheets.made_from(made) == sheets.digest(AWKWARD)


@pytest.mark.parametrize(
    "mark", ["@lab.exercise()", "@lab.exercise(level=1, hints=HINTS)", "@lab.exercise(level=1)"]
)
def test_a_level_or_a_hint_that_is_no_literal_is_an_error_that_names_the_line(mark: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: @lab\.exercise needs"):
        sheets.exercises(f"\n{mark}\ndef f(x):\n    return x\n")
