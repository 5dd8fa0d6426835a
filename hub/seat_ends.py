"""When and why a seat ended, for the learner who finds it so and for the teacher."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.hub.folder import STATE

ENDS = "ends"  # in state/: a file for each seat that has ended


@dataclass(frozen=True)
class Reason:
    """Why a seat ended.

    Attributes:
        before: What the learner reads before the time, such as "was stopped at".
        after: What the learner reads after the time.
        state: What the teacher reads before the time: "stopped" or "ended".
        brief: What the teacher reads after the time, or "".
    """

    before: str
    after: str
    state: str
    brief: str = ""


@dataclass(frozen=True)
class End(Reason):
    """The end of a seat.

    Attributes:
        when: The time in ISO format.
    """

    when: str = ""


UNEXPECTED = Reason("ended unexpectedly at", ". Your saved files are there.", "ended")


def stopped(why: str, brief: str) -> Reason:
    """Return the reason of a seat that the hub stops.

    Args:
        why: The end of the sentence "Your seat was stopped at 23:51: …".
        brief: The same for the teacher, in a few words.
    """
    return Reason("was stopped at", f": {why}", "stopped", brief)


def record(workshop: Path, name: str, reason: Reason, now: float) -> None:
    """Remember the end of a seat until it starts again.

    A full disk refuses that; the seat is stopped all the same.

    Args:
        workshop: The folder workshop/.
        name: The learner.
        reason: Why the seat ends.
        now: The time of the wall clock.
    """
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    path = _path(workshop, name)
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**asdict(reason), "when": when}), encoding="utf-8")


def read(workshop: Path, name: str) -> End | None:
    """Return the end of a seat; None if it is unknown."""
    try:
        found: dict[str, Any] = json.loads(_path(workshop, name).read_text(encoding="utf-8"))
        end = End(**found)
        time.strptime(end.when, "%Y-%m-%dT%H:%M:%SZ")
    except (OSError, ValueError, TypeError):
        return None
    return end


def forget(workshop: Path, name: str) -> None:
    """Forget the end of a seat, because it starts again."""
    with suppress(OSError):
        _path(workshop, name).unlink(missing_ok=True)


def _path(workshop: Path, name: str) -> Path:
    return workshop / STATE / ENDS / f"{name}.json"
