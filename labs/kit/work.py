"""work/: the learner's sheets. `python -m labs learn LLM06` writes one, never over another."""

import difflib
import os
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from labs.kit import sheets
from labs.kit.cards import FAILED, WRONG_USAGE, Card
from labs.kit.options import Parser
from labs.kit.syllabus import Lesson, find
from labs.kit.tell import line

FOLDER = Path("work")
SECONDS_FOR_AN_EDITOR = 0.3  # that puts a new file in the place of the old one
DESCRIPTION = "Write your sheet of a lab into work/: the lab, with its exercises' bodies taken out."


def sheet_of(lesson: Lesson, folder: Path = FOLDER) -> Path:
    """Where a lab's sheet is, or would be."""
    return folder / lesson.path.name


def read(path: Path) -> str:
    """A sheet's text.

    Raises:
        Card: where it isn't there, can't be read, or is no UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        what, mend = f"{path} can't be read.", f"ls -l {path}; invoke learn writes a sheet"
        raise Card(what, f"{error.strerror}.", mend, WRONG_USAGE) from error
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise Card(
            f"{path} is no UTF-8, so Python can't read it.",
            f"Line {number} has the byte 0x{content[error.start]:02x}, which no UTF-8 has there.",
            "save it as UTF-8: an editor has this under its encodings",
            FAILED,
        ) from error


def put_back(path: Path, text: str) -> None:
    """Write a sheet again that its own code has removed while it was checked."""
    if path.exists() or not os.access(path.parent, os.W_OK):  # read-only in a container
        return
    time.sleep(SECONDS_FOR_AN_EDITOR)
    if _write(path, text):
        line(f"{path} was removed while it was checked. It is back, as it was.")


def main(arguments: list[str]) -> int:
    """`python -m labs learn`; the exit code."""
    parser = Parser(prog="python -m labs learn", description=DESCRIPTION, allow_abbrev=False)
    parser.help_is_at = "invoke learn --help"
    parser.add_argument("labs", help="LLM06, 6, a comma list, or all")
    parser.add_argument("--reset", action="store_true", help="begin anew; the old sheet is kept")
    parser.add_argument("--handout", type=Path, metavar="DIR", help="write a class's sheets there")
    asked = parser.parse_args(arguments)
    lessons = find(asked.labs)
    if asked.handout and asked.reset:
        parser.error("--handout writes new files alone, there is nothing to reset")
    folder = asked.handout or FOLDER
    for lesson in lessons:
        _learn(lesson, folder, asked.reset)
    if asked.handout:
        line(f"A learner puts a sheet into {FOLDER}/ of their own clone, and checks it there.")
    return 0


def _learn(lesson: Lesson, folder: Path, reset: bool) -> None:
    path, source = sheet_of(lesson, folder), lesson.path.read_text(encoding="utf-8")
    if not sheets.exercises(source):
        line(f"{lesson.name} has no exercises.")
        return
    if reset and path.exists():
        line(f"Your old sheet is kept as {_set_aside(path)}, and so is your progress.")
    if _write(path, sheets.make(lesson.name, source)):
        _tell_of_new(lesson, path, sheets.exercises(source).values())
        return
    _tell_of_old(lesson, path, source)


def _write(path: Path, text: str) -> bool:
    """Write a new file; False where there is one, which is left alone.

    Raises:
        Card: where the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        if path.parent.is_dir():
            return False
        raise _refused(path, "a part of that path is a file") from None
    except OSError as error:
        raise _refused(path, str(error.strerror)) from error
    return True


def _refused(path: Path, why: str) -> Card:
    return Card(f"{path} can't be written.", f"{why}.", f"ls -ld {path.parent}")


def _set_aside(path: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    kept = path.with_name(f"{path.stem}.until-{stamp}.py")
    if kept.exists():
        raise Card(f"{kept} is there already.", "It was made this very second.", "try again")
    try:
        path.rename(kept)
    except OSError as error:
        raise _refused(path, str(error.strerror)) from error
    return kept


def _tell_of_new(lesson: Lesson, path: Path, exercises: Iterable[sheets.Exercise]) -> None:
    whose = "your sheet" if path.parent == FOLDER else "a sheet"
    line(f"{path} is {whose} of {lesson.name}, {lesson.title}. Its exercises:")
    for exercise in exercises:
        line(f"  {exercise.part}, level {exercise.level}: {exercise.asked}")
    if path.parent == FOLDER:
        line(f"Open it, write one of them, save, then: invoke check {lesson.name}")


def _tell_of_old(lesson: Lesson, path: Path, source: str) -> None:
    """The sheet stays; what changed in the lab since it was made is shown."""
    try:
        text = read(path)
        mine = sheets.blank(text)
    except (SyntaxError, ValueError) as error:
        line(f"{path} is there already, and stays. It can't be compared with the lab: {error}")
        return
    line(f"{path} is there already, and stays as it is.")
    before, now = (sheets.without_head(one).splitlines() for one in (mine, sheets.blank(source)))
    changes = list(difflib.unified_diff(before, now, "your sheet, bodies apart", "the lab", n=1))
    if sheets.made_from(text) != sheets.digest(source):
        line(f"{lesson.name} has changed since it was made. You can go on with it all the same.")
    if changes:
        line("Apart from what you were to write, it differs from the lab in this:")
        line("\n".join(change.rstrip() for change in changes))
    line("To begin anew, and keep it beside the new one:")
    line(f"    invoke learn {lesson.name} --reset")


def missing(lesson: Lesson) -> Card:
    """There is no sheet to check."""
    return Card(
        f"There is no sheet of {lesson.name}.",
        f"{sheet_of(lesson)} isn't there.",
        f"invoke learn {lesson.name}",
        WRONG_USAGE,
    )
