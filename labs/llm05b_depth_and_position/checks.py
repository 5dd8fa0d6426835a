"""What proves the parts of LLM05b right. References: the papers' formulas, or the layer asked."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm05b_depth_and_position.planted_faults import planted

import torch
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]


@checks.proves("deepnorm")
def deepnorm(module: Any) -> None:
    implementation = module.deepnorm
    depths = (1, 6, 24, 100)
    found = [_pair(implementation(n)) for n in depths]

    def is_(alpha: Callable[[int], float], beta: Callable[[int], float]) -> bool:
        return _near(found, [(alpha(n), beta(n)) for n in depths])

    for message, wrong in {
        "α and β have changed places: α first": is_(
            lambda n: (8 * n) ** -0.25, lambda n: (2 * n) ** 0.25
        ),
        "those are the constants of a decoder beside an encoder, (3L)^¼ and (12L)^−¼": is_(
            lambda n: (3 * n) ** 0.25, lambda n: (12 * n) ** -0.25
        ),
        "each block has two branches: 2L of them, not L": is_(
            lambda n: n**0.25, lambda n: (4 * n) ** -0.25
        ),
        "a square root was taken: the fourth is meant": is_(
            lambda n: (2 * n) ** 0.5, lambda n: (8 * n) ** -0.5
        ),
        "β falls with depth: its exponent is −1/4": is_(
            lambda n: (2 * n) ** 0.25, lambda n: (8 * n) ** 0.25
        ),
        "β isn't 1/α: two matrices a branch share the burden, 4Lβ² = α²": is_(
            lambda n: (2 * n) ** 0.25, lambda n: (2 * n) ** -0.25
        ),
    }.items():
        if wrong:
            raise Mistake(message)
    for n, got in zip(depths, found, strict=True):
        want = ((2 * n) ** 0.25, (8 * n) ** -0.25)
        if not _near([got], [want]):
            told = [f"({a:.4g}, {b:.4g})" for a, b in (want, got)]
            raise Mistake(f"L = {n}: α, β = {told[0]} was expected, {told[1]} came")


def _pair(got: Any) -> tuple[float, float]:
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake("two numbers are asked for: return alpha, beta")
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in got):
        kinds = ", ".join(type(one).__name__ for one in got)
        raise Mistake(f"two numbers were expected, {kinds} came")
    return float(got[0]), float(got[1])


def _near(got: list[tuple[float, float]], want: list[tuple[float, float]]) -> bool:
    numbers = zip(sum(got, ()), sum(want, ()), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in numbers)


@checks.proves("diagnose")
def diagnose(module: Any) -> None:
    implementation = module.diagnose
    ask = {
        "looks ahead": "does an earlier answer change with the last token?",
        "dead branch": "is the answer x itself?",
        "norm on the sum": "of which size is the answer, token by token?",
        "no residual": "is the answer to 1000 x the answer to x, and is its size not 1?",
        "no norm": "does what is added to x grow with x?",
        "sound": "what it adds to 1000 x is what it adds to x",
    }
    for fault, question in ask.items():
        for seed in range(3):
            x = draw(2, 9, 16, seed=seed)
            given = x.clone()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                layer = planted(fault, 16)
            got = implementation(layer, x)
            if not torch.equal(given, x):
                raise Mistake("your function changed x: make another tensor to ask with")
            if not isinstance(got, str):
                raise Mistake(f"a name is asked for, one of {', '.join(ask)}; {got!r} came")
            if got not in ask:
                raise Mistake(f"{got!r} is no fault that FAULTS has: {', '.join(ask)}")
            if got != fault:
                raise Mistake(f"a layer that is {fault!r} was called {got!r}: {question}")


@checks.proves("rope")
def rope(module: Any) -> None:
    implementation = module.rope
    x, angle = draw(2, 3, 5, 8), 3 * draw(5, 4, seed=1)
    given = x.clone()
    got = implementation(x, angle)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: make a new tensor")
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., ::2], x[..., 1::2]
    first, second = x[..., :4], x[..., 4:]

    def pairs(one: Tensor, other: Tensor) -> Tensor:
        return torch.stack((one, other), -1).flatten(-2)

    want = pairs(a * cos - b * sin, a * sin + b * cos)
    mistakes = {
        "that turns backwards: a cos − b sin, and a sin + b cos": lambda: pairs(
            a * cos + b * sin, b * cos - a * sin
        ),
        "those are halves, entries i and i + D/2: neighbours are asked for": lambda: torch.cat(
            (first * cos - second * sin, first * sin + second * cos), -1
        ),
        "the pairs are turned, but don't stand side by side: stack and flatten, not cat": lambda: (
            torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        ),
        "both signs are the same: a turn has one minus": lambda: pairs(
            a * cos + b * sin, a * sin + b * cos
        ),
        "sine and cosine have changed places": lambda: pairs(a * sin - b * cos, a * cos + b * sin),
        "a and b are multiplied by the cosine alone: where is the sine?": lambda: pairs(
            a * cos, b * cos
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, want, "(a cos − b sin, a sin + b cos) for the neighbours a and b")
    short = draw(2, 3, 5, 8, seed=2).bfloat16()
    got = implementation(short, angle)
    if isinstance(got, Tensor) and got.dtype != short.dtype:
        raise Mistake(f"{short.dtype} was given, {got.dtype} came: the answer has x's dtype")
    a, b = short.double()[..., ::2], short.double()[..., 1::2]
    want = pairs(a * cos - b * sin, a * sin + b * cos)
    message = "is it computed in bfloat16? `wide` makes float32 of x; only the answer is rounded"
    rounding = 1.01 * want.abs().max().item() * 2**-8
    expect_close(got.double() if isinstance(got, Tensor) else got, want, message, rounding)
    off = (got.double() - want).abs() / want.abs()
    if off.max() > 1.01 * 2**-8:
        raise Mistake(message)


@checks.proves("to_halves")
def to_halves(module: Any) -> None:
    implementation = module.to_halves
    rows, heads = draw(12, 5), 3
    got = implementation(rows, heads)
    order = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11])  # D = 4
    across = torch.tensor([*range(0, 12, 2), *range(1, 12, 2)])
    mistakes = {
        "are the rows of all heads mixed? Each head's D are converted by themselves": lambda: rows[
            across
        ],
        "nothing is changed": lambda: rows,
        "the odd rows come first: even ones first": lambda: rows[
            torch.tensor([1, 3, 0, 2, 5, 7, 4, 6, 9, 11, 8, 10])
        ],
    }
    name_mistake(got, mistakes)
    expect_close(got, rows[order], "of each head's rows first the even ones, then the odd ones")
    larger = torch.arange(16)
    got, want = implementation(larger, 2), torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    back = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    if equals(got, torch.cat((back, back + 8))):
        raise Mistake("that is the way back, from halves to neighbours")
    expect_close(got, torch.cat((want, want + 8)), "D = 8: rows 0, 2, 4, 6, then 1, 3, 5, 7")


@checks.proves("alibi_slopes")
def alibi_slopes(module: Any) -> None:
    implementation = module.alibi_slopes

    def power(n: int) -> list[float]:
        return [2 ** (-8 * i / n) for i in range(1, n + 1)]

    def right(n: int) -> list[float]:
        lower = 2 ** int(math.log2(n))
        return power(lower) + power(2 * lower)[::2][: n - lower]

    rules: dict[str, Callable[[int], list[float]]] = {
        "the first slope isn't 1: i counts from 1": lambda n: [2 ** (-8 * i / n) for i in range(n)],
        "the slopes have no minus in their exponent: far tokens weigh less": lambda n: [
            1 / one for one in right(n)
        ],
        "where n isn't a power of 2 the paper takes slopes of the next lower and higher": power,
        "the added slopes are every second one of 2p: [::2], so that none is there already": (
            lambda n: _added(power, n, slice(None))
        ),
        "the 1st, 3rd, 5th … of 2p are added, not the 2nd, 4th: those are there already": (
            lambda n: _added(power, n, slice(1, None, 2))
        ),
        "they aren't sorted: first the p slopes of p, then the added ones": lambda n: sorted(
            right(n), reverse=True
        ),
        "2p's slopes are taken, cut off at n: first come the p slopes of p": lambda n: power(
            2 * 2 ** int(math.log2(n))
        )[:n],
    }
    heads = (8, 1, 2, 6, 12, 20)
    found = [implementation(n) for n in heads]
    for message, rule in rules.items():
        wanted = [torch.tensor(rule(n), dtype=torch.float64) for n in heads]
        if all(equals(got, want) for got, want in zip(found, wanted, strict=True)):
            raise Mistake(message)
    for n, got in zip(heads, found, strict=True):
        want = torch.tensor(right(n), dtype=torch.float64)
        if isinstance(got, Tensor) and got.is_floating_point() and got.dtype != want.dtype:
            raise Mistake(f"float64 is asked for, {got.dtype} came")
        expect_close(got, want, f"{n} heads: {', '.join(f'{one:.3g}' for one in right(n)[:6])} …")


def _added(power: Callable[[int], list[float]], n: int, which: slice) -> list[float]:
    lower = 2 ** int(math.log2(n))
    return power(lower) + power(2 * lower)[which][: n - lower]


@checks.proves("interpolated")
def interpolated(module: Any) -> None:
    implementation = module.interpolated
    cases = ((512, 64), (96, 64), (40, 64), (64, 64))

    def places(n: int) -> Tensor:
        return torch.arange(n, dtype=torch.float64)

    rules: dict[str, Callable[[int, int], Tensor]] = {
        "nothing is squeezed": lambda n, _: places(n),
        "a text that isn't longer than trained keeps its places: the factor is at most 1": (
            lambda n, t: places(n) * t / n
        ),
        "the places are stretched, not squeezed: trained / length": lambda n, t: (
            places(n) * max(1.0, n / t)
        ),
        "is the last place made trained − 1? The factor is trained / length": lambda n, t: (
            places(n) * min(1.0, (t - 1) / (n - 1))
        ),
        "the places are rounded: 8 tokens would share one": lambda n, t: (
            places(n) * min(1.0, t / n)
        ).floor(),
        "late places are cut off: they would all be one": lambda n, t: places(n).clamp(max=t - 1),
        "the places begin anew at trained: two tokens would share one": lambda n, t: places(n) % t,
        "places count from 0, not from 1": lambda n, t: (places(n) + 1) * min(1.0, t / n),
    }
    found = [implementation(*case) for case in cases]
    for message, rule in rules.items():
        if all(equals(got, rule(*case)) for got, case in zip(found, cases, strict=True)):
            raise Mistake(message)
    for got, (n, trained) in zip(found, cases, strict=True):
        want = places(n) * min(1.0, trained / n)
        if isinstance(got, Tensor) and got.is_floating_point() and got.dtype != want.dtype:
            raise Mistake(f"float64 is asked for, {got.dtype} came")
        expect_close(got, want, f"{n} tokens, trained on {trained}: 0, {min(1, trained / n):g}, …")
