"""Run a norm, and count the operations of PyTorch that write new numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Counting(TorchDispatchMode):
    """Counts the operations that reach the device's library while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        writes = isinstance(result, Tensor | tuple)  # promote_types returns a dtype
        self.count += writes and not function.is_view  # a view writes nothing; detach is one, too
        return result


def count_operations(call: Callable[[], Any]) -> int:
    """Return how many operations of a call write new numbers, backward passes included."""
    with _Counting() as counting:
        call()
    return counting.count


def reuse_freed_memory() -> None:
    """Make glibc reuse up to 62 MB of freed memory instead of mapping new memory.

    When an array of up to 32 MB is freed, glibc raises its thresholds to the array's size (see
    M_MMAP_THRESHOLD in the manual of mallopt). Until then, each larger array may be mapped anew.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def run_norm(norm: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor | None) -> Any:
    """Run a norm; with a `dy`, compute its gradients, too."""
    if dy is None:
        with torch.no_grad():
            return norm(*inputs)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    return torch.autograd.grad(norm(*inputs), inputs, dy)
