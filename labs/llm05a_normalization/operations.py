"""Count the operations that PyTorch runs for a call."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Counting(TorchDispatchMode):
    """Counts the operations that reach the device's library while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function.name() != "aten::detach"  # which only hides a tensor from autograd
        return function(*args, **(kwargs or {}))


def count_operations(call: Callable[[], Any]) -> int:
    """Return the number of operations that a call runs, backward passes included."""
    with _Counting() as counting:
        call()
    return counting.count
