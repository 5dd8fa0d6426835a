"""Check the exercises of LLM05b against the papers' formulas, or by questions to a layer."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm05b_depth_and_position.planted_faults import planted

import torch
from torch import Tensor

checks = Checks()

Mistakes = dict[str, Callable[[], Tensor]]  # by message: the result that each mistake gives
Pair = tuple[float, float]


@checks.proves("deepnorm")
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


@checks.proves("diagnose")
def diagnose(module: Any) -> None:
    """Check three layers with each fault."""
    for fault, question in QUESTIONS.items():
        for seed in range(3):
            x = draw(2, 9, 16, seed=seed)
            given = x.clone()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                layer = planted(fault, 16)
            got = module.diagnose(layer, x)
            if not torch.equal(given, x):
                raise Mistake("your function changed x: make new tensors to ask the layer with")
            if not isinstance(got, str):
                raise Mistake(f"expected a name, one of {', '.join(QUESTIONS)}; got {got!r}")
            if got not in QUESTIONS:
                raise Mistake(f"{got!r} isn't a key of FAULTS: {', '.join(QUESTIONS)}")
            if got != fault:
                raise Mistake(f"expected {fault!r}, got {got!r}. {question}")


QUESTIONS = {  # by fault: what distinguishes it
    "looks ahead": "Does an earlier output change with the last token?",
    "dead branch": "Is the output x itself?",
    "norm on the sum": "What is the size of the output, token by token?",
    "no residual": "Is the output for 1000 x the output for x, and is its size not 1?",
    "no norm": "Does what the layer adds to x grow with x?",
    "sound": "Does the layer add to 1000 x what it adds to x?",
}


@checks.proves("rope")
def rope(module: Any) -> None:
    """Check the values, the input, the dtype, and that bfloat16 is rotated in float32."""
    implementation = module.rope
    x = draw(2, 3, 5, 8)
    angle = 3 * draw(5, 4, seed=1)
    given = x.clone()
    got = implementation(x, angle)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: make a new tensor")
    name_mistake(got, _mistakes_of_rope(x, angle))
    want = _rotated(x, angle)
    expect_close(got, want, "(a cos − b sin, a sin + b cos) for the neighbours a and b")
    short = draw(2, 3, 5, 8, seed=2).bfloat16()
    got = implementation(short, angle)
    if isinstance(got, Tensor) and got.dtype != short.dtype:
        raise Mistake(f"expected the dtype of x, {short.dtype}, got {got.dtype}")
    want = _rotated(short.double(), angle)
    message = "is it computed in bfloat16? Use `wide`, which gives float32; round only the result"
    rounding = 1.01 * want.abs().max().item() * 2**-8
    expect_close(got.double() if isinstance(got, Tensor) else got, want, message, rounding)
    relative = (got.double() - want).abs() / want.abs()
    if relative.max() > 1.01 * 2**-8:
        raise Mistake(message)


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """Return a tensor with the entries of two in turn, (..., D/2) twice -> (..., D)."""
    return torch.stack((first, second), -1).flatten(-2)


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    a = x[..., ::2]
    b = x[..., 1::2]
    cos = angle.cos()
    sin = angle.sin()
    return _pairs(a * cos - b * sin, a * sin + b * cos)


def _mistakes_of_rope(x: Tensor, angle: Tensor) -> Mistakes:
    """Return the result of each known mistake."""
    cos = angle.cos()
    sin = angle.sin()
    a = x[..., ::2]
    b = x[..., 1::2]
    first, second = x.chunk(2, -1)
    return {
        "that rotates backwards: a cos − b sin, and a sin + b cos": lambda: _rotated(x, -angle),
        "those are halves, entries i and i + D/2: rotate the neighbours 2i and 2i + 1": (
            lambda: torch.cat((first * cos - second * sin, first * sin + second * cos), -1)
        ),
        "the pairs are rotated, but they aren't neighbours any more: stack and flatten, not cat": (
            lambda: torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        ),
        "both signs are the same: a rotation has one minus": (
            lambda: _pairs(a * cos + b * sin, a * sin + b * cos)
        ),
        "sine and cosine are swapped": lambda: _pairs(a * sin - b * cos, a * cos + b * sin),
        "a and b are multiplied by the cosine alone: the sine is missing": (
            lambda: _pairs(a * cos, b * cos)
        ),
    }


@checks.proves("to_halves")
def to_halves(module: Any) -> None:
    """Check matrices with D = 4, then a vector with D = 8, where the way back differs."""
    implementation = module.to_halves
    rows = draw(12, 5)
    got = implementation(rows, 3)
    order = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11])
    odd_first = torch.tensor([1, 3, 0, 2, 5, 7, 4, 6, 9, 11, 8, 10])
    across_heads = torch.tensor([*range(0, 12, 2), *range(1, 12, 2)])
    mistakes: Mistakes = {
        "the rows of all heads are mixed: convert each head's D rows separately": (
            lambda: rows[across_heads]
        ),
        "nothing is changed": lambda: rows,
        "the odd rows come first: put the even ones first": lambda: rows[odd_first],
    }
    name_mistake(got, mistakes)
    expect_close(got, rows[order], "for each head, first its even rows, then its odd rows")
    got = implementation(torch.arange(16), 2)
    back = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    if equals(got, torch.cat((back, back + 8))):
        raise Mistake("that is the way back, from halves to neighbours")
    want = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    expect_close(got, torch.cat((want, want + 8)), "D = 8: rows 0, 2, 4, 6, then 1, 3, 5, 7")


@checks.proves("alibi_slopes")
def alibi_slopes(module: Any) -> None:
    """Check powers of 2 and other numbers of heads."""
    numbers_of_heads = (8, 1, 2, 6, 12, 20)
    results = [module.alibi_slopes(n) for n in numbers_of_heads]
    for message, rule in WRONG_SLOPES.items():
        wanted = [torch.tensor(rule(n), dtype=torch.float64) for n in numbers_of_heads]
        if all(equals(got, want) for got, want in zip(results, wanted, strict=True)):
            raise Mistake(message)
    for n, got in zip(numbers_of_heads, results, strict=True):
        want = torch.tensor(_slopes(n), dtype=torch.float64)
        _require_float64(got)
        first = ", ".join(f"{slope:.3g}" for slope in _slopes(n)[:6])
        expect_close(got, want, f"{n} heads: {first} …")


def _geometric_slopes(n: int) -> list[float]:
    """Return the slopes for a power of 2."""
    return [2 ** (-8 * i / n) for i in range(1, n + 1)]


def _slopes(n: int, added: slice = slice(None, None, 2)) -> list[float]:
    """Return the slopes for n heads; `added` says which ones of 2p follow those of p."""
    lower = 2 ** int(math.log2(n))
    return _geometric_slopes(lower) + _geometric_slopes(2 * lower)[added][: n - lower]


def _require_float64(got: Any) -> None:
    if isinstance(got, Tensor) and got.is_floating_point() and got.dtype != torch.float64:
        raise Mistake(f"expected float64, got {got.dtype}")


WRONG_SLOPES: dict[str, Callable[[int], list[float]]] = {
    "the first slope isn't 1: i starts at 1": lambda n: [2 ** (-8 * i / n) for i in range(n)],
    "the minus in the exponent is missing: tokens that are far away must weigh less": (
        lambda n: [1 / slope for slope in _slopes(n)]
    ),
    "where n isn't a power of 2, the paper combines slopes of the next lower and higher powers": (
        _geometric_slopes
    ),
    "add every second slope of 2p, [::2]: the others are slopes of p already": (
        lambda n: _slopes(n, slice(None))
    ),
    "add the 1st, 3rd, 5th … of 2p, not the 2nd, 4th …, which are slopes of p already": (
        lambda n: _slopes(n, slice(1, None, 2))
    ),
    "don't sort them: first come the p slopes of p, then the added ones": (
        lambda n: sorted(_slopes(n), reverse=True)
    ),
    "those are the first n slopes of 2p: first come the p slopes of p": (
        lambda n: _geometric_slopes(2 * 2 ** int(math.log2(n)))[:n]
    ),
}


@checks.proves("interpolated")
def interpolated(module: Any) -> None:
    """Check texts that are longer than the training length, shorter, and as long."""
    cases = ((512, 64), (96, 64), (40, 64), (64, 64))
    results = [module.interpolated(*case) for case in cases]
    for message, rule in WRONG_PLACES.items():
        if all(equals(got, rule(*case)) for got, case in zip(results, cases, strict=True)):
            raise Mistake(message)
    for got, (n, trained) in zip(results, cases, strict=True):
        factor = min(1.0, trained / n)
        _require_float64(got)
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
