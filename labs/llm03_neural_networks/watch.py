"""What a call does: which torch functions it uses, and whether it raises an error."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class Watch(TorchFunctionMode):
    """Count torch's functions; note those that multiply matrices or take the numbers out."""

    PRODUCTS = (
        *("matmul", "mm", "bmm", "__matmul__", "__rmatmul__", "einsum", "linear", "dot", "mv"),
        *("addmm", "addbmm", "baddbmm", "addmv", "inner", "vdot", "tensordot", "multi_dot"),
    )
    LISTS = ("tolist", "numpy", "__array__")

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.calls = 0
        self.names: list[str] = []  # in order
        self.products: set[str] = set()
        self.lists: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call, then make it."""
        name = getattr(func, "__name__", "")
        self.calls += 1
        self.names.append(name)
        if name in self.PRODUCTS:
            self.products.add(name.strip("_"))
        if name in self.LISTS:
            self.lists.add(name.strip("_"))
        return func(*args, **(kwargs or {}))


def is_refused(method: Callable[[Any], Any], value: Any) -> bool:
    """Return whether a method, called with a value, raises a RuntimeError."""
    try:
        method(value)
    except RuntimeError:
        return True
    return False
