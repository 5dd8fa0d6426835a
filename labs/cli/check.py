"""`python -m labs check LLM06`: grade the learner's sheet, show one mistake, record progress."""

from typing import Any

from common import progress, sheets, workbook
from common.options import Parser
from common.syllabus import Lesson
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
    lesson = workbook.checkable(parsed.lab, parsed.hint, parsed.solution)
    request = Request(parsed.all, parsed.watch, parsed.hint, parsed.solution)
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
    return parser


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
