"""The leases of seats on GPUs, in the folder that `invoke lab` uses, too.

The hub holds them while a seat starts and runs. A hub that starts again takes them again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.gpu.leases import AllTaken, Leases
from launcher.gpu.model import Gpu
from launcher.gpu.select import gpu_label
from launcher.hub.gpus import HubGpus

FOLDER = Path("/lab/leases")  # in the hub's container


class SeatLeases:
    """Take and release the leases of seats."""

    def __init__(self, gpus: HubGpus, folder: Path = FOLDER) -> None:
        """Create a view of the machine's leases.

        Args:
            gpus: The GPUs of seats.
            folder: The machine's folder of leases.
        """
        self._gpus = gpus
        self._folder = folder
        self._held: dict[str, Leases] = {}  # by learner

    def take(self, learner: str) -> tuple[Gpu, ...]:
        """Take a lease for a seat; return its GPUs, or none if too many are taken.

        A learner has one seat, so a lease that a failed start has left is released first.

        Raises:
            Card: If the folder of leases can't be used.
        """
        return self._take(learner, self._gpus.gpus, self._gpus.per_seat)

    def release(self, learner: str) -> None:
        """End the lease of a seat, if it has one."""
        if learner in self._held:
            self._held.pop(learner).release(_holder(learner))

    def take_again(self, seats: Mapping[str, Sequence[str]]) -> list[str]:
        """Take leases for the seats of an earlier hub; return the learners whose GPUs others hold.

        Args:
            seats: The labels of the GPUs of each learner's seat.
        """
        return [learner for learner, labels in seats.items() if not self._again(learner, labels)]

    def _again(self, learner: str, labels: Sequence[str]) -> bool:
        gpus = tuple(gpu for gpu in self._gpus.gpus if gpu_label(gpu) in labels)
        # Fewer, if the site has taken a GPU away from the hub.
        return len(gpus) == len(labels) and bool(self._take(learner, gpus, len(gpus)))

    def _take(self, learner: str, among: tuple[Gpu, ...], count: int) -> tuple[Gpu, ...]:
        self.release(learner)
        leases = Leases(among, self._gpus.per_gpu, folder=self._folder)
        try:
            gpus = leases.take(count, _holder(learner))
        except AllTaken:
            return ()
        self._held[learner] = leases
        return gpus


def _holder(learner: str) -> str:
    return f"seat of {learner}"
