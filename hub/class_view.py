"""What the teacher sees: a row for each learner, from the hub, the engine and progress files."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common import class_progress, safe_files, sheets
from common.progress import Record
from common.standing import COLUMNS, Standing, has_begun
from common.syllabus import Lesson, lessons
from hub import learners, presence, seat_ends
from hub.seat_ends import End
from launcher.hub.folder import LEARNERS

READY = "ready, not entered yet"
FEW = 2  # labs that nobody has tried; of more, only the number is shown


@dataclass(frozen=True)
class Row:
    """A learner.

    Attributes:
        name: The learner's name.
        seat: "works", "ready, not entered yet", "starts" or "".
        end: The end of the seat, if it isn't there and how it ended is known.
        last_seen: The time when the learner was last here, in ISO format, or "".
        memory: The bytes that the seat uses; 0 without a seat.
        disk: The bytes that the learner's files take; None if a folder is closed to the hub.
        labs: The labs that are started or have a sheet.
        damaged: The labs whose progress files can't be read.
    """

    name: str
    seat: str
    end: End | None
    last_seen: str
    memory: int
    disk: int | None
    labs: tuple[Standing, ...]
    damaged: tuple[str, ...]

    @property
    def done(self) -> int:
        """Return the number of exercises that are done."""
        return sum(lab.count("done") for lab in self.labs)

    @property
    def tries(self) -> int:
        """Return the number of different texts that were checked."""
        return sum(part.tries for lab in self.labs for part in lab.parts.values())

    @property
    def hints(self) -> int:
        """Return the number of hints that the learner asked for."""
        return sum(part.requested_hints for lab in self.labs for part in lab.parts.values())

    @property
    def marks(self) -> list[tuple[str, str]]:
        """Return each lab in which an exercise was tried, with a mark for each exercise."""
        return [(lab.lesson.name, lab.marks) for lab in self.labs if lab.started]

    @property
    def untouched(self) -> str:
        """Return the labs of which there is only the sheet, or their number; or ""."""
        names = [lab.lesson.name for lab in self.labs if not lab.started]
        return ", ".join(names) if len(names) <= FEW else f"{len(names)} labs"

    @property
    def seat_csv(self) -> str:
        """Return the state of the seat, also of one that has ended."""
        if self.end is None:
            return self.seat
        brief = f": {self.end.brief}" if self.end.brief else ""
        return f"{self.end.state} {self.end.when}{brief}"

    @property
    def disk_mb(self) -> int | str:
        """Return the learner's files in MB, or "?"."""
        return "?" if self.disk is None else self.disk // 2**20

    @property
    def stuck(self) -> str:
        """Return the exercises that were wrong many times, or ""."""
        return ", ".join(text for lab in self.labs for text in lab.stuck)


def rows(
    workshop: Path, users: Iterable[dict[str, Any]], memory: dict[str, int], teacher: str
) -> list[Row]:
    """Return a row for each learner whom the hub knows or who has a folder, the stuck ones first.

    Args:
        workshop: The folder workshop/.
        users: The hub's models of its users.
        memory: The memory of each seat.
        teacher: The teacher, who is no learner.
    """
    known = {user["name"]: user for user in users}
    names = sorted({*known, *learners.names(workshop)} - {teacher})
    table = [_row(workshop, name, known.get(name, {}), memory) for name in names]
    return sorted(table, key=lambda row: not row.stuck)


@cache
def course() -> tuple[tuple[Lesson, tuple[str, ...]], ...]:
    """Return the labs and their exercises; reading them takes a second."""
    return tuple((lesson, tuple(sheets.exercises(lesson.source))) for lesson in lessons())


def _row(
    workshop: Path,
    name: str,
    user: dict[str, Any],
    memory: dict[str, int],
) -> Row:
    records = _records(workshop / LEARNERS, name)
    standings = (
        Standing(lesson, exercises, records.get(lesson.name) or Record())
        for lesson, exercises in course()
    )
    servers: dict[str, dict[str, Any]] = user.get("servers", {})
    server = servers.get("", {})
    last_seen = presence.last_seen(workshop, name)
    work = safe_files.names_in(workshop / LEARNERS, name, "work")
    return Row(
        name=name,
        seat=_seat(workshop, name, server),
        end=None if server else seat_ends.read(workshop, name),
        last_seen=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(last_seen)) if last_seen else "",
        memory=memory.get(name, 0),
        disk=safe_files.size_of(workshop / LEARNERS, name),
        labs=tuple(standing for standing in standings if has_begun(standing, work)),
        damaged=tuple(lab for lab, record in records.items() if record is None),
    )


def _seat(workshop: Path, name: str, server: dict[str, Any]) -> str:
    if not server.get("ready"):
        return "starts" if server.get("pending") else ""
    return "works" if presence.is_here(workshop, name, server) else READY


def _records(root: Path, name: str) -> dict[str, Record | None]:
    """Return the record of each lab that has one; None for one that can't be read."""
    labs = [lesson.name for lesson, _ in course()]
    try:
        return class_progress.records(root, (name, "work", "progress"), labs)
    except OSError:  # a link, or closed
        return {}


def csv_rows(table: list[Row]) -> Iterator[tuple[str | int, ...]]:
    """Yield the lines of a CSV file: one for each learner and exercise of a started lab."""
    yield (*COLUMNS, "seat", "last seen", "memory MB", "disk MB")
    for row in table:
        usage = (row.seat_csv, row.last_seen, row.memory // 2**20, row.disk_mb)
        if not row.labs:
            yield (row.name, *[""] * (len(COLUMNS) - 1), *usage)
        for lab in row.labs:
            for line in lab.csv_rows(row.name):
                yield (*line, *usage)
