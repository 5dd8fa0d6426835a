"""What the teacher of a class decides for all seats of `invoke hub`; elsewhere nothing is decided.

The hub writes two files into a folder that every seat mounts read-only.
"""

import json
from pathlib import Path

FOLDER = Path("/opt/labs/class")  # in a seat
MESSAGE = "message.txt"  # a line with the time, and a line with the text
SOLUTIONS = "solutions.json"  # the labs whose solutions are open
LATER = "Your teacher opens the solutions later."


def message(folder: Path = FOLDER) -> tuple[str, str]:
    """Return the time of the teacher's message and its text; two empty texts without one."""
    try:
        when, text = (folder / MESSAGE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "", ""
    return when, text


def open_labs(folder: Path = FOLDER) -> list[str] | None:
    """Return the labs whose solutions are open; None if all are."""
    try:
        return json.loads((folder / SOLUTIONS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def solutions_locked(lab: str, folder: Path = FOLDER) -> bool:
    """Return whether a lab's solutions are locked for this learner."""
    names = open_labs(folder)
    return names is not None and lab not in names
