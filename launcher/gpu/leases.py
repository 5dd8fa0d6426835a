"""Leases: who holds which GPUs of this machine. No daemon, no root, no state but files.

`invoke lab` takes a lease for as long as it runs. The lease lives while the process that took it
lives, or the process that it was bound to. So a container keeps its GPUs if its launcher is killed,
and loses them when it ends, however that happens.
All calls take milliseconds; call them from one thread or many.
"""

import fcntl
import os
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from common.cards import Card
from common.interrupts import defer_interrupts
from launcher.gpu import lease_files
from launcher.gpu.lease_files import Lease
from launcher.gpu.lease_folder import lease_folder
from launcher.gpu.lease_process import Process, ProcessTable
from launcher.gpu.lease_report import AllTaken, lease_name
from launcher.gpu.model import Gpu

SECONDS_TO_LOCK = 10  # the folder; another launcher holds its lock for milliseconds


class Leases:
    """The leases of this machine, and which of these GPUs a new one gets."""

    def __init__(
        self,
        gpus: Sequence[Gpu],
        per_gpu: int = 1,
        with_own: bool = False,
        folder: Path | None = None,
        processes: ProcessTable | None = None,
    ) -> None:
        """Create a view of the machine's leases.

        Args:
            gpus: The GPUs to give, in order of preference.
            per_gpu: How many leases may share a GPU. If leases disagree, the lowest number counts.
            with_own: Whether a lease may share a GPU with this user's others if none is free.
            folder: Where the leases are; by default, where every user of the machine has them.
            processes: Where to look for processes; by default, in the namespace of this one.

        Raises:
            Card: If the machine has no folder for leases.
        """
        self._gpus = tuple(gpus)
        self._per_gpu = per_gpu
        self._with_own = with_own
        self._folder = folder or lease_folder()
        self._processes = processes or ProcessTable.own()
        self._open: dict[str, tuple[Lease, int]] = {}  # by holder, with the lock's descriptor
        # A release must not close a descriptor that another thread is handing over.
        self._own_lock = threading.RLock()

    def take(self, count: int, holder: str) -> tuple[Gpu, ...]:
        """Take a lease on the `count` GPUs that the fewest leases are on.

        Raises:
            AllTaken: If others hold too many.
            Card: If the folder of leases can't be used.
        """
        with self._locked() as leases:
            gpus = self._choose(leases, count)
            names = tuple(map(lease_name, gpus))
            self._create(Lease(holder, names, self._per_gpu, self._with_own))
            return gpus

    def preview(self, count: int) -> tuple[Gpu, ...]:
        """Return the GPUs that `take` would take.

        Raises:
            AllTaken: If others hold too many.
        """
        with self._locked() as leases:
            return self._choose(leases, count)

    def bind_to_process(self, holder: str, pid: int) -> None:
        """Let a lease that this object took live as long as a process, too.

        Raises:
            OSError: If there is no such process in this PID namespace, or the disk is full.
        """
        with self._own_lock, self._locked():
            lease, descriptor = self._open[holder]
            bound = replace(lease, process=Process.running(pid, self._processes))
            lease_files.write(descriptor, bound)
            self._open[holder] = (bound, descriptor)

    def hand_over(self, holder: str, pid: int) -> None:
        """Let a lease that this object took live exactly as long as another process.

        Raises:
            OSError: As `bind_to_process`; then this object still has the lease.
        """
        with self._own_lock:
            self.bind_to_process(holder, pid)
            _, descriptor = self._open.pop(holder)
            os.close(descriptor)

    def release(self, holder: str) -> None:
        """End a lease that this object took, if there is one."""
        with self._own_lock:
            if holder in self._open:
                lease, descriptor = self._open.pop(holder)
                lease.path.unlink(missing_ok=True)
                os.close(descriptor)

    def held(self) -> list[Lease]:
        """Return the leases of all users on all GPUs of the machine, the oldest first."""
        with self._locked() as leases:
            return leases

    def descriptor(self, holder: str) -> int:
        """Return the descriptor whose inheritors keep the lease of a holder alive."""
        return self._open[holder][1]

    def _create(self, lease: Lease) -> None:
        try:
            with defer_interrupts():
                self._open[lease.holder] = lease_files.create(self._folder, lease)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> Card:
        return Card(
            f"The lease on a GPU can't be written to {self._folder}.",
            f"{error.strerror}.",
            f"df -h -i {self._folder} && ls -ld {self._folder}; without a GPU: --stack cpu",
        )

    def _choose(self, leases: Sequence[Lease], count: int) -> tuple[Gpu, ...]:
        """Return the GPUs for a new lease, in the order of preference."""
        on = {gpu: [held for held in leases if lease_name(gpu) in held.gpus] for gpu in self._gpus}
        free = [gpu for gpu in self._gpus if self._has_room(on[gpu])]
        own = [gpu for gpu in self._gpus if gpu not in free and self._is_own(on[gpu])]
        ranked = sorted(free, key=lambda gpu: len(on[gpu]))
        ranked += sorted(own, key=lambda gpu: len(on[gpu]))
        if len(ranked) < count:
            others = [held for held in leases if any(held in on[gpu] for gpu in self._gpus)]
            raise AllTaken(self._gpus, count, len(ranked), others)
        chosen = ranked[:count]
        return tuple(gpu for gpu in self._gpus if gpu in chosen)

    def _has_room(self, on: Sequence[Lease]) -> bool:
        return len(on) < min([self._per_gpu, *(held.per_gpu for held in on)])

    def _is_own(self, on: Sequence[Lease]) -> bool:
        return self._with_own and all(held.with_own and held.uid == os.geteuid() for held in on)

    @contextmanager
    def _locked(self) -> Generator[list[Lease]]:
        """Exclude other launchers, and yield the leases that are alive.

        The lock is on the folder itself, which no user can replace.
        """
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            _lock_within_seconds(descriptor, self._folder)
            yield lease_files.living(self._folder, self._processes)
        finally:
            os.close(descriptor)


def _lock_within_seconds(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_LOCK
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)
    raise Card(
        "The leases of GPUs can't be read.",
        f"Another process has locked {folder} for {SECONDS_TO_LOCK} seconds.",
        f"find the process and its user: lsof {folder}; or run without a GPU: --stack cpu",
    )
