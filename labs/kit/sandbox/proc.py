"""Read from /proc what processes use and which processes they have started; end those."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

SECONDS_TO_END = 10.0


def status_bytes(process: int | str, *names: str) -> int:
    """Return the sum of these lines of /proc/PID/status, in bytes; 0 if the process has ended."""
    found = 0
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(tuple(f"{name}:" for name in names)):
                found += int(line.split()[1]) * 1024
    return found


def data_bytes() -> int:
    """Return the bytes of data that this process has allocated."""
    return status_bytes("self", "VmData")


def resident_bytes(process: int | str) -> int:
    """Return the memory that a process fills, without the files that it maps."""
    return status_bytes(process, "RssAnon", "RssShmem")


def seconds_waiting(process: int) -> float:
    """Return the seconds in which a process was ready to run and other processes had the cores.

    A busy machine is not an endless loop. This is the second number of /proc/PID/schedstat
    (proc(5)); 0 if the kernel doesn't count it.
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def descendants(process: int) -> list[int]:
    """Return the processes that `process` started, and those that they started."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def deleted_file_bytes(process: int) -> int:
    """Return the size of the files that a process holds open and that have no name any more."""
    found = 0
    with suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                file = descriptor.stat()
                found += file.st_blocks * 512 if file.st_nlink == 0 else 0
    return found


def end_orphans(known: set[int]) -> None:
    """End the descendants of this process that aren't in `known`.

    They are left over from a child that has ended. Each pass ends what the last one missed: a
    process may start others until it is killed.
    """
    deadline = time.monotonic() + SECONDS_TO_END
    while orphans := set(descendants(os.getpid())) - known:
        for process in orphans:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        for process in orphans:
            with suppress(OSError):  # not our child: its parent, an orphan too, has to end first
                os.waitpid(process, os.WNOHANG)
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)
