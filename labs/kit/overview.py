"""`python -m labs progress`: what is done, what was tried, and what to do next; or a class's."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labs.kit import progress, sheets, work
from labs.kit.cards import WRONG_USAGE, Card
from labs.kit.options import Parser
from labs.kit.progress import Part, Record
from labs.kit.syllabus import Lesson, lessons
from labs.kit.tell import line, screen

from rich.table import Table

DESCRIPTION = "Your progress: labs and exercises done, tried and not started, and what is next."
MARKS = {"done": "✓", "tried": "✗", "not started": "·"}
COLUMNS = ("learner", "lab", "exercise", "state", "tries", "hints asked for", "solution", "done")


@dataclass(frozen=True)
class Standing:
    """How a learner stands in one lab."""

    lesson: Lesson
    exercises: tuple[str, ...]
    record: Record

    @property
    def parts(self) -> dict[str, Part]:
        """Those that the lab has today, in its order."""
        return {name: self.record.parts.get(name, Part()) for name in self.exercises}

    def count(self, state: str) -> int:
        return sum(one.state == state for one in self.parts.values())

    @property
    def begun(self) -> bool:
        return self.count("not started") < len(self.exercises)

    @property
    def finished(self) -> bool:
        return self.count("done") == len(self.exercises)


def main(arguments: list[str]) -> int:
    """`python -m labs progress`; 0."""
    parser = Parser(prog="python -m labs progress", description=DESCRIPTION, allow_abbrev=False)
    parser.help_is_at = "invoke progress --help"
    parser.add_argument("--class", dest="group", type=Path, metavar="DIR", help="of many learners")
    parser.add_argument("--csv", action="store_true", help="as CSV, a line for each exercise")
    asked = parser.parse_args(arguments)
    learners = _learners(asked.group) if asked.group else {"you": progress.FOLDER}
    standings = {name: list(_standings(folder)) for name, folder in learners.items()}
    if asked.csv:
        _print_csv(standings)
    elif asked.group:
        _print_class(standings, learners)
    else:
        _print_own(standings["you"])
    return 0


def _standings(folder: Path) -> Iterator[Standing]:
    for lesson in lessons():
        if exercises := tuple(sheets.exercises(lesson.source)):
            yield Standing(lesson, exercises, progress.read(lesson.name, folder))


def _learners(group: Path) -> dict[str, Path]:
    """The folders of a class, each named after a learner: a clone, or a copy of its work/.

    One with sheets and no progress is a learner's, too, who has nothing done as far as is known.

    Raises:
        Card: where no folder in it has a sheet or any progress.
    """
    found: dict[str, Path] = {}
    names = [lesson.path.name for lesson in lessons()]
    for folder in sorted(group.glob("*/")):
        for below in (folder / "work", folder):
            if (below / "progress").is_dir() or any((below / name).is_file() for name in names):
                found.setdefault(folder.name, below / "progress")
    if not found:
        what = f"{group} has no learners." if group.is_dir() else f"There is no folder {group}."
        why = "A class's folder has one for each learner, with work/progress/, progress/ or sheets."
        raise Card(what, why, f"ls {group if group.is_dir() else '.'}", WRONG_USAGE)
    return found


def _print_own(standings: list[Standing]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("lab", "title", "done", "tried", "best run on your parts"):
        table.add_column(column)
    for one in standings:
        done = f"{one.count('done')} of {len(one.exercises)}"
        tried = str(one.count("tried") or "")
        table.add_row(one.lesson.name, one.lesson.title, done, tried, _best(one))
    screen().print(table)
    for one in standings:
        if one.begun:
            line(f"\n{one.lesson.name}", "bold")
            for name, part in one.parts.items():
                line(f" {MARKS[part.state]} {name}{_effort(part)}")
    line(f"\nNext: {_next(standings)}")


def _best(one: Standing) -> str:
    best = one.record.best
    if not best:
        return ""
    checks = f"{best['passed']} of {best['of']} checks"
    return f"{checks}, {best['yours']} of the parts yours, {best['seconds']:.0f} s"


def _effort(part: Part) -> str:
    if part.state == "not started":
        return ""
    words = [f"{part.tries} {'try' if part.tries == 1 else 'tries'}"]
    asked = part.hints_asked
    words += [f"{asked} {'hint' if asked == 1 else 'hints'} asked for"] if asked else []
    words += ["solution seen"] if part.solution else []
    return f"  {', '.join(words)}"


def _next(standings: list[Standing]) -> str:
    """One thing to do: go on where something was begun, else begin the first that isn't done."""
    for one in standings:
        if one.finished and not one.record.best and work.sheet_of(one.lesson).is_file():
            return f"invoke check {one.lesson.name}, which runs its experiments on your parts"
    left = [one for one in standings if not one.finished]
    if not left:
        return "every exercise of every lab is done. invoke lab all --size small, on a GPU"
    one = next((each for each in left if each.begun), left[0])
    name = one.lesson.name
    if not work.sheet_of(one.lesson).is_file():
        return f"invoke learn {name}"
    for state in ("tried", "not started"):
        for part, at in one.parts.items():
            if at.state == state:
                what = "mend" if state == "tried" else "write"
                return f"{what} {part} in {work.sheet_of(one.lesson)}, then invoke check {name}"
    raise AssertionError("an unfinished lab has an exercise left")


def _print_class(standings: dict[str, list[Standing]], learners: dict[str, Path]) -> None:
    table = Table(box=None, padding=(0, 2))
    table.add_column("learner")
    begun = sorted({one.lesson.name for each in standings.values() for one in each if one.begun})
    for name in begun:
        table.add_column(name)
    table.add_column("done")
    for learner, each in standings.items():
        cells = [_cell(one) for one in each if one.lesson.name in begun]
        done = sum(one.count("done") for one in each)
        table.add_row(learner, *cells, f"{done} of {sum(len(one.exercises) for one in each)}")
    screen().print(table)
    line("\n✓ done, ✗ tried and not right yet, · not started; in the order of the lab")
    without = [name for name, folder in learners.items() if not folder.is_dir()]
    if without:
        line(f"no progress/ beside the sheets of {', '.join(without)}: were they checked?")


def _cell(one: Standing) -> str:
    return "".join(MARKS[part.state] for part in one.parts.values())


def _print_csv(standings: dict[str, list[Standing]]) -> None:
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for learner, each in standings.items():
        for one in each:
            for name, part in one.parts.items():
                effort = (part.state, part.tries, part.hints_asked)
                seen = "yes" if part.solution else ""
                rows.writerow((learner, one.lesson.name, name, *effort, seen, part.done))
