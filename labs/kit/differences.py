"""Two values side by side, in words short enough for a line: where do they first differ?"""

from typing import Any, cast

from labs.kit.records import show

import torch
from torch import Tensor

FEW = 12  # numbers, that are shown whole
LONG = 90  # characters
ROUNDING = 1e-5


def kind(value: Any) -> str:
    """(2, 3) float64; for other things than tensors a short repr."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype} {tuple(value.shape)}" if value.dim() else f"{dtype} {show(value.item())}"
    if isinstance(value, tuple | list) and any(
        isinstance(one, Tensor) for one in cast(list[Any], value)
    ):
        return f"({', '.join(kind(one) for one in cast(list[Any], value))})"
    text = " ".join(repr(value).split())
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def kinds(given: tuple[Any, ...], named: dict[str, Any]) -> str:
    """The arguments of a call."""
    return ", ".join(
        [kind(one) for one in given] + [f"{name}={kind(one)}" for name, one in named.items()]
    )


def difference(expected: Any, came: Any) -> dict[str, str]:
    """`expected` and `came` as a reader sees their difference; empty where there is none."""
    if isinstance(expected, Tensor) and isinstance(came, Tensor):
        return _of_tensors(expected.detach(), came.detach())
    if isinstance(expected, tuple | list) and isinstance(came, type(expected)):
        pairs = list(zip(cast(list[Any], expected), cast(list[Any], came), strict=False))
        for number, (one, other) in enumerate(pairs):
            if told := difference(one, other):
                return {key: f"[{number}]: {text}" for key, text in told.items()}
        same = len(cast(list[Any], expected)) == len(cast(list[Any], came))
        return {} if same else {"expected": kind(expected), "came": kind(came)}
    same = type(expected) is type(came) and bool(expected == came)
    return {} if same else {"expected": kind(expected), "came": kind(came)}


def _of_tensors(expected: Tensor, came: Tensor) -> dict[str, str]:
    if expected.shape != came.shape or expected.dtype != came.dtype:
        return {"expected": kind(expected), "came": kind(came)}
    close = torch.isclose(came.double(), expected.double(), ROUNDING, ROUNDING, equal_nan=True)
    if close.all():
        return {}
    if 1 < expected.numel() <= FEW:
        return {"expected": _whole(expected), "came": _whole(came)}
    where = tuple((~close).nonzero()[0].tolist())
    at = f" at {list(where)}" if where else ""
    return {
        "expected": f"{_number(expected[where])}{at}, in {kind(expected)}",
        "came": f"{_number(came[where])}{at}; {int((~close).sum()):,} of {close.numel():,} differ",
    }


def _number(value: Tensor) -> str:
    return str(value.item()) if value.dtype == torch.bool else show(value.item())


def _whole(value: Tensor) -> str:
    def text(one: Any) -> str:
        return f"[{', '.join(map(text, one))}]" if isinstance(one, list) else show(one)

    return text(value.tolist())
