"""The page faults of a training step, and how to make the C library reuse freed memory."""

import ctypes
import resource
from collections.abc import Callable
from typing import Any

M_TRIM_THRESHOLD = -1  # from glibc's malloc.h
M_MMAP_THRESHOLD = -3
WARM_UP = 4  # calls until the allocator has settled


def keep_memory() -> None:
    """Make glibc reuse freed memory instead of returning it; do nothing with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # 32 MiB is the limit of older versions
    if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cost(step: Callable[[], Any], calls: int = 20) -> tuple[float, float]:
    """Return the processor seconds and the page faults of a step, averaged over `calls` calls.

    Processor time includes the kernel's, and hardly depends on other programs on the machine.
    """
    for _ in range(WARM_UP):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(calls):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    user = after.ru_utime - before.ru_utime
    system = after.ru_stime - before.ru_stime
    faults = after.ru_minflt - before.ru_minflt
    return (user + system) / calls, faults / calls
