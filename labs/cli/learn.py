"""`python -m labs learn LLM06`: write a learner's sheet, or show what changed in the lab since."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from common import sheets, workbook
from common.options import Parser
from common.syllabus import Lesson, find
from common.terminal import line
from common.workbook import FOLDER, sheet_of

DESCRIPTION = "Write your sheet of a lab into work/: the lab, with its exercises left for you."


def main(arguments: list[str]) -> int:
    """Run `python -m labs learn`; return the exit code."""
    parser = Parser(prog="python -m labs learn", description=DESCRIPTION, allow_abbrev=False)
    parser.help_command = "invoke learn --help"
    parser.add_argument("labs", help="LLM06, 6, LLM06+, a comma list, all or all+")
    parser.add_argument("--reset", action="store_true", help="start over; the old sheet is saved")
    parser.add_argument("--handout", type=Path, metavar="DIR", help="write a class's sheets there")
    parsed = parser.parse_args(arguments)
    handout: Path | None = parsed.handout
    if handout and parsed.reset:
        parser.error("--handout writes new files only, so there is nothing to reset")
    folder = handout or FOLDER
    for lesson in find(parsed.labs):
        _learn(lesson, folder, parsed.reset)
    if handout:
        line(f"A learner puts a sheet into {FOLDER}/ of their own clone and checks it there.")
    return 0


def _learn(lesson: Lesson, folder: Path, reset: bool) -> None:
    path = sheet_of(lesson, folder)
    source = lesson.source
    exercises = sheets.exercises(source)
    if not exercises:
        line(f"{lesson.name} has no exercises.")
        return
    if reset and path.exists():
        backup = workbook.set_aside(path)
        line(f"Your old sheet is saved as {backup}. Your progress is unchanged.")
    if workbook.write_new(path, sheets.make(lesson.name, source)):
        _describe_new(lesson, path, exercises.values())
        return
    _describe_old(lesson, path, source)


def _describe_new(lesson: Lesson, path: Path, exercises: Iterable[sheets.Exercise]) -> None:
    whose = "your sheet" if path.parent == FOLDER else "a sheet"
    line(f"{path} is {whose} of {lesson.name}, {lesson.title}. Its exercises:")
    for exercise in exercises:
        line(f"  {exercise.part}, level {exercise.level}: {exercise.task}")
    if path.parent == FOLDER:
        line(f"Open it, write one of them, save, then run: invoke check {lesson.name}")


def _describe_old(lesson: Lesson, path: Path, source: str) -> None:
    """Report that the sheet exists, and show what changed in the lab since it was made."""
    try:
        text = workbook.read(path)
        mine = sheets.blank(text)
    except (SyntaxError, ValueError) as error:
        line(f"{path} exists and is unchanged. It can't be compared with the lab: {error}")
        return
    line(f"{path} exists and is unchanged.")
    before = sheets.without_head(mine).splitlines()
    now = sheets.without_head(sheets.blank(source)).splitlines()
    names = ("your sheet, without exercises", "the lab")
    changes = list(difflib.unified_diff(before, now, *names, n=1))
    if sheets.made_from(text) != sheets.digest(source):
        line(f"{lesson.name} has changed since the sheet was made. You can still use it.")
    if changes:
        line("Apart from the exercises, it differs from the lab in these lines:")
        line("\n".join(change.rstrip() for change in changes))
    line("To start over with a new sheet (the old one is saved):")
    line(f"    invoke learn {lesson.name} --reset")
