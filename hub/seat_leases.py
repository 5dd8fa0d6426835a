"""The leases of seats on GPUs, in the folder that `invoke lab` uses, too.

A lease is first the hub's own. Once the seat's container runs, the lease lives as long as the
container's first process, and no longer. So it needs no hub: it outlives one that dies, and ends
with the seat, however that ends.
"""

import os
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from launcher.gpu.lease_process import Process, ProcessTable
from launcher.gpu.lease_report import AllTaken
from launcher.gpu.leases import Leases
from launcher.gpu.model import Gpu
from launcher.gpu.select import gpu_label
from launcher.hub.gpus import HubGpus

# In the hub's container.
FOLDER = Path("/lab/leases")
PROCESSES = Path("/lab/processes")


@dataclass(frozen=True)
class RunningSeat:
    """A container that runs, its first process, and the GPUs in its label."""

    learner: str
    pid: int
    gpus: tuple[str, ...]


class SeatLeases:
    """Take, hand over and release the leases of seats."""

    def __init__(self, gpus: HubGpus, folder: Path = FOLDER, processes: Path = PROCESSES) -> None:
        """Create a view of the machine's leases.

        Args:
            gpus: The GPUs of seats.
            folder: The machine's folder of leases.
            processes: The machine's /proc.
        """
        self._gpus = gpus
        self._folder = folder
        self._processes = ProcessTable(processes, gpus.namespace)
        self._leases = self._view(gpus.gpus)

    def _view(self, gpus: tuple[Gpu, ...]) -> Leases:
        return Leases(gpus, self._gpus.per_gpu, folder=self._folder, processes=self._processes)

    def take(self, learner: str) -> tuple[Gpu, ...]:
        """Take a lease for a seat; return its GPUs, or none if too many are taken.

        A learner has one seat, so a lease that a failed start has left is released first.

        Raises:
            Card: If the folder of leases can't be used.
        """
        self.release(learner)
        try:
            return self._leases.take(self._gpus.per_seat, _holder(learner))
        except AllTaken:
            return ()

    def hand_over(self, learner: str, pid: int) -> None:
        """Let the lease of a seat live as long as the first process of its container.

        Raises:
            OSError: If the process has ended.
        """
        self._leases.hand_over(_holder(learner), pid)

    def release(self, learner: str) -> None:
        """End the lease of a seat, unless it was handed over."""
        self._leases.release(_holder(learner))

    def find_again(self, seats: Iterable[RunningSeat]) -> list[str]:
        """Take leases again for seats that have lost theirs; return whose GPUs others hold.

        A lease is lost if the hub is killed just after it has started a container.
        """
        # A pid alone isn't enough: a lease can name a process of another PID namespace.
        held = {lease.process for lease in self._leases.held() if lease.uid == os.geteuid()}
        return [seat.learner for seat in seats if not self._has_lease(seat, held)]

    def _has_lease(self, seat: RunningSeat, held: Set[Process | None]) -> bool:
        """Return whether a seat has a lease now; True if it has ended."""
        try:
            process = Process.running(seat.pid, self._processes)
        except OSError:
            return True
        return process in held or self._take_again(seat)

    def _take_again(self, seat: RunningSeat) -> bool:
        gpus = tuple(gpu for gpu in self._gpus.gpus if gpu_label(gpu) in seat.gpus)
        if len(gpus) < len(seat.gpus):
            return False  # the site has taken a GPU away from the hub
        view = self._view(gpus)
        holder = _holder(seat.learner)
        try:
            view.take(len(gpus), holder)
            view.hand_over(holder, seat.pid)
        except AllTaken:
            return False
        except OSError:
            view.release(holder)  # the seat has ended
        return True


def _holder(learner: str) -> str:
    return f"seat of {learner}"
