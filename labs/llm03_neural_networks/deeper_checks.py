"""Check the exercises of LLM03+ against PyTorch's operations, or exponents that are known."""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake

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
        try:
            got = implementation(x)
        except RuntimeError as error:
            raise Mistake(f"{name}: {error}; does it run over the end of the storage?") from error
        expect_close(got, torch.diagonal(x), name)
        if got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            raise Mistake("expected a view, got a copy: writing into a view changes x")


def attention_by_einsum(module: Any) -> None:
    """Compare with PyTorch's attention, for fewer queries than keys."""
    implementation = module.attention_by_einsum
    q = draw(2, 5, 3, 4)
    k = draw(2, 7, 3, 4, seed=1)
    v = draw(2, 7, 3, 4, seed=2)
    try:
        got = implementation(q, k, v)
    except RuntimeError as error:
        raise Mistake(f"Tq = 5, Tk = 7: {error}; do q and k share a letter for T?") from error
    if isinstance(got, Tensor) and got.shape == (2, 3, 5, 4):
        raise Mistake("expected (B, Tq, H, D), got (B, H, Tq, D): check the order of the letters")
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D) each
    name_mistake(got, _mistakes_of_attention(q, k, v))
    want = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    expect_close(got, want, "softmax(QKᵀ/√D)V, for each head separately")


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
        "all heads share one weight: the scores sum over h, so keep it in bhqk": lambda: mixed(
            scores.sum(1, keepdim=True).softmax(-1)
        ),
    }


def truncated(module: Any) -> None:
    """Compare with a sum of outer products, for wide and tall matrices and every rank."""
    implementation = module.truncated
    for shape in ((4, 7), (7, 4), (5, 5)):
        w = draw(*shape)
        u, s, vt = torch.linalg.svd(w, full_matrices=False)
        for k in (2, len(s), 0):
            try:
                got = implementation(w, k)
            except (RuntimeError, IndexError, ValueError) as error:
                message = f"w {shape}, k = {k}: {error}; is full_matrices=False missing?"
                raise Mistake(message) from error
            name_mistake(got, _mistakes_of_truncation(w, k) if k == 2 else {})
            want = torch.einsum("ik,k,kj->ij", u[:, :k], s[:k], vt[:k])
            expect_close(got, want, f"the {k} largest singular values of a {shape} matrix")


def _mistakes_of_truncation(w: Tensor, k: int) -> Mistakes:
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    last = len(s) - k
    square = w.shape[0] == w.shape[1]
    return {
        "all singular values are in use: keep the first k": lambda: w,
        "the k smallest are in use: torch sorts them, the largest first": lambda: (
            u[:, last:] * s[last:] @ vt[last:]
        ),
        "are the singular values missing? Scale each column of U by its own": lambda: (
            u[:, :k] @ vt[:k]
        ),
        "torch returns Vᵀ, not V: its first k rows are the directions": lambda: (
            u[:, :k] * s[:k] @ vt.T[:k] if square else w
        ),
        "the k largest are left out, not kept": lambda: w - u[:, :k] * s[:k] @ vt[:k],
    }


def loglog_slope(module: Any) -> None:
    """Compare with power laws, whose exponent is known, and with a fit to points off a line."""
    implementation = module.loglog_slope
    xs = [1.0, 2.0, 4.0, 16.0]
    for exponent in (3.0, 0.5, -1.0, 0.0):
        got = implementation(xs, [5 * x**exponent for x in xs])
        if isinstance(got, Tensor) and got.dim() == 0:
            raise Mistake("expected a number, got a tensor: .item() makes one of it")
        if not isinstance(got, int | float) or isinstance(got, bool):
            raise Mistake(f"expected a number, got {type(got).__name__}")
        _check_slope(got, exponent, xs)
    xs = [10.0, 20.0, 30.0]
    ys = [1.0, 9.0, 10.0]
    got = implementation(xs, ys)
    u = torch.tensor(xs, dtype=torch.float64).log()
    v = torch.tensor(ys, dtype=torch.float64).log()
    ends = ((v[-1] - v[0]) / (u[-1] - u[0])).item()
    if abs(got - ends) < 1e-6:
        raise Mistake("that is the slope between the first and the last point: fit all of them")
    origin = ((u * v).sum() / u.square().sum()).item()
    if abs(got - origin) < 1e-6:
        raise Mistake("that is a line through the origin: subtract the means first")
    du = u - u.mean()
    want = ((du * (v - v.mean())).sum() / du.square().sum()).item()
    if not abs(got - want) < 1e-8:
        raise Mistake(f"expected {want:.4f} for points off a line, got {got:.4f}")


def _check_slope(got: float, exponent: float, xs: list[float]) -> None:
    """Check the slope of an exact power law, 5·xᵖ."""
    if abs(got - exponent) < 1e-8:
        return
    x = torch.tensor(xs, dtype=torch.float64)
    y = 5 * x**exponent
    means = (x - x.mean()).square().sum()
    plain = ((x - x.mean()) * (y - y.mean())).sum() / means
    half = ((x - x.mean()) * (y.log() - y.log().mean())).sum() / means
    if abs(got - plain) < 1e-6:
        raise Mistake("that is the slope on plain axes: take the logarithms first")
    if abs(got - half) < 1e-6:
        raise Mistake("only y is logarithmic: take the logarithm of x, too")
    if exponent and abs(got - 1 / exponent) < 1e-6:
        raise Mistake("x and y have changed places: the slope is Δ ln y over Δ ln x")
    raise Mistake(f"expected the slope {exponent} for y = 5·x^{exponent:g}, got {got:.4f}")
