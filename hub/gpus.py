"""The GPUs of a seat: a lease gives them, so that no GPU is given twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from launcher import select_gpus
from launcher.container_spec import ContainerSpec
from launcher.gpu import Gpu


class Leases(Protocol):
    """What the hub needs of a table of leases; the holder of a lease is a seat."""

    def take(self, count: int, holder: str) -> Sequence[Gpu]:
        """Return the GPUs of a lease, the same ones if the holder has a lease."""
        ...

    def bind_to_process(self, holder: str, pid: int) -> None:
        """Let a lease live as long as a process, such as that of a container."""
        ...

    def release(self, holder: str) -> None:
        """End a lease, if there is one."""
        ...


@dataclass(frozen=True)
class SeatGpus:
    """Take GPUs for seats and give them back. Without leases, seats have none.

    Attributes:
        count: How many each seat gets.
        stack: cuda or rocm.
        access: How they enter the container, as in `select_gpus.attach`.
        leases: Who has which.
    """

    count: int = 0
    stack: str = "cpu"
    access: str = "auto"
    leases: Leases | None = None

    def attach(self, spec: ContainerSpec, learner: str) -> ContainerSpec:
        """Return the container of a seat with its GPUs.

        Raises:
            Card: If all are taken.
        """
        if self.leases is None:
            return spec
        gpus = self.leases.take(self.count, _holder(learner))
        return select_gpus.attach(spec, self.stack, gpus, self.access)

    def bind(self, learner: str, pid: int) -> None:
        """Let the lease end with the container."""
        if self.leases is not None:
            self.leases.bind_to_process(_holder(learner), pid)

    def release(self, learner: str) -> None:
        """Give the GPUs of a seat back."""
        if self.leases is not None:
            self.leases.release(_holder(learner))


def _holder(learner: str) -> str:
    return f"seat {learner}"
