"""The grader over all labs: the untouched sheet fails, the lab's own parts pass, mistakes are told.

As for a learner: in one warm process that forks a child for each check.
"""

import re
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from labs.course import sheets
from labs.course.syllabus import Lesson, lessons
from labs.kit import Mistake
from labs.kit.compare import check_of
from labs.kit.grader import sandbox, verdicts, worker
from labs.kit.grader.grader import CHECKED_IN, Grader
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG

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
    grader, path = Grader(lesson), lesson.path
    found = grader.grade(path, sheets.make(lesson.name, grader.source))
    assert [one.part for one in found] == list(grader.exercises)
    assert {one.state for one in found} == {NOT_WRITTEN}


@LABS
def test_a_sentinel_fails_its_check(lesson: Lesson) -> None:
    """Were it run: what the learner hasn't written can't pass by any path."""
    grader = Grader(lesson)
    sheet = worker.Sheet(lesson, lesson.path, sheets.make(lesson.name, grader.source))
    for part in grader.exercises:
        others = [one for one in grader.exercises if one != part]
        ended = sandbox.run(partial(worker.part_of, sheet, others, part), CHECKED_IN)
        verdict = verdicts.of(part, ended, CHECKED_IN, str(sheet.path), sheet.text)
        assert verdict.state == WRONG, verdict


@LABS
def test_the_lab_s_own_parts_are_right_each_within_its_limits(lesson: Lesson) -> None:
    found = Grader(lesson).grade(lesson.path, lesson.source)
    assert {one.part: one.said for one in found if one.state != RIGHT} == {}


def told(lab: str, part: str, wrong: Any) -> str:
    torch.set_num_threads(1)
    try:
        check_of(lab, part)(wrong)
    except Mistake as mistake:
        return str(mistake)
    return "right"


@LABS
def test_every_wrong_solution_is_told_its_own_mistake_in_a_child(lesson: Lesson) -> None:
    Grader(lesson)
    wrong = import_module(f"tests.labs.wrong.{lesson.name.lower()}").WRONG
    assert wrong
    missed = []
    for part, implementation, message in wrong:
        ended = sandbox.run(partial(told, lesson.name, part, implementation), CHECKED_IN)
        if ended.how != "answered" or not re.search(message, ended.answer):
            missed.append((part, message, ended))
    assert missed == []
