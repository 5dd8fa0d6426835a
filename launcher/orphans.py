"""Containers whose launcher was killed: remove those that have ended, name those that still run."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import heartbeat
from launcher.cards import print_status
from launcher.engine import Engine

if TYPE_CHECKING:
    from docker.models.containers import Container

LABEL = "llm-labs.lab"  # the lab's name
LIVE_STATES = ("running", "paused", "restarting")
# Another user's lock may be unreadable; their launcher removes its container within seconds.
ABANDONED_AFTER = timedelta(minutes=1)


def clean_up(engine: Engine) -> None:
    """Remove the containers that killed launchers left, and print a line about each.

    An engine that was killed and started again leaves such containers, too.
    """
    ours = engine.client.containers.list(all=True, ignore_removed=True, filters={"label": LABEL})
    for container in ours:
        lock = Path(container.labels.get(heartbeat.LABEL, ""))
        try:
            launcher_lives = heartbeat.is_held(lock)
        except PermissionError:
            launcher_lives = _ended_recently(container) or container.status in LIVE_STATES
        if launcher_lives:
            continue
        if container.status in LIVE_STATES:
            _print_running(container)
        elif lock.name or not _ended_recently(container):
            _remove(container, lock)


def _ended_recently(container: "Container") -> bool:
    finished = datetime.fromisoformat(container.attrs["State"]["FinishedAt"])
    return datetime.now(UTC) - finished < ABANDONED_AFTER


def _print_running(container: "Container") -> None:
    name = container.name
    print_status(
        f"{container.labels[LABEL]} of an earlier launch still runs in the container {name}, and "
        f"its launcher is gone. To end it: docker stop {name}. To follow it: docker logs -f {name}"
    )


def _remove(container: "Container", lock: Path) -> None:
    from docker.errors import APIError

    code = container.attrs["State"]["ExitCode"]
    with suppress(APIError):  # another command removes it at the same time
        container.remove()
        print_status(
            f"Removed the container {container.name} of an earlier launch: its launcher or the "
            f"engine was killed while {container.labels[LABEL]} ran (exit code {code})."
        )
    if lock.name == f".{container.name}.lock":
        with suppress(OSError):
            lock.unlink()
