"""What the teacher sees: a row for each learner, from the hub, the engine and progress files."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from hub import learners, safe_files
from labs.cli.progress import COLUMNS, MARKS, Standing
from labs.course import sheets
from labs.course.progress import Part, Record
from labs.course.syllabus import Lesson, lessons
from launcher.hub_folder import LEARNERS

MOST = 10**6  # tries or hints: nobody comes this far
STUCK_TRIES = 5  # different texts of one exercise that were all wrong


@dataclass(frozen=True)
class Row:
    """A learner.

    Attributes:
        name: The learner's name.
        seat: "works", "starts" or "".
        last_seen: The time of the last activity in the seat, in ISO format, or "".
        memory: The bytes that the seat uses; 0 without a seat.
        disk: The bytes that the learner's files take; None if a folder is closed to the hub.
        labs: The started labs.
        damaged: The labs whose progress files can't be read.
    """

    name: str
    seat: str
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
        """Return each started lab with a mark for each exercise."""
        return [
            (lab.lesson.name, "".join(MARKS[part.state] for part in lab.parts.values()))
            for lab in self.labs
        ]

    @property
    def disk_mb(self) -> int | str:
        """Return the learner's files in MB, or "?"."""
        return "?" if self.disk is None else self.disk // 2**20

    @property
    def stuck(self) -> str:
        """Return the exercises that were wrong many times, or ""."""
        return ", ".join(
            f"{lab.lesson.name} {exercise} ({part.tries} tries)"
            for lab in self.labs
            for exercise, part in lab.parts.items()
            if part.state == "tried" and part.tries >= STUCK_TRIES
        )


def rows(
    workshop: Path, users: Iterable[dict[str, Any]], memory: dict[str, int], teacher: str
) -> list[Row]:
    """Return a row for each learner whom the hub knows or who has a folder.

    Args:
        workshop: The folder workshop/.
        users: The hub's models of its users.
        memory: The memory of each seat.
        teacher: The teacher, who is no learner.
    """
    known = {user["name"]: user for user in users}
    names = sorted({*known, *learners.names(workshop)} - {teacher})
    return [_row(workshop, name, known.get(name, {}), memory) for name in names]


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
    records = dict(_records(workshop / LEARNERS, name))
    standings = (
        Standing(lesson, exercises, records[lesson.name] or Record())
        for lesson, exercises in course()
        if lesson.name in records
    )
    servers: dict[str, dict[str, Any]] = user.get("servers", {})
    server = servers.get("", {})
    last_seen = server.get("last_activity") or user.get("last_activity")
    seat = "works" if server.get("ready") else "starts" if server.get("pending") else ""
    return Row(
        name=name,
        seat=seat,
        last_seen=last_seen or "",
        memory=memory.get(name, 0),
        disk=safe_files.size_of(workshop / LEARNERS, name),
        labs=tuple(standing for standing in standings if standing.started),
        damaged=tuple(lab for lab, record in records.items() if record is None),
    )


def _records(root: Path, name: str) -> Iterator[tuple[str, Record | None]]:
    """Yield the record of each lab that has one; None for one that can't be read."""
    try:
        with safe_files.open_folder(root, name, "work", "progress") as folder:
            for lesson, _ in course():
                try:
                    content = safe_files.read_file(folder, f"{lesson.name}.json")
                except FileNotFoundError:
                    continue
                except OSError:
                    yield lesson.name, None
                else:
                    yield lesson.name, parse_record(content)
    except OSError:
        return


def parse_record(content: bytes) -> Record | None:
    """Return the record in a progress file, or None: learners can write anything into it."""
    try:
        parts: dict[str, Any] = json.loads(content)["parts"]
        return Record({name: _part(values) for name, values in parts.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _part(values: dict[str, Any]) -> Part:
    """Return a part whose values have the right types and are possible.

    Raises:
        TypeError: If a type is wrong.
        ValueError: If a value isn't possible.
    """
    part = Part(**values)
    for field in fields(part):
        # Not isinstance: True would pass as a number.
        if type(getattr(part, field.name)) is not type(field.default):
            raise TypeError(f"{field.name} has another type")
    if not (0 <= part.tries < MOST and 0 <= part.hints < MOST):
        raise ValueError("a number isn't possible")
    if part.done:
        part.done.encode("ascii")  # fromisoformat accepts half a character, which no page can show
        datetime.fromisoformat(part.done)
    return part


def csv_rows(table: list[Row]) -> Iterator[tuple[str | int, ...]]:
    """Yield the lines of a CSV file: one for each learner and exercise of a started lab."""
    yield (*COLUMNS, "seat", "last seen", "memory MB", "disk MB")
    for row in table:
        usage = (row.seat, row.last_seen, row.memory // 2**20, row.disk_mb)
        if not row.labs:
            yield (row.name, *[""] * (len(COLUMNS) - 1), *usage)
        for lab in row.labs:
            for name, part in lab.parts.items():
                effort = (part.state, part.tries, part.requested_hints)
                seen = "yes" if part.solution else ""
                yield (row.name, lab.lesson.name, name, *effort, seen, part.done, *usage)
