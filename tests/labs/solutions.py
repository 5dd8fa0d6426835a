"""The reference solutions and the wrong solutions of every lab's exercises.

tests/labs/wrong/llm06.py lists the wrong solutions of LLM06, llm06_deeper.py those of LLM06+: the
exercise, what a learner might hand in (for a method, its class), and what the message must say.
"""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.syllabus import Lesson, lessons
from labs.kit.compare import Checks

LESSONS = lessons()
FOLDERS = {lesson.folder: lesson for lesson in LESSONS if not lesson.deeper}
WRONG = Path(__file__).parent / "wrong"

Wrong = tuple[str, Any, str]


def exercises(lesson: Lesson) -> list[str]:
    """Return the names of a sitting's exercises, in the file's order."""
    return list(import_module(lesson.module).lab.exercises)


def checks_of(lesson: Lesson) -> Checks:
    """Return the checks of a lab, which are those of both sittings."""
    return import_module(lesson.checks_module).checks


def name_of_list(lesson: Lesson) -> str:
    """Return llm06 for LLM06, llm06_deeper for LLM06+."""
    name = lesson.name.removesuffix("+").lower()
    return f"{name}_deeper" if lesson.deeper else name


def wrong_solutions(lesson: Lesson) -> list[Wrong]:
    """Return the wrong solutions of a sitting's exercises; none if it has no list."""
    name = name_of_list(lesson)
    if not (WRONG / f"{name}.py").is_file():
        return []
    return import_module(f"tests.labs.wrong.{name}").WRONG


def check_wrong(lesson: Lesson, part: str, wrong: Any) -> None:
    """Check a lesson whose function or class of this exercise is replaced by a wrong one.

    Raises:
        Mistake: as it should.
    """
    module = SimpleNamespace(**vars(import_module(lesson.module)))
    owner = part.partition(".")[0]
    assert hasattr(module, owner), f"{lesson.name} has no {owner}"
    setattr(module, owner, wrong)
    checks_of(lesson).check(part, module)  # type: ignore[arg-type]
