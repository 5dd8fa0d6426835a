"""Wall-clock time of a call, fairly: warmed up, synchronised, and in pairs where two compete."""

import time
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], Any]


def seconds(call: Call, repeats: int) -> list[float]:
    """Seconds that each of `repeats` calls takes, after one that isn't counted."""
    call()
    return [_once(call) for _ in range(repeats)]


def seconds_paired(a: Call, b: Call, repeats: int) -> tuple[list[float], list[float]]:
    """The same for two calls in turn, a b a b …, so that a change of pace meets both alike."""
    a()
    b()
    pairs = [(_once(a), _once(b)) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _once(call: Call) -> float:
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
