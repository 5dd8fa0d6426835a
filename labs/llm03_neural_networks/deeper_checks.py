"""Check the exercises of LLM03+ against PyTorch's operations, samples, and counts by hand."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm03_neural_networks.watch import Watch

import torch
import torch.nn.functional as F
from torch import Tensor

Mistakes = dict[str, Callable[[], Tensor]]


def diagonal(module: Any) -> None:
    """Compare with `torch.diagonal`, for strides of every kind; the result must be a view."""
    implementation = module.diagonal
    base = draw(6, 8)
    for x, name in (
        (draw(4, 4), "a square matrix"),
        (draw(3, 5), "3 rows of 5"),
        (draw(5, 3), "5 rows of 3: the diagonal is as long as the shorter axis"),
        (base[::2, ::3], "a slice with steps: ask x.stride() rather than compute from the shape"),
        (draw(3, 5).T, "a transpose: ask x.stride() rather than compute from the shape"),
        (draw(3, 1).expand(3, 4), "an expanded column, whose second stride is 0"),
        (base[2:, 1:], "a slice with an offset: as_strided uses x's offset if you give none"),
    ):
        watch = Watch()
        try:
            with watch:
                got = implementation(x)
        except RuntimeError as error:
            raise Mistake(f"{name}: {error}; does it run over the end of the storage?") from error
        name_mistake(got, _mistakes_of_diagonal(x))
        expect_close(got, torch.diagonal(x), name)
        if got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            raise Mistake("expected a view, got a copy: writing into a view changes x")
        if "as_strided" not in watch.names:
            raise Mistake("make the view with as_strided: its stride is the exercise")


def _mistakes_of_diagonal(x: Tensor) -> Mistakes:
    if x.shape[0] != x.shape[1]:
        return {}  # with one stride a longer axis may run over the end of the storage
    both = "the next entry is a row further and a column further: add both strides"
    return {
        f"{both}; yours has the first alone": lambda: x.as_strided((len(x),), (x.stride(0),)),
        f"{both}; yours has the second alone": lambda: x.as_strided((len(x),), (x.stride(1),)),
    }


def attention_by_einsum(module: Any) -> None:
    """Compare with PyTorch's attention, for fewer queries than keys."""
    implementation = module.attention_by_einsum
    q = draw(2, 5, 3, 4)
    k = draw(2, 7, 3, 4, seed=1)
    v = draw(2, 7, 3, 4, seed=2)
    watch = Watch()
    try:
        with watch:
            got = implementation(q, k, v)
    except RuntimeError as error:
        likely = "; do q and k share a letter for T?" if "subscript" in str(error) else ""
        raise Mistake(f"Tq = 5, Tk = 7: {error}{likely}") from error
    if isinstance(got, Tensor) and got.shape == (2, 3, 5, 4):
        raise Mistake("expected (B, Tq, H, D), got (B, H, Tq, D): check the order of the letters")
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D) each
    name_mistake(got, _mistakes_of_attention(q, k, v))
    want = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    expect_close(got, want, "softmax(QKᵀ/√D)V, for each head separately")
    if "scaled_dot_product_attention" in watch.names:
        raise Mistake("your function calls PyTorch's attention: write the steps yourself")
    if "einsum" not in watch.names:
        raise Mistake("the numbers are right; now write both products with torch.einsum")
    if watch.products != {"einsum"}:
        raise Mistake("the numbers are right; now write the other product with torch.einsum, too")
    if watch.names.count("einsum") < 2:
        raise Mistake("the numbers are right, from one call of torch.einsum: two products need two")


def _mistakes_of_attention(q: Tensor, k: Tensor, v: Tensor) -> Mistakes:
    """Return the results of mistakes, (B, T, H, D) each; q, k and v are (B, H, T, D)."""
    scores = q @ k.mT / 2  # (B, H, Tq, Tk); √D is 2

    def mixed(weights: Tensor, values: Tensor = v) -> Tensor:
        return (weights @ values).transpose(1, 2)

    return {
        "is the division by √D missing?": lambda: mixed((2 * scores).softmax(-1)),
        "is it divided by D, not by √D?": lambda: mixed((scores / 2).softmax(-1)),
        "does the softmax run over the queries? It runs over the keys, the last axis": lambda: (
            mixed(scores.softmax(-2))
        ),
        "does the softmax run over the heads? It runs over the keys, the last axis": lambda: mixed(
            scores.softmax(1)
        ),
        "is the softmax missing?": lambda: mixed(scores),
        "the weights mix keys: they must mix values": lambda: mixed(scores.softmax(-1), k),
        "all heads share one weight: the scores sum over h, so keep it in bhts": lambda: mixed(
            scores.sum(1, keepdim=True).softmax(-1)
        ),
    }


