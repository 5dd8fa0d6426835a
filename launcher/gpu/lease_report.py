"""What people read about leases: who holds which GPUs, and the card if too many are taken."""

import pwd
import time
from collections.abc import Sequence

from common.cards import Card
from launcher.gpu.lease_files import Lease
from launcher.gpu.model import Gpu


def lease_name(gpu: Gpu) -> str:
    """Return the name of a GPU in leases: its node, which all users of the machine know."""
    return gpu.node or gpu.uuid or f"{gpu.vendor} {gpu.index}"


class AllTaken(Card):
    """Others hold too many of the GPUs. `held` has their leases, the oldest first."""

    def __init__(self, gpus: Sequence[Gpu], count: int, free: int, held: Sequence[Lease]) -> None:
        """Create the card of a request for `count` of these GPUs, of which `free` are free."""
        what = "No GPU is free." if not free else f"{count} GPUs are needed, and {free} free."
        if len(gpus) == count:
            numbers = _numbers(gpus)
            what = f"GPU {numbers} isn't free."
            if count > 1:
                what = f"Not all of these GPUs are free: {numbers}."
        super().__init__(
            what,
            f"{describe(gpus, held)}.",
            "wait for a GPU: invoke lab … --wait; or run without one: --stack cpu",
        )
        self.held = tuple(held)


def describe(gpus: Sequence[Gpu], leases: Sequence[Lease]) -> str:
    """Return who holds which of these GPUs: "GPU 0: anna (uid 1001), LLM06, since 14:02"."""
    parts: list[str] = []
    for lease in leases:
        on = [gpu for gpu in gpus if lease_name(gpu) in lease.gpus]
        if on:
            since = time.strftime("%a %H:%M", time.localtime(lease.since))
            who = f"GPU {_numbers(on)}: {_user(lease.uid)}, {lease.holder}, since {since}"
            parts.append(who + _file_of_unknown(lease))
    return "; ".join(parts)


def _file_of_unknown(lease: Lease) -> str:
    """Return the file of a lease that nobody here can see the end of, for an administrator."""
    if lease.process is None or not lease.process.is_elsewhere:
        return ""
    return f" (in another container; if that has ended, remove {lease.path})"


def _numbers(gpus: Sequence[Gpu]) -> str:
    return ", ".join(str(gpu.index) for gpu in gpus)


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
