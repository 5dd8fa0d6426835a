"""Measure a call: its time, warmed up and synchronised; its memory, in a new process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], Any]
ROOT = Path(__file__).resolve().parents[2]


def seconds(call: Call, repeats: int) -> list[float]:
    """Return the seconds of each of `repeats` calls, after a call that warms up."""
    call()
    return [_once(call) for _ in range(repeats)]


def seconds_paired(a: Call, b: Call, repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds of two calls in turn, a b a b …, so that other load affects both."""
    a()
    b()
    pairs = [(_once(a), _once(b)) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _once(call: Call) -> float:
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_new_process(code: str, *arguments: str) -> Any:
    """Run `code` in a new Python process, which has allocated no memory for other work.

    The code can import the labs; it finds the arguments in `sys.argv[1:]`.

    Returns:
        The last line that it prints, parsed as JSON.

    Raises:
        subprocess.CalledProcessError: if its exit code isn't 0.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def peak_bytes(call: Call) -> int:
    """Return the most bytes that a call holds at once, counted by torch's CPU allocator."""
    os.environ["KINETO_LOG_LEVEL"] = "99"  # else the profiler prints when it starts and stops
    with torch.profiler.profile(profile_memory=True) as profiler:
        call()
    profile: Any = profiler.profiler
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))
