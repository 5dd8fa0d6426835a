"""The process that keeps a lease alive, and where to look whether it lives."""

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"


@dataclass(frozen=True)
class ProcessTable:
    """The processes of a PID namespace.

    Attributes:
        folder: its /proc, which may be mounted elsewhere.
        namespace: the namespace in which its numbers count.
    """

    folder: Path
    namespace: int

    @classmethod
    def own(cls) -> "ProcessTable":
        """Return the processes that this one sees."""
        return cls(_PROC, (_PROC / "self/ns/pid").stat().st_ino)

    def has(self, pid: int) -> bool:
        """Return whether there is such a process; True if that can't be known."""
        if self.folder != _PROC:
            # hidepid hides the processes of other users, also the first one.
            return (self.folder / str(pid)).exists() or not (self.folder / "1").exists()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's
        return True

    def start_of(self, pid: int) -> int:
        """Return when a process started, in the kernel's ticks.

        Raises:
            OSError: If there is no such process here, or /proc hides it.
        """
        text = (self.folder / str(pid) / "stat").read_text()
        return int(text.rpartition(")")[2].split()[19])  # the name before it can contain anything


@dataclass(frozen=True)
class Process:
    """A process that can't be confused with a later one of the same number."""

    pid: int
    started: int  # in the kernel's ticks since the machine started
    boot: str
    namespace: int  # the PID namespace in which `pid` counts

    @classmethod
    def running(cls, pid: int, table: ProcessTable | None = None) -> "Process":
        """Return a process that runs now.

        Raises:
            OSError: If there is no such process here, or /proc hides it.
        """
        table = table or ProcessTable.own()
        return cls(pid, table.start_of(pid), _BOOT_ID.read_text().strip(), table.namespace)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs in another PID namespace, where nobody here can see it."""
        return self.namespace != ProcessTable.own().namespace

    def is_alive(self, table: ProcessTable | None = None) -> bool:
        """Return whether it lives; True if that can't be known from here."""
        table = table or ProcessTable.own()
        if self.boot != _BOOT_ID.read_text().strip():
            return False
        if self.namespace != table.namespace:
            return True
        if not table.has(self.pid):
            return False
        try:
            return table.start_of(self.pid) == self.started
        except OSError:  # /proc is mounted with hidepid
            return True