def relu_step(module: Any) -> None:
    """Compare with starts that are known, with the formula, and for equal samples."""
    implementation = module.relu_step
    for name, arguments, mistakes in (
        ("He: q = 1, r = 0.3, a = 2, c = 0, n = 512", (1.0, 0.3, 2.0, 0.0, 512), True),
        ("q = 0.4, r = 0.1, a = 1/3, c = 1/3, n = 8", (0.4, 0.1, 1 / 3, 1 / 3, 8), True),
        ("r = q: two equal samples stay equal, ρ is 1", (0.5, 0.5, 2.0, 0.0, 512), False),
        ("q = r = 1/5n is PyTorch's fixed point", (1 / 40, 1 / 40, 1 / 3, 1 / 3, 8), False),
    ):
        got = _pair(implementation(*arguments), name)
        want = _relu_step(*arguments)
        if mistakes:
            name_mistake(got, _mistakes_of_step(*arguments))
        if not abs(got[0] - want[0]) < 1e-9:
            raise Mistake(f"{name}: q' should be {want[0]:.4f}, got {got[0]:.4f}; q' = v/2")
        if not abs(got[1] - want[1]) < 1e-9:
            raise Mistake(f"{name}: r' should be {want[1]:.4f}, got {got[1]:.4f}")


def _pair(got: Any, name: str) -> Tensor:
    """Return two numbers as a tensor, (2,)."""
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"{name}: expected two numbers, q' and r', got {got!r:.60}")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in got):
        raise Mistake(f"{name}: expected numbers from math, got {type(got[0]).__name__}")
    return torch.tensor(got, dtype=torch.float64)


def _relu_step(q: float, r: float, a: float, c: float, n: float, part: float = 0.5) -> Tensor:
    """Return q and r after a layer whose ReLU keeps `part` of the mean square, (2,)."""
    v = a * q + c / n
    rho = (a * r + c / n) / v
    kernel = math.sqrt(1 - rho**2) + (math.pi - math.acos(rho)) * rho
    return torch.tensor([part * v, v * kernel / (2 * math.pi)], dtype=torch.float64)


def _mistakes_of_step(q: float, r: float, a: float, c: float, n: int) -> Mistakes:
    v, product = _relu_step(q, r, a, c, n, 1.0).tolist()

    def pair(first: float, second: float) -> Callable[[], Tensor]:
        return lambda: torch.tensor([first, second], dtype=torch.float64)

    mistakes = {
        "that is the step before the ReLU: it keeps half of v": pair(v, a * r + c / n),
        "the ReLU keeps half of the mean square: q' is v/2": pair(v, product),
        "v is v/2 already where r' needs it: keep v, the variance before the ReLU": pair(
            v / 2, product / 2
        ),
        "r' is halved like q': for r' use the formula with ρ": pair(v / 2, (a * r + c / n) / 2),
        "expected r', a mean product, got the correlation": pair(v / 2, product / v),
        "q' and r' have changed places": pair(product, v / 2),
        "the kernel is divided by π, not by 2π": pair(v / 2, 2 * product),
    }
    if c:
        none = (a * q / 2, _relu_step(q, r, a, 0, 1)[1].item())
        mistakes["the biases are missing: both v and the covariance contain c/n"] = pair(*none)
        mistakes["the bias is the same for both samples: it adds c/n to the covariance"] = pair(
            v / 2, _without_common_bias(q, r, a, c, n)
        )
        whole = _relu_step(q, r, a, c, 1).tolist()
        mistakes["the variance of a bias is c/n, not c"] = pair(*whole)
    return mistakes


def _without_common_bias(q: float, r: float, a: float, c: float, n: int) -> float:
    """Return r' if the two samples had separate biases."""
    v = a * q + c / n
    rho = a * r / v
    kernel = math.sqrt(1 - rho**2) + (math.pi - math.acos(rho)) * rho
    return v * kernel / (2 * math.pi)


def intensity(module: Any) -> None:
    """Compare with counts by hand, for shapes whose numbers differ."""
    implementation = module.intensity
    for shape, size in (((2, 3, 5), 4), ((1, 64, 64), 2), ((7, 4, 1), 8)):
        b, n, m = shape
        name = f"B = {b}, n = {n}, m = {m}, {size} bytes a number"
        got = implementation(shape, size)
        if not isinstance(got, int | float) or isinstance(got, bool):
            raise Mistake(f"expected a number for {name}, got {type(got).__name__}")
        flops = 2 * b * n * m
        count = b * n + n * m + b * m
        want = flops / (size * count)
        for message, wrong in {
            "a product needs a multiplication and an addition: 2Bnm FLOPs": want / 2,
            "that is per number: a number has `size` bytes": want * size,
            "x must be read, too": flops / (size * (n * m + b * m)),
            "y must be written, too": flops / (size * (b * n + n * m)),
            "only w is counted: x is read and y is written, too": flops / (size * n * m),
            "bytes per FLOP: intensity is FLOPs per byte": 1 / want,
            "the bytes are multiplied, but the arrays lie beside each other: add them": flops
            / (size * (b * n) * (n * m) * (b * m)),
        }.items():
            if math.isclose(got, wrong, rel_tol=1e-9):
                raise Mistake(message)
        if not math.isclose(got, want, rel_tol=1e-9):
            raise Mistake(f"expected {flops} FLOPs ÷ {size * count} bytes = {want:.4g} for {name}")
