"""What a call costs: its time, and the FLOPs of its matrix products."""

from collections.abc import Callable
from typing import Any

from labs.kit import seconds

from torch.utils.flop_counter import FlopCounterMode


def best(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the seconds of the fastest of several calls: other work on the machine only adds."""
    return min(seconds(call, repeats))


def product_flops(call: Callable[[], Any]) -> int:
    """Return the FLOPs of the matrix products in a call, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
