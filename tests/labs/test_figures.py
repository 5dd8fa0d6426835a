"""The figures of the labs: each has a text for readers who can't see it."""

import ast

from common.syllabus import Lesson, lessons

import pytest


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_every_figure_has_an_alt_text(lesson: Lesson) -> None:
    """A lesson puts its figures into the report itself, or the figures of its lab do."""
    texts = [lesson.source]
    texts += [path.read_text(encoding="utf-8") for path in lesson.path.parent.glob("*figures.py")]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    drawn = [call for call in calls if ast.unparse(call.func) == "run.figure"]
    assert drawn
    without = [call.lineno for call in drawn if "alt" not in [word.arg for word in call.keywords]]
    assert without == []
