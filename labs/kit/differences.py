"""Two values side by side, in words short enough for a line: where do they first differ?"""

from typing import Any, cast

from labs.kit.records import show

import torch
from torch import Tensor

FEW = 12  # numbers, that are shown whole
LONG = 90  # characters
ROUNDING = 1e-5


def _several(value: Any) -> list[Any]:
    """The members of a tuple or a list; of anything else none."""
    return list(cast(list[Any], value)) if isinstance(value, tuple | list) else []


def kind(value: Any) -> str:
    """float64 (2, 3) for a tensor; for other things a short repr."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype} {tuple(value.shape)}" if value.dim() else f"{dtype} {show(value.item())}"
    several = _several(value)
    if any(isinstance(one, Tensor) for one in several):
        return f"({', '.join(kind(one) for one in several)})"
    text = " ".join(repr(cast(object, value)).split())
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
    ours, theirs = _several(expected), _several(came)
    if ours and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if told := difference(one, other):
                return {key: f"[{number}]: {text}" for key, text in told.items()}
        return {}
    if type(expected) is type(came) and not ours and bool(expected == came):
        return {}
    return {"expected": kind(expected), "came": kind(came)}


def _of_tensors(expected: Tensor, came: Tensor) -> dict[str, str]:
    if expected.shape != came.shape or expected.dtype != came.dtype:
        return {"expected": kind(expected), "came": kind(came)}
    close = torch.isclose(came.double(), expected.double(), ROUNDING, ROUNDING, equal_nan=True)
    if close.all():
        return {}
    if 1 < expected.numel() <= FEW:
        return {"expected": _whole(expected), "came": _whole(came)}
    where: list[int] = (~close).nonzero()[0].tolist()
    at = f" at {where}" if where else ""
    ours, theirs = (_number(one[tuple(where)]) for one in (expected, came))
    return {
        "expected": f"{ours}{at}, in {kind(expected)}",
        "came": f"{theirs}{at}; {int((~close).sum()):,} of {close.numel():,} differ",
    }


def _number(value: Tensor) -> str:
    return str(value.item()) if value.dtype == torch.bool else show(value.item())


def _whole(value: Tensor) -> str:
    def text(one: Any) -> str:
        several = _several(one)
        return f"[{', '.join(map(text, several))}]" if several else show(one)

    return text(value.tolist())
