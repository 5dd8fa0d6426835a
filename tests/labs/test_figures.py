"""The figures of the labs: each has a text for readers who can't see it."""

import ast

from labs.course.syllabus import Lesson, lessons

import pytest


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_every_figure_has_an_alt_text(lesson: Lesson) -> None:
    calls = [node for node in ast.walk(ast.parse(lesson.source)) if isinstance(node, ast.Call)]
    drawn = [call for call in calls if ast.unparse(call.func) == "run.figure"]
    assert drawn
    without = [call.lineno for call in drawn if "alt" not in [word.arg for word in call.keywords]]
    assert without == []
