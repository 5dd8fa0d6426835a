"""The grader on all labs: it fails an untouched sheet, passes the reference, explains mistakes.

As for a learner, one warm process forks a child for each check.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from common import sheets
from common.syllabus import Lesson, lessons
from labs.kit import Mistake
from labs.kit.grader import worker
from labs.kit.grader.grader import LIMITS, Grader
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG
from labs.kit.grader.wording import verdict_of
from labs.kit.sandbox import child
from tests.labs.solutions import check_wrong, exercises, wrong_solutions

import pytest
import torch

LABS = pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@LABS
def test_an_untouched_sheet_is_not_written_yet(lesson: Lesson) -> None:
    grader = Grader(lesson)
    verdicts = grader.grade(lesson.path, sheets.make(lesson.name, grader.source))
    assert [verdict.part for verdict in verdicts] == exercises(lesson)
    assert {verdict.state for verdict in verdicts} <= {NOT_WRITTEN}


@LABS
def test_an_unwritten_exercise_fails_its_check(lesson: Lesson) -> None:
    """If the check ran on it: an exercise that the learner hasn't written never passes."""
    grader = Grader(lesson)
    sheet = worker.Sheet(lesson, lesson.path, sheets.make(lesson.name, grader.source))
    for part in grader.exercises:
        others = [name for name in grader.exercises if name != part]
        outcome = child.run(partial(worker.check, sheet, others, part), LIMITS)
        verdict = verdict_of(part, outcome, LIMITS, str(sheet.path), sheet.text)
        assert verdict.state == WRONG, verdict


@LABS
def test_the_reference_solutions_are_right_within_the_limits(lesson: Lesson) -> None:
    verdicts = Grader(lesson).grade(lesson.path, lesson.source)
    assert len(verdicts) == len(exercises(lesson))
    wrong = {verdict.part: verdict.message for verdict in verdicts if verdict.state != RIGHT}
    assert wrong == {}


def message_for(lesson: Lesson, part: str, wrong: Any) -> str:
    torch.set_num_threads(1)
    try:
        check_wrong(lesson, part, wrong)
    except Mistake as mistake:
        return str(mistake)
    return "right"


@LABS
def test_the_message_names_each_mistake_in_a_child_too(lesson: Lesson) -> None:
    Grader(lesson)
    wrong = wrong_solutions(lesson)
    assert bool(wrong) == bool(exercises(lesson))
    missed = []
    for part, implementation, message in wrong:
        task = partial(message_for, lesson, part, implementation)
        outcome = child.run(task, LIMITS)
        if outcome.kind != "returned" or not re.search(message, outcome.result):
            missed.append((part, message, outcome))
    assert missed == []
