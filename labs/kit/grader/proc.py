"""Read from /proc what a process uses and which processes it has started."""

from contextlib import suppress
from pathlib import Path


def data_bytes() -> int:
    """Return the bytes of data that this process has allocated."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


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
