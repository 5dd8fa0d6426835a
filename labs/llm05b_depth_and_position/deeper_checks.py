"""Check the exercises of LLM05b+ against formulas."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, equals, expect_close

import torch
from torch import Tensor

Pair = tuple[float, float]


def require_float64(got: Any) -> None:
    """Refuse floating-point numbers of another type."""
    if isinstance(got, Tensor) and got.is_floating_point() and got.dtype != torch.float64:
        raise Mistake(f"expected float64, got {got.dtype}")


def deepnorm(module: Any) -> None:
    """Check α and β at four depths."""
    depths = (1, 6, 24, 100)
    results = [_pair(module.deepnorm(n)) for n in depths]
    for message, rule in WRONG_CONSTANTS.items():
        if all(_near(got, rule(n)) for got, n in zip(results, depths, strict=True)):
            raise Mistake(message)
    for n, got in zip(depths, results, strict=True):
        want = ((2 * n) ** 0.25, (8 * n) ** -0.25)
        if not _near(got, want):
            texts = [f"({alpha:.4g}, {beta:.4g})" for alpha, beta in (want, got)]
            raise Mistake(f"L = {n}: expected α, β = {texts[0]}, got {texts[1]}")


WRONG_CONSTANTS: dict[str, Callable[[int], Pair]] = {
    "α and β are swapped: return α first": lambda n: ((8 * n) ** -0.25, (2 * n) ** 0.25),
    "those are the constants of a decoder beside an encoder, (3L)^¼ and (12L)^−¼": (
        lambda n: ((3 * n) ** 0.25, (12 * n) ** -0.25)
    ),
    "each block has two branches: count 2L of them, not L": lambda n: (n**0.25, (4 * n) ** -0.25),
    "that is a square root: take the fourth root": lambda n: ((2 * n) ** 0.5, (8 * n) ** -0.5),
    "β must fall with depth: its exponent is −1/4": lambda n: ((2 * n) ** 0.25, (8 * n) ** 0.25),
    "β isn't 1/α: each branch has two matrices that share the change, 4Lβ² = α²": (
        lambda n: ((2 * n) ** 0.25, (2 * n) ** -0.25)
    ),
}


def _pair(got: Any) -> Pair:
    """Return the learner's α and β as two floats.

    Raises:
        Mistake: if it isn't a pair of numbers.
    """
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake("expected two numbers: return alpha, beta")
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in got):
        types = ", ".join(type(member).__name__ for member in got)
        raise Mistake(f"expected two numbers, got {types}")
    alpha, beta = got
    return float(alpha), float(beta)


def _near(got: Pair, want: Pair) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(got, want, strict=True))


def interpolated(module: Any) -> None:
    """Check texts that are longer than the training length, shorter, and as long."""
    cases = ((512, 64), (96, 64), (40, 64), (64, 64))
    results = [module.interpolated(*case) for case in cases]
    for message, rule in WRONG_PLACES.items():
        if all(equals(got, rule(*case)) for got, case in zip(results, cases, strict=True)):
            raise Mistake(message)
    for got, (n, trained) in zip(results, cases, strict=True):
        factor = min(1.0, trained / n)
        require_float64(got)
        message = f"{n} tokens, trained on {trained}: places 0, {factor:g}, …"
        expect_close(got, _places(n) * factor, message)


def _places(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


WRONG_PLACES: dict[str, Callable[[int, int], Tensor]] = {
    "nothing is interpolated": lambda n, _: _places(n),
    "a text that isn't longer than the training length keeps its places: limit the factor to 1": (
        lambda n, trained: _places(n) * trained / n
    ),
    "the places are stretched, but they must be squeezed: trained / length": (
        lambda n, trained: _places(n) * max(1.0, n / trained)
    ),
    "the last place is trained − 1: use the factor trained / length": (
        lambda n, trained: _places(n) * min(1.0, (trained - 1) / (n - 1))
    ),
    "the places are rounded, so 8 tokens share one place": (
        lambda n, trained: (_places(n) * min(1.0, trained / n)).floor()
    ),
    "late places are cut off, so all late tokens share one place": (
        lambda n, trained: _places(n).clamp(max=trained - 1)
    ),
    "the places start again after the training length, so two tokens share one place": (
        lambda n, trained: _places(n) % trained
    ),
    "the places start at 1, but they must start at 0": (
        lambda n, trained: (_places(n) + 1) * min(1.0, trained / n)
    ),
}


def yarn_frequencies(module: Any) -> None:
    """Check unchanged, mixed and interpolated pairs, at several factors and limits."""
    frequencies = 10_000 ** (-torch.arange(16, dtype=torch.float64) / 16)
    cases = ((2048, 4.0, 1.0, 32.0), (64, 8.0, 1.0, 4.0), (512, 2.0, 2.0, 16.0))
    results = [module.yarn_frequencies(frequencies, *case) for case in cases]
    for message, rule in WRONG_YARN.items():
        if all(
            equals(got, rule(frequencies, *case)) for got, case in zip(results, cases, strict=True)
        ):
            raise Mistake(message)
    for got, (trained, factor, low, high) in zip(results, cases, strict=True):
        weight = _kept(frequencies, trained, low, high)
        want = weight * frequencies + (1 - weight) * frequencies / factor
        expect_close(
            got,
            want,
            f"trained {trained}, factor {factor:g}: weight · ω + (1 − weight) · ω / factor",
        )
    short = module.yarn_frequencies(frequencies, 2048, 4.0)
    expect_close(short, results[0], "low = 1 and high = 32 are the defaults")


def _kept(w: Tensor, trained: float, low: float, high: float) -> Tensor:
    """Return the weight of the unchanged frequency."""
    turns = trained * w / (2 * math.pi)
    return ((turns - low) / (high - low)).clamp(0, 1)


def _mixed(w: Tensor, weight: Tensor, factor: float) -> Tensor:
    return weight * w + (1 - weight) * w / factor


WRONG_YARN: dict[str, Callable[[Tensor, int, float, float, float], Tensor]] = {
    "nothing is changed": lambda w, *_: w,
    "all pairs are interpolated: fast pairs keep their frequency": lambda w, _, s, *__: w / s,
    "the weights are swapped: pairs with many turns keep their frequency": (
        lambda w, n, s, low, high: _mixed(w, 1 - _kept(w, n, low, high), s)
    ),
    "radians aren't turns: divide trained · ω by 2π": (
        lambda w, n, s, low, high: _mixed(w, _kept(2 * math.pi * w, n, low, high), s)
    ),
    "the weight isn't limited: clamp it to 0 … 1": lambda w, n, s, low, high: _mixed(
        w, (n * w / (2 * math.pi) - low) / (high - low), s
    ),
    "that is a step at `high`: mix the pairs between low and high": (
        lambda w, n, s, _, high: _mixed(w, (n * w / (2 * math.pi) > high).to(w.dtype), s)
    ),
    "that is a step at `low`: mix the pairs between low and high": (
        lambda w, n, s, low, _: _mixed(w, (n * w / (2 * math.pi) > low).to(w.dtype), s)
    ),
    "those are wavelengths mixed, not frequencies: weight · ω + (1 − weight) · ω / factor": (
        lambda w, n, s, low, high: 1 / _mixed(1 / w, _kept(w, n, low, high), 1 / s)
    ),
}
