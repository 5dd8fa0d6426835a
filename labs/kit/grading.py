"""How a part is proved right: compare with a reference, and name the likely mistake."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

# The unit roundoff of each dtype times the length of the sums in our labs (about a thousand terms,
# whose errors add up like √n in practice), with room for a softmax on top.
_TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 8e-2,
}


class Mistake(AssertionError):
    """A part is wrong; the message says what was expected and names the mistake.

    `told` has what a learner is shown beside it, where comparing two answers would mislead, as with
    random draws: given, expected and came, as texts, and in the message's place said.
    """

    def __init__(self, message: str, **told: str) -> None:
        super().__init__(message)
        self.told = told


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference to the library that rounding explains, for values of order one.

    float64 1e-10 and float32 1e-5 are far above what a sum of a thousand terms loses and far below
    what any mistake costs. bfloat16 keeps 8 bits (unit roundoff 2⁻⁸ = 4e-3), float16 11 (5e-4):
    about twenty roundings of values up to 1.
    """
    return _TOLERANCE[dtype]


def expect_close(got: Any, want: Tensor, mistake: str, tolerance: float | None = None) -> None:
    """Compare `got` with `want`, elementwise and absolutely; NaN equals only NaN.

    Raises:
        Mistake: `mistake` where the values differ; a text of its own where type or shape does.
    """
    if not isinstance(got, Tensor):
        raise Mistake(f"a tensor of shape {tuple(want.shape)} was expected, {_kind(got)} came")
    if got.shape != want.shape:
        raise Mistake(f"shape {tuple(want.shape)} was expected, {tuple(got.shape)} came; {mistake}")
    if _place(got) != _place(want):
        raise Mistake(f"a tensor {_place(want)} was expected, one {_place(got)} came")
    if got.dtype != want.dtype:
        raise Mistake(f"dtype {want.dtype} was expected, {got.dtype} came")
    if want.dtype == torch.bool or not want.is_floating_point():
        wrong = int((got != want).sum())
        if wrong:
            raise Mistake(f"{wrong} of {want.numel()} entries are wrong; {mistake}")
        return
    bound = _TOLERANCE[want.dtype] if tolerance is None else tolerance
    if not torch.equal(got.isnan(), want.isnan()):
        raise Mistake(f"NaN came where a number was expected, or the reverse; {mistake}")
    difference = (got - want).nan_to_num().abs().max().item() if want.numel() else 0.0
    if difference > bound:
        raise Mistake(f"off by {difference:.2g} (at most {bound:.0e} is rounding); {mistake}")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same whatever was drawn before."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def equals(got: Any, wrong: Tensor) -> bool:
    """Is the answer that of a known mistake?"""
    return (
        isinstance(got, Tensor)
        and got.shape == wrong.shape
        and _place(got) == _place(wrong)
        and got.is_complex() == wrong.is_complex()
        and torch.allclose(got.to(wrong.dtype), wrong, rtol=0, atol=1e-8, equal_nan=True)
    )


def name_mistake(got: Any, mistakes: dict[str, Callable[[], Tensor]]) -> None:
    """Compare `got` with what each known mistake would give.

    Raises:
        Mistake: the message of the first mistake whose answer came.
    """
    for message, wrong in mistakes.items():
        if equals(got, wrong()):
            raise Mistake(message)


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _place(tensor: Tensor) -> str:
    """A tensor of the device meta has no numbers, a sparse one cannot be compared as it stands."""
    return f"on {tensor.device} (layout {tensor.layout})"


def check_of(lab: str, part: str) -> Callable[[Any], None]:
    """The function in labs/checks that proves `part` right: "Class.method" is `class_name`."""
    owner = part.split(".")[0]
    # a word begins at a capital after a small letter, or before one: multi_head, swi_glu, rms_norm
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", owner).lower()
    return getattr(import_module(f"labs.checks.{lab.lower()}"), words)
