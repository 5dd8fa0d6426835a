"""A lock that the launcher holds while its container runs, and that the container waits for.

The kernel releases the lock when the launcher ends, even by KILL; a stopped launcher keeps it, and
so does a suspended machine. The file is in outputs/, which the container mounts. In the container,
labs/cli/heartbeat.py ends the lab once the lock is free. Docker Compose alone sets no lock.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from launcher.engine.container_spec import ContainerSpec

LABEL = "llm-labs.lock"  # the path of the lock on the host
VARIABLE = "LABS_LAUNCHER_LOCK"  # its path in the container; labs/cli/heartbeat.py reads it
INSIDE = "/lab/outputs"


@contextmanager
def hold_lock(spec: ContainerSpec, container: str) -> Generator[ContainerSpec]:
    """Hold a new lock, and yield the container spec that names it.

    If the file system refuses the lock (a full disk, no support), the container gets none and
    doesn't notice the end of its launcher.

    Args:
        spec: The container.
        container: Its name.
    """
    outputs = next((bind.source for bind in spec.binds if bind.target == INSIDE), None)
    file_name = f".{container}.lock"
    path = Path(outputs or "", file_name)
    lock = _new_lock(path) if outputs else None
    if lock is None:
        yield spec
        return
    try:
        yield replace(
            spec,
            labels={**spec.labels, LABEL: str(path)},
            environment={**spec.environment, VARIABLE: f"{INSIDE}/{file_name}"},
        )
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(lock)


def _new_lock(path: Path) -> int | None:
    """Create and lock a file; return its descriptor, or None if that is impossible."""
    # O_EXCL follows no link: the lab can write to this folder, and the launcher may be root.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Return whether a launcher holds the lock.

    Raises:
        PermissionError: If another user's folder hides the lock.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        raise
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
