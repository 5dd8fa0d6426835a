"""Matrix products in several formats, and whether each is right."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from labs.kit.acceptance.rounds import Task

import torch
from torch import Tensor

ROWS = 8  # that a round compares with float64
# A product of numbers with t bits has 2t bits. Where float32 holds them, the product is exact; the
# sum of n of them has a relative error of at most n·u. Matrix units may cut digits off instead of
# rounding, so u is 2^-23 here and not 2^-24. Higham, Accuracy and Stability of Numerical
# Algorithms, chapter 3.
ADDITION = 2.0**-23


@dataclass(frozen=True)
class Format:
    """A number format of a product.

    Attributes:
        name: its name in the record.
        dtype: of the matrices and of the result.
        inputs: the relative error of a factor when the unit reads it.
        output: the relative error of the result when it is stored.
    """

    name: str
    dtype: torch.dtype
    inputs: float
    output: float


FP32 = Format("fp32", torch.float32, 0, 2.0**-23)
TF32 = Format("tf32", torch.float32, 2.0**-10, 2.0**-23)
BF16 = Format("bf16", torch.bfloat16, 0, 2.0**-8)
FP16 = Format("fp16", torch.float16, 0, 2.0**-10)


def formats(device: torch.device) -> tuple[Format, ...]:
    """Return the formats that this device multiplies at full speed."""
    if device.type == "cpu":  # most CPUs have no unit for fp16, and emulate it
        return FP32, BF16
    return (FP32, BF16, FP16) if torch.version.hip else (FP32, TF32, BF16, FP16)


def product_tasks(device: torch.device, width: int) -> list[Task]:
    """Return a task for the products in each format of the device."""
    return [_task(form, device, width) for form in formats(device)]


def _task(form: Format, device: torch.device, width: int) -> Task:
    a = _random(width, form, device, seed=1)
    b = _random(width, form, device, seed=2)
    result = torch.empty_like(a)
    small, exact = _small_integers(width, form, device)

    def multiply() -> None:
        _multiply(a, b, result, form)

    def check(number: int) -> str:
        if problem := wrong_sums(a, b, result, form, number):
            return problem
        found = torch.empty_like(a)
        _multiply(small[0], small[1], found, form)
        return wrong_integers(found, exact)

    return Task(f"matrix product, {form.name}", "GFLOP/s", 2.0 * width**3, multiply, check)


def core_tasks(cores: list[int], width: int) -> list[Task]:
    """Return a task for each core, which one thread runs on that core."""
    device = torch.device("cpu")
    a = _random(width, FP32, device, seed=1)
    b = _random(width, FP32, device, seed=2)
    return [_core_task(core, a, b) for core in cores]


def _core_task(core: int, a: Tensor, b: Tensor) -> Task:
    result = torch.empty_like(a)
    width = len(a)

    def check(number: int) -> str:
        return wrong_sums(a, b, result, FP32, number)

    multiply = _pinned(core, lambda: _multiply(a, b, result, FP32))
    name = "matrix product, fp32, one core"
    return Task(name, "GFLOP/s", 2.0 * width**3, multiply, check, f"core {core}")


def _pinned(core: int, call: Callable[[], None]) -> Callable[[], None]:
    """Return a call that runs in this thread alone, on one core."""

    def run() -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            call()
        finally:
            os.sched_setaffinity(0, before)

    return run


def _multiply(a: Tensor, b: Tensor, result: Tensor, form: Format) -> None:
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = form is TF32
    # torch's default lets a GPU store partial sums in 16 bits, which would count as wrong.
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_reduced_precision_reduction = False
    torch.mm(a, b, out=result)


def _random(width: int, form: Format, device: torch.device, seed: int) -> Tensor:
    """Return a matrix of numbers from ±½ to ±1: no unit flushes them to zero."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(width, width, generator=generator) / 2 + 0.5
    sign = torch.randint(0, 2, (width, width), generator=generator) * 2 - 1
    return (size * sign).to(device, form.dtype)


def wrong_sums(a: Tensor, b: Tensor, result: Tensor, form: Format, number: int) -> str:
    """Compare some rows of a product with float64; return the problem, or "".

    Args:
        a: the left matrix.
        b: the right matrix.
        result: the product.
        form: its format.
        number: of the round; each takes other rows.
    """
    rows = [(number * ROWS + i) * 997 % len(a) for i in range(ROWS)]
    left = a[rows].double()
    right = b.double()
    exact = left @ right
    sizes = left.abs() @ right.abs()
    relative = len(b) * ADDITION / (1 - len(b) * ADDITION) + 2 * form.inputs + form.inputs**2
    bound = relative * sizes * (1 + form.output) + form.output * exact.abs()
    error = (result[rows].double() - exact).abs()
    bad = ~(error <= bound)  # NaN counts as wrong
    if not bool(bad.any()):
        return ""
    worst = float((error / bound).nan_to_num(float("inf")).max())
    return f"{int(bad.sum())} of {bad.numel()} sums are wrong, by up to {worst:.3g} × the bound"


def _small_integers(width: int, form: Format, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return two matrices of integers from -2 to 2, and their product rounded to the format.

    The sums stay below 2^24, so no order of the additions in float32 rounds them.
    """
    generator = torch.Generator().manual_seed(3)
    both = torch.randint(-2, 3, (2, width, width), generator=generator).to(device, form.dtype)
    return both, (both[0].double() @ both[1].double()).to(form.dtype)


def wrong_integers(found: Tensor, exact: Tensor) -> str:
    """Compare all sums of a product of integers; return the problem, or ""."""
    wrong = int((found != exact).sum())
    return f"{wrong} of {exact.numel()} integers are wrong" if wrong else ""
