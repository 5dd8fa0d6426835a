"""The checks of all labs: they pass the reference and name the mistake of each wrong solution."""

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from common.syllabus import Lesson
from labs.kit import Mistake
from labs.kit.compare import check_part
from tests.labs.solutions import (
    FOLDERS,
    LESSONS,
    WRONG,
    check_wrong,
    checks_of,
    exercises,
    name_of_list,
    wrong_solutions,
)

import pytest

SITTINGS = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
PARTS = [
    pytest.param(lesson, part, id=f"{lesson.name}-{part}")
    for lesson in LESSONS
    for part in exercises(lesson)
]
WRONG_SOLUTIONS = [
    pytest.param(lesson, part, wrong, message, id=f"{lesson.name}-{message}")
    for lesson in LESSONS
    for part, wrong, message in wrong_solutions(lesson)
]


@pytest.mark.parametrize(("lesson", "part"), PARTS)
def test_the_reference_is_right(lesson: Lesson, part: str) -> None:
    check_part(lesson, part, import_module(lesson.module))


@pytest.mark.parametrize(("lesson", "part", "wrong", "message"), WRONG_SOLUTIONS)
def test_the_message_names_the_mistake_of_a_wrong_solution(
    lesson: Lesson, part: str, wrong: Any, message: str
) -> None:
    with pytest.raises(Mistake, match=message):
        check_wrong(lesson, part, wrong)


@pytest.mark.parametrize(("lesson", "part"), PARTS)
def test_an_exercise_has_at_least_three_wrong_solutions_with_different_messages(
    lesson: Lesson, part: str
) -> None:
    messages = Counter(message for name, _, message in wrong_solutions(lesson) if name == part)
    assert len(messages) >= 3
    assert max(messages.values()) == 1


@SITTINGS
def test_every_wrong_solution_belongs_to_an_exercise(lesson: Lesson) -> None:
    parts = {part for part, _, _ in wrong_solutions(lesson)}
    assert parts == set(exercises(lesson))


def test_every_list_of_wrong_solutions_belongs_to_a_sitting() -> None:
    lists = {path.stem for path in WRONG.glob("llm*.py")}
    assert lists <= {name_of_list(lesson) for lesson in LESSONS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_checks_and_exercises_are_the_same_in_the_same_order(folder: str) -> None:
    sittings = [lesson for lesson in LESSONS if lesson.folder == folder]
    parts = [part for lesson in sittings for part in exercises(lesson)]
    assert checks_of(FOLDERS[folder]).parts == parts


def test_every_folder_of_a_lab_is_a_lesson() -> None:
    folders = {path.name for path in (Path(__file__).parents[2] / "labs").glob("llm*/")}
    assert folders == set(FOLDERS)
