"""`python -m labs check LLM06`: grade the learner's sheet, show one mistake, record progress."""

import difflib
import json
from typing import Any

from common import classroom, progress, sheets, workbook
from common.cards import FAILED, WRONG_USAGE, Card
from common.options import Parser
from common.syllabus import Lesson, find
from common.terminal import line
from labs.kit.grader import feedback, watch
from labs.kit.grader.checker import CURRENT, Checker, Request

DESCRIPTION = "Check your sheet of a lab, exercise by exercise, then run its experiments on it."


def main(arguments: list[str]) -> int:
    """Run `python -m labs check`.

    Returns:
        0 if every exercise is right and the experiments' checks hold, else 1.
    """
    parsed = _parser().parse_args(arguments)
    lesson = _one_lesson(parsed.lab)
    _require_exercises(lesson)
    if not workbook.sheet_of(lesson).is_file():
        raise workbook.missing(lesson)
    request = Request(parsed.all, parsed.watch, parsed.hint, parsed.solution)
    _require_exercise(lesson, "--hint", request.hint)
    _require_exercise(lesson, "--solution", request.solution)
    _require_open_solutions(lesson, request.solution)
    if parsed.plan:
        print(json.dumps({"labs": [lesson.name]}))
        return 0
    if (request.hint or request.solution) and not request.watch:
        return _show(lesson, request)
    checker = Checker(lesson, request)
    return watch.run(checker) if request.watch else checker.check()


def _parser() -> Parser:
    parser = Parser(prog="python -m labs check", description=DESCRIPTION, allow_abbrev=False)
    parser.help_command = "invoke check --help"
    parser.add_argument("lab", help="LLM06, LLM06+ or 6")
    parser.add_argument("--all", action="store_true", help="show every mistake, not only the first")
    parser.add_argument("--watch", action="store_true", help="check again at every save")
    named: dict[str, Any] = {"nargs": "?", "const": CURRENT, "metavar": "EXERCISE"}
    parser.add_argument("--hint", **named, help="the next hint, or all once it is right")
    parser.add_argument("--solution", **named, help="the lab's own solution")
    parser.add_argument("--plan", action="store_true", help="check the options, print the lab")
    return parser


def _one_lesson(text: str) -> Lesson:
    lessons = find(text)
    if len(lessons) > 1:
        why = f"{text} names {len(lessons)} labs."
        raise Card("Sheets are checked one at a time.", why, "invoke check LLM06", WRONG_USAGE)
    return lessons[0]


def _require_exercises(lesson: Lesson) -> None:
    if not sheets.exercises(lesson.source):
        what = f"{lesson.name} has no exercises."
        raise Card(what, "There is nothing to check.", f"invoke lab {lesson.name}", WRONG_USAGE)


def _require_exercise(lesson: Lesson, flag: str, part: str | None) -> None:
    exercises = sheets.exercises(lesson.source)
    if part and part not in exercises:
        why = f"It has {', '.join(exercises)}."
        nearest = _nearest(part, list(exercises))
        fix = f"invoke check {lesson.name} {flag} {nearest}".rstrip()
        raise Card(f"{lesson.name} has no exercise {part!r}.", why, fix, WRONG_USAGE)


def _require_open_solutions(lesson: Lesson, part: str | None) -> None:
    if part is not None and classroom.solutions_locked(lesson.name):
        fix = f"invoke check {lesson.name} --hint {part}".rstrip()
        raise Card(f"The solutions of {lesson.name} are locked.", classroom.LATER, fix, FAILED)


def _nearest(part: str, exercises: list[str]) -> str:
    """Return the exercise that a misspelt name, or a method's name alone, means; else ""."""
    names = {name.lower().rpartition(".")[2]: name for name in reversed(exercises)}
    names |= {name.lower(): name for name in exercises}
    near = difflib.get_close_matches(part.lower(), names, n=1)
    return names[near[0]] if near else ""


def _show(lesson: Lesson, request: Request) -> int:
    """Show hints or the solution of a named exercise, without checking; return 0."""
    exercises = sheets.exercises(lesson.source)
    with progress.changing(lesson.name) as record:
        if request.hint:
            record.of(request.hint).add_hint()
        if request.solution:
            record.of(request.solution).solution = True
    if request.hint:
        part = record.of(request.hint)
        line(request.hint, "bold")
        feedback.print_hints(exercises[request.hint], part.hints, lesson.name, bool(part.done))
    if request.solution:
        feedback.print_solution(lesson.source, exercises[request.solution])
    return 0
