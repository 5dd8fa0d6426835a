"""`python -m labs progress`: what is done, what was tried and what is next; or a class's table."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labs.course import progress, sheets, workbook
from labs.course.cards import WRONG_USAGE, Card
from labs.course.options import Parser
from labs.course.progress import Part, Record
from labs.course.syllabus import Lesson, lessons
from labs.course.terminal import line, screen

from rich.table import Table

DESCRIPTION = "Show your progress: exercises done, tried and not started, and what is next."
MARKS = {"done": "✓", "tried": "✗", "not started": "·"}
COLUMNS = ("learner", "lab", "exercise", "state", "tries", "hints asked for", "solution", "done")


@dataclass(frozen=True)
class Standing:
    """A learner's progress in one lab."""

    lesson: Lesson
    exercises: tuple[str, ...]
    record: Record

    @property
    def parts(self) -> dict[str, Part]:
        """The progress on each exercise that the lab has today, in its order."""
        return {name: self.record.parts.get(name, Part()) for name in self.exercises}

    def count(self, state: str) -> int:
        """Return the number of exercises in a state."""
        return sum(part.state == state for part in self.parts.values())

    @property
    def started(self) -> bool:
        """Whether any exercise was tried."""
        return self.count("not started") < len(self.exercises)

    @property
    def finished(self) -> bool:
        """Whether every exercise is done; a lab without exercises is never unfinished."""
        return self.count("done") == len(self.exercises)


def main(arguments: list[str]) -> int:
    """Run `python -m labs progress`; return 0."""
    parser = Parser(prog="python -m labs progress", description=DESCRIPTION, allow_abbrev=False)
    parser.help_command = "invoke progress --help"
    parser.add_argument(
        "--class", dest="group", type=Path, metavar="DIR", help="show the progress of many learners"
    )
    parser.add_argument("--csv", action="store_true", help="print CSV, one line for each exercise")
    parsed = parser.parse_args(arguments)
    group: Path | None = parsed.group
    learners = _learners(group) if group else {"you": progress.FOLDER}
    standings = {name: list(_standings(folder)) for name, folder in learners.items()}
    if parsed.csv:
        _print_csv(standings)
    elif group:
        _print_class(standings, learners)
    else:
        _print_own(standings["you"])
    return 0


def _standings(folder: Path) -> Iterator[Standing]:
    for lesson in lessons():
        exercises = tuple(sheets.exercises(lesson.source))
        yield Standing(lesson, exercises, progress.read(lesson.name, folder))


def _learners(group: Path) -> dict[str, Path]:
    """Return the progress folder of each learner of a class, by the name of the learner's folder.

    A learner's folder is a clone or a copy of its work/. Sheets without progress count as a
    learner who has nothing done yet.

    Raises:
        Card: if no folder in it has a sheet or progress.
    """
    learners: dict[str, Path] = {}
    names = [lesson.sheet_name for lesson in lessons()]
    for folder in sorted(group.glob("*/")):
        for work in (folder / "work", folder):
            if (work / "progress").is_dir() or any((work / name).is_file() for name in names):
                learners.setdefault(folder.name, work / "progress")
    if not learners:
        what = f"{group} has no learners." if group.is_dir() else f"There is no folder {group}."
        why = "It needs a folder for each learner, with work/progress/, progress/ or sheets in it."
        raise Card(what, why, f"ls {group if group.is_dir() else '.'}", WRONG_USAGE)
    return learners


def _print_own(standings: list[Standing]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("lab", "title", "done", "tried", "best run on your parts"):
        table.add_column(column)
    for standing in standings:
        done = f"{standing.count('done')} of {len(standing.exercises)}"
        done = done if standing.exercises else "no exercises"
        tried = str(standing.count("tried") or "")
        lesson = standing.lesson
        table.add_row(lesson.name, lesson.title, done, tried, _best_run(standing))
    screen().print(table)
    for standing in standings:
        if standing.started:
            line(f"\n{standing.lesson.name}", "bold")
            for name, part in standing.parts.items():
                line(f" {MARKS[part.state]} {name}{_effort(part)}")
    line(f"\nNext: {_next_step(standings)}")


def _best_run(standing: Standing) -> str:
    best = standing.record.best
    if not best:
        return ""
    checks = f"{best['passed']} of {best['of']} checks"
    return f"{checks}, {best['yours']} of the parts yours, {best['seconds']:.0f} s"


def _effort(part: Part) -> str:
    if part.state == "not started":
        return ""
    words = [f"{part.tries} {'try' if part.tries == 1 else 'tries'}"]
    hints = part.requested_hints
    if hints:
        words.append(f"{hints} {'hint' if hints == 1 else 'hints'} asked for")
    if part.solution:
        words.append("solution seen")
    return f"  {', '.join(words)}"


def _next_step(standings: list[Standing]) -> str:
    """Name one thing to do: continue a sheet or what was tried, else start a new lesson."""
    for standing in standings:
        has_sheet = workbook.sheet_of(standing.lesson).is_file()
        if standing.finished and not standing.record.best and has_sheet:
            name = standing.lesson.name
            return f"invoke check {name}, which runs its experiments on your parts"
    unfinished = [standing for standing in standings if not standing.finished]
    if not unfinished:
        return "every exercise of every lab is done. invoke lab all --size small, on a GPU"
    return _step_in(min(unfinished, key=_rank))


def _rank(standing: Standing) -> tuple[bool, bool, bool]:
    """Order what to do next: tried with a sheet, a new sheet, tried before, then lessons."""
    has_sheet = workbook.sheet_of(standing.lesson).is_file()
    return not has_sheet, not standing.started, standing.lesson.deeper


def _step_in(standing: Standing) -> str:
    name = standing.lesson.name
    sheet = workbook.sheet_of(standing.lesson)
    if not sheet.is_file():
        return f"invoke learn {name}"
    for state, verb in (("tried", "fix"), ("not started", "write")):
        for part, effort in standing.parts.items():
            if effort.state == state:
                return f"{verb} {part} in {sheet}, then invoke check {name}"
    raise AssertionError("an unfinished lab has an exercise left")


def _print_class(standings: dict[str, list[Standing]], learners: dict[str, Path]) -> None:
    table = Table(box=None, padding=(0, 2))
    table.add_column("learner")
    started = sorted({s.lesson.name for labs in standings.values() for s in labs if s.started})
    for name in started:
        table.add_column(name)
    table.add_column("done")
    for learner, labs in standings.items():
        cells = [_marks(standing) for standing in labs if standing.lesson.name in started]
        done = sum(standing.count("done") for standing in labs)
        exercises = sum(len(standing.exercises) for standing in labs)
        table.add_row(learner, *cells, f"{done} of {exercises}")
    screen().print(table)
    line("\n✓ done, ✗ tried and not right yet, · not started; in the order of the lab")
    without = [name for name, folder in learners.items() if not folder.is_dir()]
    if without:
        line(f"no progress/ beside the sheets of {', '.join(without)}: were they checked?")


def _marks(standing: Standing) -> str:
    return "".join(MARKS[part.state] for part in standing.parts.values())


def _print_csv(standings: dict[str, list[Standing]]) -> None:
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for learner, labs in standings.items():
        for standing in labs:
            for name, part in standing.parts.items():
                effort = (part.state, part.tries, part.requested_hints)
                seen = "yes" if part.solution else ""
                rows.writerow((learner, standing.lesson.name, name, *effort, seen, part.done))
