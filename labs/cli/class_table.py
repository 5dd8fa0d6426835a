"""`python -m labs progress --class`: the progress of many learners, as a table or CSV.

It runs outside of any container, so it follows no link of a learner, and reads plain files only.
"""

import csv
import os
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from common import class_progress, safe_files, sheets
from common.cards import WRONG_USAGE, Card
from common.progress import Record
from common.standing import COLUMNS, Standing, has_begun
from common.syllabus import Lesson, lessons
from common.terminal import line, screen

from rich.table import Table

DAMAGED = "damaged"
FEW = 2  # labs that nobody has started; more have no column
ARCHIVE_TOP = "class"  # the folder that an archive of a hub unpacks to


@dataclass(frozen=True)
class Learner:
    """A learner of a class.

    Attributes:
        name: The name of the learner's folder.
        standings: The progress in each lab.
        damaged: The labs whose progress can't be read.
        is_closed: Whether the folder of progress files can't be read, or a link leads to it.
        has_progress: Whether there is such a folder.
        work: The names beside that folder, of which some are sheets.
    """

    name: str
    standings: list[Standing]
    damaged: set[str]
    is_closed: bool
    has_progress: bool
    work: frozenset[str]

    def has_begun(self, standing: Standing) -> bool:
        """Return whether the learner has tried an exercise of a lab or has its sheet."""
        return has_begun(standing, self.work)


def show(group: Path, as_csv: bool) -> None:
    """Print the progress of all learners who have a folder in `group`.

    Raises:
        Card: If nobody has.
    """
    course = [(lesson, tuple(sheets.exercises(lesson.source))) for lesson in lessons()]
    learners = [_learner(group / name, parts, course) for name, parts in _folders(group).items()]
    if as_csv:
        _print_csv(learners)
    else:
        _print_table(learners)


def _learner(
    folder: Path, parts: tuple[str, ...], course: list[tuple[Lesson, tuple[str, ...]]]
) -> Learner:
    labs = [lesson.name for lesson, _ in course]
    is_closed = False
    try:
        records = class_progress.records(folder, parts, labs)
    except OSError:
        records = dict.fromkeys(labs)
        is_closed = True
    return Learner(
        name=folder.name,
        standings=[
            Standing(lesson, exercises, records.get(lesson.name) or Record())
            for lesson, exercises in course
        ],
        damaged={lab for lab, record in records.items() if record is None},
        is_closed=is_closed,
        has_progress=is_closed or folder.joinpath(*parts).is_dir(),
        work=safe_files.names_in(folder, *parts[:-1]),
    )


def _folders(group: Path) -> dict[str, tuple[str, ...]]:
    """Return for each learner the names of the folders down to the progress files.

    A learner's folder is a clone or a copy of its work/. Sheets without progress count as a
    learner who has nothing done yet.

    Raises:
        Card: If no folder in it has a sheet or progress.
    """
    found: dict[str, tuple[str, ...]] = {}
    for folder in sorted(group.glob("*/")):
        for parts in (("work",), ()):
            if _has_work(folder.joinpath(*parts)):
                found.setdefault(folder.name, (*parts, "progress"))
    if not found:
        raise _no_learners(group)
    return found


def _no_learners(group: Path) -> Card:
    """Return the card for a path where no learner has work."""
    if group.is_file() and tarfile.is_tarfile(group):
        fix = f"tar -xzf {group}, then: invoke progress --class {ARCHIVE_TOP}"
        why = "The progress in it can be read once it is unpacked."
        return Card(f"{group} is an archive.", why, fix, WRONG_USAGE)
    what = f"{group} has no learners." if group.is_dir() else f"There is no folder {group}."
    why = "It needs a folder for each learner, with work/progress/, progress/ or sheets in it."
    places = (group / "learners", group / ARCHIVE_TOP, Path("workshop/learners"))
    near = next((place for place in places if place.is_dir()), None)
    fix = f"invoke progress --class {near or 'FOLDER'}"
    return Card(what, why, fix, WRONG_USAGE)


def _has_work(folder: Path) -> bool:
    """Return whether a folder has progress or a sheet, or is a closed or linked work/."""
    is_plain = os.access(folder, os.R_OK | os.X_OK) and not folder.is_symlink()
    if folder.name == "work" and not is_plain:
        return os.path.lexists(folder)
    names = ("progress", *(lesson.sheet_name for lesson in lessons()))
    return any(os.path.lexists(folder / name) for name in names)


def _print_table(learners: list[Learner]) -> None:
    table = Table(box=None, padding=(0, 2))
    table.add_column("learner")
    labs, untouched = _shown_labs(learners)
    for lab in labs:
        table.add_column(lab)
    table.add_column("done")
    for learner in learners:
        cells = [
            _cell(learner, standing)
            for standing in learner.standings
            if standing.lesson.name in labs
        ]
        done = sum(standing.count("done") for standing in learner.standings)
        exercises = sum(len(standing.exercises) for standing in learner.standings)
        table.add_row(learner.name, *cells, f"{done} of {exercises}")
    screen().print(table)
    line("\n✓ done, ✗ tried and not right yet, · not started; in the order of the lab")
    for learner in learners:
        if stuck := [text for standing in learner.standings for text in standing.stuck]:
            line(f"{learner.name} is stuck: {', '.join(stuck)}")
    if untouched:
        line(f"handed out, and not started by anybody: {', '.join(untouched)}")
    _print_what_is_missing(learners)


def _cell(learner: Learner, standing: Standing) -> str:
    if standing.lesson.name in learner.damaged:
        return DAMAGED
    return standing.marks if learner.has_begun(standing) else ""


def _shown_labs(learners: list[Learner]) -> tuple[list[str], list[str]]:
    """Return the labs to show, and those that were handed out and that nobody has started.

    Shown are labs that somebody has started, or whose record is damaged; and of the others a few.
    """
    shown: set[str] = set()
    begun: set[str] = set()
    for learner in learners:
        shown |= {standing.lesson.name for standing in learner.standings if standing.started}
        begun |= {one.lesson.name for one in learner.standings if learner.has_begun(one)}
        if not learner.is_closed:
            shown |= learner.damaged
    untouched = begun - shown
    if len(untouched) <= FEW:
        return sorted(shown | untouched), []
    return sorted(shown), sorted(untouched)


def _print_what_is_missing(learners: list[Learner]) -> None:
    if without := [learner.name for learner in learners if not learner.has_progress]:
        line(f"no progress/ beside the sheets of {', '.join(without)}: were they checked?")
    for learner in learners:
        if learner.is_closed:
            line(f"{learner.name}: progress/ can't be read, or is a link")
        elif learner.damaged:
            labs = ", ".join(sorted(learner.damaged))
            line(f"{learner.name}: damaged, or no plain file: progress/ of {labs}")


def _print_csv(learners: list[Learner]) -> None:
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for learner in learners:
        for standing in learner.standings:
            for row in standing.csv_rows(learner.name):
                if standing.lesson.name in learner.damaged:
                    row = (*row[:3], DAMAGED, *row[4:])
                rows.writerow(row)
