"""`python -m labs progress`: what is done, what was tried and what is next; or a class's table."""

import csv
import sys
from pathlib import Path

from common import progress, sheets, workbook
from common.options import Parser
from common.progress import Part
from common.standing import COLUMNS, MARKS, Standing
from common.syllabus import lessons
from common.terminal import leaving_reader, line, screen
from labs.cli import class_table

from rich.table import Table

DESCRIPTION = "Show your progress: exercises done, tried and not started, and what is next."


def main(arguments: list[str]) -> int:
    """Run `python -m labs progress`; return 0."""
    parser = Parser(prog="python -m labs progress", description=DESCRIPTION, allow_abbrev=False)
    parser.help_command = "invoke progress --help"
    parser.add_argument(
        "--class", dest="group", type=Path, metavar="DIR", help="show the progress of many learners"
    )
    parser.add_argument("--csv", action="store_true", help="print CSV, one line for each exercise")
    parsed = parser.parse_args(arguments)
    with leaving_reader():
        _print(parsed.group, parsed.csv)
    return 0


def _print(group: Path | None, as_csv: bool) -> None:
    if group:
        class_table.show(group, as_csv)
    elif as_csv:
        _print_csv(_own())
    else:
        _print_own(_own())


def _own() -> list[Standing]:
    """Return the learner's own progress.

    Raises:
        Card: If a file is damaged.
    """
    return [
        Standing(lesson, tuple(sheets.exercises(lesson.source)), progress.read(lesson.name))
        for lesson in lessons()
    ]


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


def _print_csv(standings: list[Standing]) -> None:
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for standing in standings:
        rows.writerows(standing.csv_rows("you"))
