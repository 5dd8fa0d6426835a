"""When each learner was last here: a login, or an activity in the seat that a person caused.

Some activities that JupyterHub writes are nobody's, and don't count: the start and the end of a
seat, and the moment when a proxy that starts again gets to know a seat.
"""

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.hub.folder import STATE

SEEN = "seen"  # in state/: an empty file for each learner, whose time is that of the last sight
SECONDS_TO_BE_READY = 300  # a seat's start causes activities as long as this
SECONDS_TO_ADD = 2  # a route to the proxy


def record(workshop: Path, name: str, when: float) -> None:
    """Remember that a learner was here, unless a later time is known.

    Args:
        workshop: The folder workshop/.
        name: The learner.
        when: The time of the wall clock.
    """
    path = _path(workshop, name)
    if when <= last_seen(workshop, name):
        return
    with suppress(OSError):  # the disk is full
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (when, when))


def last_seen(workshop: Path, name: str) -> float:
    """Return when a learner was last here, by the wall clock; 0 if never."""
    try:
        return _path(workshop, name).stat().st_mtime
    except OSError:
        return 0


def record_activities(workshop: Path, users: list[dict[str, Any]]) -> None:
    """Remember the last activity in each seat, if a person caused it.

    Args:
        workshop: The folder workshop/.
        users: The hub's models of its users.
    """
    for user in users:
        server = user["servers"].get("", {})
        if not server.get("ready") or not server.get("last_activity"):
            continue
        active = _seconds(server["last_activity"])
        after_start = active > _seconds(server["started"]) + SECONDS_TO_BE_READY
        if after_start or is_here(workshop, user["name"], server):
            record(workshop, user["name"], active)


def is_here(workshop: Path, name: str, server: dict[str, Any]) -> bool:
    """Return whether a learner was here since the start of the seat."""
    return last_seen(workshop, name) >= _seconds(server["started"])


def is_beginning(route: dict[str, Any], added: dict[str, float]) -> bool:
    """Return whether the last activity of a route is only its beginning.

    Args:
        route: The data of the proxy's route.
        added: When the proxy got to know the seat of each learner, by the wall clock.
    """
    if "last_activity" not in route:
        return False
    since = added.get(route.get("user", ""), 0) - _seconds(route["last_activity"])
    return abs(since) < SECONDS_TO_ADD


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


def _path(workshop: Path, name: str) -> Path:
    return workshop / STATE / SEEN / name
