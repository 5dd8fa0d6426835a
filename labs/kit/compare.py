"""Check a part of a lab: compare it with a reference, and name the likely mistake.

Each lab's checks.py has one `Checks`, in which every exercise is registered.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from common.syllabus import Lesson

import torch
from torch import Tensor

Check = Callable[[Any], None]
# The unit roundoff of each dtype times the length of the sums in our labs (about a thousand terms,
# whose errors grow like √n in practice), with room for a softmax on top.
_TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 8e-2,
}


class Mistake(AssertionError):
    """A part is wrong. The message says what was expected and names the mistake.

    Attributes:
        details: what a learner sees in place of a comparison of two results, which would mislead
            for random draws: the texts `arguments`, `expected`, `got` and `message`.
    """

    def __init__(self, message: str, /, **details: str) -> None:
        super().__init__(message)
        self.details = details


class Checks:
    """The checks of one lab, by exercise."""

    def __init__(self) -> None:
        self._of: dict[str, Check] = {}

    def proves(self, part: str) -> Callable[[Check], Check]:
        """Register a function as the check of an exercise, "function" or "Class.method".

        The function takes the module that has the implementation: the lesson, or a sheet.

        Raises:
            ValueError: if the exercise already has a check.
        """

        def register(check: Check) -> Check:
            if part in self._of:
                raise ValueError(f"{part!r} has two checks")
            self._of[part] = check
            return check

        return register

    def check(self, part: str, module: ModuleType) -> None:
        """Check `part` as `module` implements it.

        Raises:
            Mistake: if it is wrong.
            LookupError: if the part has no check.
        """
        if part not in self._of:
            raise LookupError(f"{part!r} has no check")
        self._of[part](module)

    @property
    def parts(self) -> list[str]:
        """The exercises that have a check, in the order of registration."""
        return list(self._of)


def check_part(lesson: Lesson, part: str, module: ModuleType) -> None:
    """Check one exercise of a lab as `module` implements it.

    Raises:
        Mistake: if it is wrong.
        LookupError: if the lab has no check of it.
    """
    checks: Checks = import_module(lesson.checks_module).checks
    checks.check(part, module)


def tolerance(dtype: torch.dtype) -> float:
    """Return the largest difference to the library that rounding explains, for values of order 1.

    float64 1e-10 and float32 1e-5 are far above the error of a sum of a thousand terms, and far
    below the effect of any mistake. bfloat16 has 8 significant bits (unit roundoff 2⁻⁸ = 4e-3),
    float16 has 11 (5e-4): about twenty roundings of values up to 1.
    """
    return _TOLERANCE[dtype]


def expect_close(got: Any, want: Tensor, mistake: str, tolerance: float | None = None) -> None:
    """Compare `got` with `want`, elementwise and absolutely; NaN equals only NaN.

    Raises:
        Mistake: `mistake` if the values differ; another text if the type or shape does.
    """
    if not isinstance(got, Tensor):
        raise Mistake(f"expected a tensor of shape {tuple(want.shape)}, got {_type_of(got)}")
    for name in ("shape", "dtype", "device", "layout"):
        expected = _attribute(want, name)
        returned = _attribute(got, name)
        if expected != returned:
            raise Mistake(f"expected {name} {expected}, got {returned}; {mistake}")
    exact = not (want.is_floating_point() or want.is_complex())
    bound = 0.0 if exact else _TOLERANCE[want.dtype] if tolerance is None else tolerance
    close = torch.isclose(got, want, rtol=0, atol=bound, equal_nan=True)
    if not close.all():
        raise Mistake(f"{_describe(got, want, close, bound)}; {mistake}")


def _attribute(tensor: Tensor, name: str) -> Any:
    value = getattr(tensor, name)
    return tuple(value) if name == "shape" else value


def _describe(got: Tensor, want: Tensor, close: Tensor, bound: float) -> str:
    """Say in one line how many values are wrong and, for floating-point numbers, how far off."""
    facts = f"{int((~close).sum())} of {close.numel()} values are wrong"
    if bound == 0.0:
        return facts
    if not torch.equal(got.isnan(), want.isnan()):
        return f"{facts}, with NaN in place of a number or the reverse"
    largest = (got - want).abs()[~close].max().item()
    return f"{facts}, off by up to {largest:.2g} (rounding explains {bound:.0e})"


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers in float64, independent of what was drawn before."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def equals(got: Any, wrong: Tensor) -> bool:
    """Return whether `got` is the result of a known mistake."""
    return (
        isinstance(got, Tensor)
        and got.shape == wrong.shape
        and _place(got) == _place(wrong)
        and got.is_complex() == wrong.is_complex()
        and torch.allclose(got.to(wrong.dtype), wrong, rtol=0, atol=1e-8, equal_nan=True)
    )


def name_mistake(got: Any, mistakes: dict[str, Callable[[], Tensor]]) -> None:
    """Compare `got` with the result of each known mistake.

    Raises:
        Mistake: the message of the first mistake that gives the same result.
    """
    for message, wrong in mistakes.items():
        if equals(got, wrong()):
            raise Mistake(message)


def _type_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _place(tensor: Tensor) -> str:
    """Describe device and layout: a meta tensor has no numbers, a sparse one isn't comparable."""
    return f"on {tensor.device} (layout {tensor.layout})"
