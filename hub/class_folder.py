"""Write what the teacher decides for all seats: a message, and whose solutions are open."""

import json
import time
from pathlib import Path

from common import classroom
from common.syllabus import find, lessons
from launcher.hub.folder import CLASS

LONGEST_MESSAGE = 300  # characters


def write_message(workshop: Path, text: str, now: float) -> None:
    """Replace the message to all learners; an empty text removes it.

    Raises:
        OSError: If the disk refuses; then the earlier message stays.
    """
    # Terminals print it, so no character of it may control them.
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())[:LONGEST_MESSAGE]
    if line:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        _write(workshop, classroom.MESSAGE, f"{when}\n{line}\n")
    else:
        (workshop / CLASS / classroom.MESSAGE).unlink(missing_ok=True)


def lock_solutions(workshop: Path, locked: bool) -> None:
    """Lock the solutions that the teacher hasn't opened yet; or unlock all, for good.

    Raises:
        OSError: If the disk refuses.
    """
    if locked:
        _write_open(workshop, classroom.open_labs(workshop / CLASS) or [])
    else:
        (workshop / CLASS / classroom.SOLUTIONS).unlink(missing_ok=True)


def open_solutions(workshop: Path, labs: str, opens: bool) -> list[str]:
    """Open or lock the solutions of labs; return their names.

    Args:
        workshop: The folder workshop/.
        labs: The labs, as `invoke learn` takes them.
        opens: Whether to open them; otherwise they are locked.

    Raises:
        Card: If there is no such lab.
        OSError: If the disk refuses; then nothing changes.
    """
    named = [lesson.name for lesson in find(labs)]
    before = set(classroom.open_labs(workshop / CLASS) or [])
    now_open = before.union(named) if opens else before.difference(named)
    _write_open(workshop, [lesson.name for lesson in lessons() if lesson.name in now_open])
    return named


def _write_open(workshop: Path, labs: list[str]) -> None:
    _write(workshop, classroom.SOLUTIONS, json.dumps(labs))


def _write(workshop: Path, name: str, text: str) -> None:
    """Write a file so that a seat reads it complete or unchanged."""
    path = workshop / CLASS / name
    new = path.with_name(f".{name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
