"""The learner's sheets in work/: read them, write them, and never overwrite one."""

import os
import time
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

from common import classroom, sheets
from common.cards import FAILED, WRONG_USAGE, Card
from common.syllabus import Lesson, find
from common.terminal import line

FOLDER = Path("work")
EDITOR_SECONDS = 0.3  # in which an editor replaces a file


def sheet_of(lesson: Lesson, folder: Path = FOLDER) -> Path:
    """Return the path of a lab's sheet, whether or not it exists."""
    return folder / lesson.sheet_name


def read(path: Path) -> str:
    """Return a sheet's text.

    Raises:
        Card: if it is missing, unreadable, or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = f"ls -l {path}; invoke learn writes a sheet"
        raise Card(f"{path} can't be read.", f"{error.strerror}.", fix, WRONG_USAGE) from error
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise Card(
            f"{path} is not UTF-8, so Python can't read it.",
            f"Line {number} contains the byte 0x{byte:02x}, which is not valid UTF-8 there.",
            "save it as UTF-8 in your editor",
            FAILED,
        ) from error


def write_new(path: Path, text: str) -> bool:
    """Write a new file; return False, and change nothing, if the file exists.

    Raises:
        Card: if the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            _write_or_remove(file, path, text)
    except FileExistsError:
        if path.parent.is_dir():
            return False
        raise _cannot_write(path, "a part of that path is a file") from None
    except OSError as error:
        raise _cannot_write(path, str(error.strerror)) from error
    return True


def _write_or_remove(file: TextIO, path: Path, text: str) -> None:
    """Write a new file; a full disk leaves none, rather than an incomplete one."""
    try:
        file.write(text)
        file.flush()
    except OSError:
        path.unlink()
        raise


def restore(path: Path, text: str) -> None:
    """Write a sheet again if its own code removed it during the check."""
    if path.exists() or not os.access(path.parent, os.W_OK):  # read-only in a container
        return
    time.sleep(EDITOR_SECONDS)
    if write_new(path, text):
        line(f"{path} was removed during the check. It has been restored.")


def set_aside(path: Path) -> Path:
    """Rename a sheet, so that a new one can be written; return the new path.

    Raises:
        Card: if it can't be renamed.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    backup = path.with_name(f"{path.stem}.until-{stamp}.py")
    if backup.exists():
        raise Card(f"{backup} exists already.", "It was made in this second.", "try again")
    try:
        path.rename(backup)
    except OSError as error:
        raise _cannot_write(path, str(error.strerror)) from error
    return backup


def missing(lesson: Lesson) -> Card:
    """Return the card for a lab that has no sheet yet."""
    return Card(
        f"There is no sheet of {lesson.name}.",
        f"{sheet_of(lesson)} doesn't exist.",
        f"invoke learn {lesson.name}",
        WRONG_USAGE,
    )


def checkable(
    lab: str, hint: str | None = None, solution: str | None = None, folder: Path = FOLDER
) -> Lesson:
    """Return the lab that a learner wants to check.

    Args:
        lab: its name, as typed.
        hint: the exercise of --hint; "" for the current one, None without the option.
        solution: the exercise of --solution, in the same way.
        folder: the folder of the sheets.

    Raises:
        Card: if it isn't one lab with exercises and a sheet, if it has no such exercise, or if the
            teacher has locked its solutions.
    """
    lesson = _one_lesson(lab)
    _require_exercises(lesson)
    if not sheet_of(lesson, folder).is_file():
        raise missing(lesson)
    _require_exercise(lesson, "--hint", hint)
    _require_exercise(lesson, "--solution", solution)
    _require_open_solutions(lesson, solution)
    return lesson


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
    near = get_close_matches(part.lower(), names, n=1)
    return names[near[0]] if near else ""


def _cannot_write(path: Path, why: str) -> Card:
    return Card(f"{path} can't be written.", f"{why}.", f"ls -ld {path.parent}")
