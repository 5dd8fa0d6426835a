"""For LLM10: what a step pays for fresh memory, and how the C library is told to keep it."""

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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


def in_a_fresh_process(module: str, call: str) -> Any:
    """What `call` gives in `module`, where no memory was ever asked for or freed."""
    code = f"import json, {module} as lab; print(json.dumps(lab.{call}))"
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=here, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)
