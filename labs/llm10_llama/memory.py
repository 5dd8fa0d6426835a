"""What a step costs: its processor time, its page faults, its time beside another one's."""

import resource
from collections.abc import Callable
from statistics import median
from typing import Any

from labs.kit import seconds_paired

import torch
import torch.nn.functional as F
from torch import Tensor

WARM_UP = 4  # calls until the allocator has settled


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


def times_as_fast(old: Callable[[], Any], new: Callable[[], Any], rounds: int) -> float:
    """Return how many times as fast `new` is: the median of the ratios of `rounds` pairs."""
    pairs = zip(*seconds_paired(old, new, rounds), strict=True)
    return median(before / after for before, after in pairs)


def step_of(model: Any, batch: int, length: int) -> Callable[[], None]:
    """Return a function that goes forward and backward on one batch of random tokens."""
    config = model.config
    v = getattr(config, "vocab_size", None) or config.vocabulary
    tokens = torch.randint(v, (batch, length + 1), device=next(model.parameters()).device)

    def step() -> None:
        out = model(tokens[:, :-1])
        logits = out if isinstance(out, Tensor) else out.logits
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        model.zero_grad()

    return step
