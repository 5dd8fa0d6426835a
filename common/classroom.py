"""The teacher's message and the open solutions of a class in `invoke hub`.

The hub writes them into two files of a folder that every seat mounts read-only. Without the files
there is no message, and all solutions are open. A file can be damaged after a power failure.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path("/opt/labs/class")  # in a seat
MESSAGE = "message.txt"  # a line with the time, and a line with the text
SOLUTIONS = "solutions.json"  # the labs whose solutions are open
LATER = "Your teacher opens the solutions later."


def message(folder: Path = FOLDER) -> tuple[str, str]:
    """Return the time of the teacher's message and its text; two empty texts without one."""
    try:
        when, text = (folder / MESSAGE).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):  # not there, or damaged
        return "", ""
    return when, text


def open_labs(folder: Path = FOLDER) -> list[str] | None:
    """Return the labs whose solutions are open; None if all are, none if the file is damaged."""
    try:
        names: Any = json.loads((folder / SOLUTIONS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return []
    labs: list[Any] = names if isinstance(names, list) else []
    return [str(lab) for lab in labs]


def solutions_locked(lab: str, folder: Path = FOLDER) -> bool:
    """Return whether a lab's solutions are locked for this learner."""
    names = open_labs(folder)
    return names is not None and lab not in names
