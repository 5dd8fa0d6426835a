"""For LLM10: what a step pays for fresh memory, and how the C library is told to keep it."""

import ctypes
import resource
from collections.abc import Callable
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_memory() -> None:
    """Let glibc keep memory that was freed; other C libraries are left as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and (
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # older ones' most
    ):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cost(step: Callable[[], Any], calls: int = 20) -> tuple[float, float]:
    """Of a step, a mean: its seconds of processor time, the kernel's included, and page faults.

    Processor time, for it hardly depends on what else the machine does.
    """
    for _ in range(4):  # memory settles
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(calls):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    names = ("ru_utime", "ru_stime", "ru_minflt")
    user, system, faults = (getattr(after, name) - getattr(before, name) for name in names)
    return (user + system) / calls, faults / calls
