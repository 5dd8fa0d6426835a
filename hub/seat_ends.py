"""Why the hub stopped a seat, for the learner who finds it stopped."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.hub_folder import STATE

ENDS = "ends"  # in state/: a file for each seat that the hub has stopped


def record(workshop: Path, name: str, reason: str, now: float) -> None:
    """Remember why a seat is stopped, until it starts again.

    A full disk refuses that; the seat is stopped all the same.

    Args:
        workshop: The folder workshop/.
        name: The learner.
        reason: The end of the sentence "Your seat was stopped at 23:51: …".
        now: The time of the wall clock.
    """
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    path = _path(workshop, name)
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"when": when, "reason": reason}), encoding="utf-8")


def read(workshop: Path, name: str) -> dict[str, str]:
    """Return when and why a seat was stopped: `when` in ISO format, `reason`; {} if unknown."""
    try:
        found: dict[str, Any] = json.loads(_path(workshop, name).read_text(encoding="utf-8"))
        return {"when": str(found["when"]), "reason": str(found["reason"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def forget(workshop: Path, name: str) -> None:
    """Forget why a seat was stopped, because it starts again."""
    with suppress(OSError):
        _path(workshop, name).unlink(missing_ok=True)


def _path(workshop: Path, name: str) -> Path:
    return workshop / STATE / ENDS / f"{name}.json"
