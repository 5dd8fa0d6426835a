"""Describe where two values first differ, in one line each."""

import math
import re
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any, cast

from labs.kit.records import show

import torch
from torch import Tensor

MAX_NUMBERS = 12  # of a tensor that is shown in full
MAX_CHARACTERS = 90
ROUNDING = 1e-5
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object whose class defines no __repr__


def _members(value: Any) -> list[Any]:
    """Return the members of a tuple or list; of anything else none."""
    return list(cast(list[Any], value)) if isinstance(value, tuple | list) else []


def _is_iterator(value: object) -> bool:
    return isinstance(value, Iterator)


def describe(value: Any) -> str:
    """Describe a tensor by dtype and shape, "float64 (2, 3)"; other values by a short repr."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype} {tuple(value.shape)}" if value.dim() else f"{dtype} {show(value.item())}"
    if _is_iterator(value):
        return f"a {type(cast(object, value)).__name__}"
    members = _members(value)
    if any(isinstance(member, Tensor) for member in members):
        return f"({', '.join(map(describe, members))})"
    if isinstance(value, FunctionType | MethodType):
        return "a function" if value.__name__ == "<lambda>" else f"the function {value.__name__}"
    text = ADDRESS.sub("", " ".join(repr(cast(object, value)).split()))
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"


def describe_arguments(positional: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Describe the arguments of a call."""
    words = [describe(value) for value in positional]
    words += [f"{name}={describe(value)}" for name, value in named.items()]
    return ", ".join(words)


def difference(expected: Any, got: Any) -> dict[str, str]:
    """Describe the difference of two values under "expected" and "got"; empty if they are equal.

    Two iterators count as equal: they can be read only once, and the check has read one.
    """
    if _is_iterator(expected) and _is_iterator(got):
        return {}
    if isinstance(expected, float) and isinstance(got, float):
        if math.isclose(expected, got, rel_tol=ROUNDING, abs_tol=ROUNDING):
            return {}
        return {"expected": f"{expected:.6g}", "got": f"{got:.6g}"}
    if isinstance(expected, Tensor) and isinstance(got, Tensor):
        return _of_tensors(expected.detach(), got.detach())
    wanted = _members(expected)
    returned = _members(got)
    if wanted and len(wanted) == len(returned):
        for number, (left, right) in enumerate(zip(wanted, returned, strict=True)):
            if found := difference(left, right):
                return {key: f"[{number}]: {text}" for key, text in found.items()}
        return {}
    if type(expected) is type(got) and not wanted and bool(expected == got):
        return {}
    return {"expected": describe(expected), "got": describe(got)}


def _of_tensors(expected: Tensor, got: Tensor) -> dict[str, str]:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return {"expected": describe(expected), "got": describe(got)}
    close = torch.isclose(got.double(), expected.double(), ROUNDING, ROUNDING, equal_nan=True)
    if close.all():
        return {}
    if 1 < expected.numel() <= MAX_NUMBERS:
        return {"expected": _in_full(expected), "got": _in_full(got)}
    index: list[int] = (~close).nonzero()[0].tolist()
    at = f" at {index}" if index else ""
    wanted = _number(expected[tuple(index)])
    returned = _number(got[tuple(index)])
    return {
        "expected": f"{wanted}{at}, in {describe(expected)}",
        "got": f"{returned}{at}; {int((~close).sum()):,} of {close.numel():,} differ",
    }


def _number(value: Tensor) -> str:
    return str(value.item()) if value.dtype == torch.bool else show(value.item())


def _in_full(value: Tensor) -> str:
    def text(entry: Any) -> str:
        members = _members(entry)
        return f"[{', '.join(map(text, members))}]" if members else show(entry)

    return text(value.tolist())
