"""What proves the labs' parts: it passes the reference, and tells each wrong solution its mistake.

tests/labs/wrong/llm06.py lists those of LLM06: the part as its exercise is called, what a learner
might hand in (for a method, a class that has it), and what the message must say.
"""

from collections import Counter
from importlib import import_module
from typing import Any

from labs.course.syllabus import Lesson, lessons
from labs.kit import Mistake
from labs.kit.compare import check_of

import pytest

LESSONS = {lesson.name: lesson for lesson in lessons()}


def exercises(lesson: Lesson) -> dict[str, Any]:
    return import_module(lesson.module).lab.exercises


PARTS = [(name, part) for name, lesson in LESSONS.items() for part in exercises(lesson)]
WRONG = [
    (name, *wrong)
    for name in LESSONS
    for wrong in import_module(f"tests.labs.wrong.{name.lower()}").WRONG
]


@pytest.mark.parametrize(("lab", "part"), PARTS)
def test_the_reference_is_right(lab: str, part: str) -> None:
    check_of(lab, part)(exercises(LESSONS[lab])[part].implementation)


@pytest.mark.parametrize(
    ("lab", "part", "wrong", "message"), WRONG, ids=[f"{one[0]}-{one[3]}" for one in WRONG]
)
def test_a_wrong_solution_is_told_its_mistake(
    lab: str, part: str, wrong: Any, message: str
) -> None:
    with pytest.raises(Mistake, match=message):
        check_of(lab, part)(wrong)


@pytest.mark.parametrize(("lab", "part"), PARTS)
def test_an_exercise_has_at_least_three_wrong_solutions_each_with_its_own_message(
    lab: str, part: str
) -> None:
    messages = Counter(message for one, other, _, message in WRONG if (one, other) == (lab, part))
    assert len(messages) >= 3
    assert max(messages.values()) == 1
