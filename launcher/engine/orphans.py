"""Containers whose launcher was killed: remove those that have ended, name those that still run."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from common.cards import print_status
from launcher.engine import heartbeat
from launcher.engine.client import Engine

if TYPE_CHECKING:
    from docker.models.containers import Container

LABEL = "llm-labs.lab"  # the lab's name
LIVE_STATES = ("running", "paused", "restarting")
ABANDONED_AFTER = timedelta(minutes=1)


def clean_up(engine: Engine) -> None:
    """Remove the containers that killed launchers left, and print a line about each.

    An engine that was killed and started again leaves such containers, too.
    """
    for container in _containers(engine):
        lock = container.labels.get(heartbeat.LABEL, "")
        if _launcher_lives(container, lock):
            continue
        if container.status in LIVE_STATES:
            _print_running(container)
        else:
            _remove(container, Path(lock))


def _containers(engine: Engine) -> "list[Container]":
    """Return the containers of all launchers; none if the engine stops responding."""
    client = engine.client.containers
    with suppress(OSError):  # includes the SDK's errors
        return client.list(all=True, ignore_removed=True, filters={"label": LABEL})
    return []


def _launcher_lives(container: "Container", lock: str) -> bool:
    """Return whether a container's launcher lives.

    If that is unknown, because it has no lock or its lock is another user's, it is assumed to live
    as long as the container, and to remove it within seconds.
    """
    if lock:
        with suppress(PermissionError):
            return heartbeat.is_held(Path(lock))
    return container.status in LIVE_STATES or _is_recent(container)


def _is_recent(container: "Container") -> bool:
    times = (container.attrs["Created"], container.attrs["State"]["FinishedAt"])
    last = max(map(datetime.fromisoformat, times))
    return datetime.now(UTC) - last < ABANDONED_AFTER


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
