"""The lease of one run: which GPUs it gets, waiting for them, and the end of the lease."""

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from common.cards import print_status
from launcher import settings
from launcher.gpu.leases import AllTaken, Leases, describe, lease_name
from launcher.gpu.model import Gpu
from launcher.gpu.select import first_ones

PER_GPU = "LABS_PER_GPU"
SECONDS_BETWEEN_TRIES = 2


class RunLease:
    """The lease of one run. It exists after `take`, which a run without GPUs never calls."""

    def __init__(self, name: str, wait: bool, dry: bool) -> None:
        """Create a run's lease without GPUs.

        Args:
            name: The lab's name, for people.
            wait: Whether to wait while others hold the GPUs.
            dry: Whether to take no lease, and only to choose the GPUs.
        """
        self._holder = f"{name}, process {os.getpid()}"
        self._wait = wait
        self._dry = dry
        self._leases: Leases | None = None

    def take(self, gpus: Sequence[Gpu], count: int) -> tuple[tuple[Gpu, ...], str]:
        """Take `count` of the GPUs; return them, and a note on who else is on these or others.

        In a Slurm job the scheduler decides, so the run gets the first ones and no lease.

        Raises:
            Card: If others hold too many, or the leases can't be used.
        """
        if os.environ.get("SLURM_JOB_ID"):
            return first_ones(gpus, count)
        # A user may share a GPU with a lab of their own: on a machine of one user nothing waits.
        leases = Leases(gpus, per_gpu(), with_own=True)
        chosen = self._choose(leases, count)
        return chosen, self._note(leases, gpus, chosen)

    def _choose(self, leases: Leases, count: int) -> tuple[Gpu, ...]:
        if self._dry:
            return leases.preview(count)
        self._leases = leases
        try:
            return leases.take(count, self._holder)
        except AllTaken as refused:
            if not self._wait:
                raise
            print_status(f"Waiting for a GPU, until Ctrl-C. {refused.why}")
        return self._wait_for(leases, count)

    def _wait_for(self, leases: Leases, count: int) -> tuple[Gpu, ...]:
        while True:
            time.sleep(SECONDS_BETWEEN_TRIES)
            with suppress(AllTaken):
                return leases.take(count, self._holder)

    def _note(self, leases: Leases, gpus: Sequence[Gpu], chosen: Sequence[Gpu]) -> str:
        """Return which GPUs are taken, if there is a choice, and who shares them."""
        names = set(map(lease_name, chosen))
        others = [one for one in leases.held() if one.holder != self._holder]
        if shared := [one for one in others if one.gpu in names]:
            return f"it shares {describe(chosen, shared)}"
        if len(chosen) == len(gpus):
            return ""
        numbers = ", ".join(str(gpu.index) for gpu in chosen)
        return f"GPU {numbers} {'is' if len(chosen) == 1 else 'are'} free"

    @property
    def inherited(self) -> tuple[int, ...]:
        """Return the descriptors that a child process needs to keep the lease alive."""
        return self._leases.descriptors(self._holder) if self._leases else ()

    def end(self) -> None:
        """Give the GPUs back."""
        if self._leases is not None:
            self._leases.release(self._holder)


@contextmanager
def run_lease(name: str, wait: bool, dry: bool) -> Generator[RunLease]:
    """Yield the lease of a run, and end it with this block."""
    lease = RunLease(name, wait, dry)
    try:
        yield lease
    finally:
        lease.end()


def per_gpu() -> int:
    """Return how many leases may share a GPU on this machine.

    Raises:
        Card: If the setting isn't a positive integer.
    """
    setting = settings.find(PER_GPU)
    if setting is None:
        return 1
    if not setting.value.isdecimal() or int(setting.value) < 1:
        raise setting.refuse("positive integers: how many labs may share a GPU", "2")
    return int(setting.value)
