"""What a child process may use, and how it ended."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a child may use. A check of one part takes far less of each.

    Attributes:
        cpu_seconds: seconds of computing.
        seconds: seconds in total, without those in which other processes had the cores.
        memory: bytes beyond those of its parent, of all its processes.
        processes: child processes.
        output: printed bytes.
        disk: bytes in temporary files.
    """

    cpu_seconds: int = 10
    seconds: float = 30.0
    memory: int = 2 * 2**30
    processes: int = 16
    output: int = 2**20
    disk: int = 2**28


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        kind: returned, exited, killed, time, processes, memory, output, disk or stopped.
        result: what its task returned.
        code: its exit code, or the signal that killed it.
        output: what it printed.
        trace: where it was when it was killed, by faulthandler.
    """

    kind: str
    result: Any = None
    code: int = 0
    output: str = ""
    trace: str = ""
