"""What proves the parts of LLM05a right. References: PyTorch's own kernels, or the definition."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]
EPS = 0.1  # large, so that its place makes a difference that nobody can overlook


@checks.proves("layer_norm")
def layer_norm(module: Any) -> None:
    implementation = module.layer_norm
    x, (gain, bias) = draw(3, 4, 8) + 2, draw(2, 8, seed=1)
    given = x.clone()
    got = implementation(x, gain, bias, EPS)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: -=, sub_ and the like work in place")
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    unbiased, whole = x.var(-1, keepdim=True), x - x.mean()

    def answer(root: Tensor, centred: Tensor = centred) -> Tensor:
        return centred / root * gain + bias

    mistakes = _places_of_epsilon(variance, answer) | {
        "is the variance divided by d − 1? A norm divides by d: correction=0": lambda: answer(
            (unbiased + EPS).sqrt()
        ),
        "are mean and variance taken over everything? Each token has its own: mean(-1, …)": (
            lambda: answer((whole.square().mean() + EPS).sqrt(), whole)
        ),
        "are mean and variance taken over the tokens of a text? Over the last axis: mean(-1, …)": (
            lambda: _over(x, 1) * gain + bias
        ),
        "the mean isn't taken away": lambda: answer((variance + EPS).sqrt(), x),
        "is that RMSNorm? LayerNorm takes away the mean first": lambda: answer(
            (x.square().mean(-1, keepdim=True) + EPS).sqrt(), x
        ),
        "the bias is missing": lambda: answer((variance + EPS).sqrt()) - bias,
        "gain and bias are missing": lambda: centred / (variance + EPS).sqrt(),
        "the gain is missing": lambda: centred / (variance + EPS).sqrt() + bias,
        "the gain acts on the bias too: first the gain, then the bias": lambda: (
            (centred / (variance + EPS).sqrt() + bias) * gain
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, F.layer_norm(x, (8,), gain, bias, EPS), "(x − μ) / √(σ² + ε) · γ + β")
    short = (draw(4, 64) + 100.25).bfloat16()
    got = implementation(short, torch.ones(64).double(), torch.zeros(64).double())
    _in_float32(got, F.layer_norm(short.double(), (64,)), short)


def _over(x: Tensor, axis: int) -> Tensor:
    centred = x - x.mean(axis, keepdim=True)
    return centred / (centred.square().mean(axis, keepdim=True) + EPS).sqrt()


def _places_of_epsilon(
    square: Tensor, answer: Callable[[Tensor], Tensor]
) -> dict[str, Callable[[], Tensor]]:
    """What comes out where ε, or the root, isn't where it should be."""
    return {
        "ε is outside the root: √(… + ε), not √… + ε": lambda: answer(square.sqrt() + EPS),
        "ε isn't used": lambda: answer(square.sqrt()),
        "is ε squared? It is added to a square as it is": lambda: answer((square + EPS**2).sqrt()),
        "the root is missing": lambda: answer(square + EPS),
    }


def _in_float32(got: Any, want: Tensor, given: Tensor) -> None:
    """An answer in a short dtype: of that dtype, and one rounding away from the exact one."""
    if isinstance(got, Tensor) and got.dtype != given.dtype:
        raise Mistake(f"{given.dtype} was given, {got.dtype} came: the answer has x's dtype")
    rounding = want.abs().max().item() * torch.finfo(given.dtype).eps / 2
    message = (
        f"are the statistics taken in {given.dtype}? `wide` makes float32 of it; only the answer "
        "is rounded again"
    )
    wide = got.double() if isinstance(got, Tensor) else got
    expect_close(wide, want, message, 1.01 * rounding)


@checks.proves("rms_norm")
def rms_norm(module: Any) -> None:
    implementation = module.rms_norm
    x, gain = draw(3, 4, 8) + 1, draw(8, seed=1)
    given = x.clone()
    got = implementation(x, gain, EPS)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: /=, mul_ and the like work in place")
    square = x.square().mean(-1, keepdim=True)
    centred = x - x.mean(-1, keepdim=True)

    def answer(root: Tensor) -> Tensor:
        return x / root * gain

    mistakes = _places_of_epsilon(square, answer) | {
        "is the mean taken away? RMSNorm leaves it: that is LayerNorm": lambda: F.layer_norm(
            x, (8,), gain, eps=EPS
        ),
        "the mean square is meant, not the variance: nothing is taken away before": lambda: answer(
            (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        ),
        "is that the norm √Σx²? The root of the MEAN square is meant": lambda: answer(
            (square * 8 + EPS).sqrt()
        ),
        "is the mean taken over everything? Each token has its own: mean(-1, keepdim=True)": (
            lambda: answer((x.square().mean() + EPS).sqrt())
        ),
        "the gain is missing": lambda: x / (square + EPS).sqrt(),
        "the gain is 1 + gain here: this one starts from 1, not from 0": lambda: (
            x / (square + EPS).sqrt() * (1 + gain)
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, F.rms_norm(x, (8,), gain, EPS), "x / √(mean(x²) + ε) · γ")
    zeros = implementation(torch.zeros(2, 8).double(), gain, 1e-5)
    expect_close(zeros, torch.zeros(2, 8).double(), "a vector of zeros stays zero: is ε used?")
    short = (300 * draw(4, 64)).half()
    got = implementation(short, torch.ones(64).double())
    _in_float32(got, F.rms_norm(short.double(), (64,), eps=1e-5), short)


@checks.proves("rms_norm_backward")
def rms_norm_backward(module: Any) -> None:
    implementation = module.rms_norm_backward
    dy, x, gain = draw(3, 4, 8), draw(3, 4, 8, seed=1) + 1, draw(8, seed=2)
    inputs = [x.clone().requires_grad_(), gain.clone().requires_grad_()]
    want = torch.autograd.grad(F.rms_norm(inputs[0], (8,), inputs[1], EPS), inputs, dy)
    got = implementation(dy, x, gain, EPS)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake("two gradients are asked for: return dx, dgain")
    r = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    x_hat, g = x / r, dy * gain

    def along(a: Tensor, b: Tensor) -> Tensor:
        return b * (a * b).mean(-1, keepdim=True)

    mistakes = {
        "r is treated as a constant: the part of g along x̂ must be taken away": lambda: g / r,
        "that is LayerNorm's gradient: RMSNorm sees shifts, so mean(g) stays": lambda: (
            (g - g.mean(-1, keepdim=True) - along(g, x_hat)) / r
        ),
        "the gain is missing from dx: it is g = γ·dy that arrives at x̂": lambda: (
            (dy - along(dy, x_hat)) / r
        ),
        "the division by r is missing": lambda: g - along(g, x_hat),
        "the part along x̂ has the wrong sign: it is taken away": lambda: (g + along(g, x_hat)) / r,
        "x or x̂? x̂ · mean(g · x̂), both divided by r": lambda: (g - along(g, x)) / r,
        "is the sum taken where the mean is meant? ∂r/∂xᵢ has a factor 1/d": lambda: (
            (g - 8 * along(g, x_hat)) / r
        ),
        "ε is missing from r": lambda: (
            (g - along(g, x / x.square().mean(-1, keepdim=True).sqrt()))
            / x.square().mean(-1, keepdim=True).sqrt()
        ),
    }
    name_mistake(got[0], mistakes)
    expect_close(got[0], want[0], "dx = (g − its part along x̂) / r, with g = γ·dy")
    unsummed = [dy * x_hat, *((dy * x_hat).sum(axis) for axis in (0, 1))]
    if any(equals(got[1], wrong) for wrong in unsummed):
        raise Mistake("dgain is one vector (d,): sum over all axes but the last")
    mistakes = {
        "dgain is made of dy · x̂, not of dy · x": lambda: (dy * x).sum((0, 1)),
        "the gain has no part in its own gradient: dy · x̂, not g · x̂": lambda: (g * x_hat).sum(
            (0, 1)
        ),
        "is dgain a mean? Every token adds to it: a sum": lambda: (dy * x_hat).mean((0, 1)),
        "dgain is the sum of dy · x̂; the sum of dy is a bias's": lambda: dy.sum((0, 1)),
    }
    name_mistake(got[1], mistakes)
    expect_close(got[1], want[1], "dgain = Σ dy · x̂ over all tokens")
    alone = implementation(dy[0, 0], x[0, 0], gain, EPS)
    expect_close(alone[1], dy[0, 0] * x_hat[0, 0], "one token alone, (d,): its dgain is dy · x̂")


@checks.proves("sinusoid")
def sinusoid(module: Any) -> None:
    implementation = module.sinusoid
    length, d = 7, 6
    want = torch.tensor(
        [
            [(math.sin, math.cos)[k % 2](t * 10000 ** (-(k - k % 2) / d)) for k in range(d)]
            for t in range(length)
        ],
        dtype=torch.float64,
    )
    got = implementation(length, d)
    if isinstance(got, Tensor) and got.dtype != torch.float64:
        raise Mistake(f"float64 is asked for, {got.dtype} came: pass dtype=torch.float64 to arange")
    t, i = torch.arange(length).double()[:, None], torch.arange(d // 2).double()

    def table(angles: Tensor) -> Tensor:
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)

    angles = t * 10000 ** (-2 * i / d)
    mistakes = {
        "all sines come before all cosines: entries 2i and 2i + 1 are neighbours": lambda: (
            torch.cat((angles.sin(), angles.cos()), -1)
        ),
        "sine and cosine have changed places: entry 0 is the sine": lambda: torch.stack(
            (angles.cos(), angles.sin()), -1
        ).flatten(-2),
        "the factor 2 of the exponent is missing: −2i/d for i = 0 … d/2 − 1": lambda: table(
            t * 10000 ** (-i / d)
        ),
        "the frequencies grow: the exponent is negative": lambda: table(t * 10000 ** (2 * i / d)),
        "places count from 0, not from 1": lambda: table((t + 1) * 10000 ** (-2 * i / d)),
        "is every entry given a frequency of its own? Two neighbours share one": lambda: (
            _own_frequencies(t, d)
        ),
        "the slowest frequency is 10000^(−(d − 2)/d), not 1/10000: divide by d": lambda: table(
            t * 10000 ** (-i / (d // 2 - 1))
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, want, "entries 2i, 2i + 1: sin and cos of t · 10000^(−2i/d)")


def _own_frequencies(t: Tensor, d: int) -> Tensor:
    angles = t * 10000 ** (-torch.arange(d).double() / d)
    return torch.where(torch.arange(d) % 2 == 0, angles.sin(), angles.cos())


@checks.proves("gated_width")
def gated_width(module: Any) -> None:
    implementation = module.gated_width
    cases = {(64, 8): 176, (48, 8): 128, (96, 8): 256, (4096, 256): 11_008, (5120, 256): 13_824}
    wrong = {
        "is it rounded down? So that at least as much fits, it is rounded up": lambda d, n: (
            8 * d // (3 * n) * n
        ),
        "is it rounded to the nearest multiple? It is rounded up": lambda d, n: (
            round(8 * d / 3 / n) * n
        ),
        "4d is the width without a gate; three matrices want two thirds of it": lambda d, _: 4 * d,
        "is 8/3 of d not yet rounded to a multiple?": lambda d, _: 8 * d // 3,
        "is a whole multiple added where 8d/3 is a multiple already?": lambda d, n: (
            (8 * d // 3 // n + 1) * n
        ),
    }
    found = {}
    for (d, n), want in cases.items():
        got = implementation(d, n)
        if isinstance(got, bool) or not isinstance(got, int):
            raise Mistake(f"a whole number was expected, {type(got).__name__} came: use // ")
        found[d, n] = got
        if got % n and got != want and got not in (8 * d // 3, 4 * d):
            raise Mistake(f"{got} isn't a multiple of {n}")
    if found == cases:
        if implementation(64) != 176:
            raise Mistake("without a second argument the multiple is 8")
        return
    for message, rule in wrong.items():
        if found == {(d, n): rule(d, n) for d, n in cases}:
            raise Mistake(message)
    (d, n), got = next((case, got) for case, got in found.items() if got != cases[case])
    raise Mistake(f"d = {d} and multiples of {n}: {cases[d, n]} was expected, {got} came")


@checks.proves("SwiGLU.forward")
def swi_glu(module: Any) -> None:
    implementation = module.SwiGLU
    module = implementation(6, 10).double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=10 + i))
    x = draw(2, 5, 6)
    with torch.no_grad():
        gate, up, down = module.gate_proj(x), module.up_proj(x), module.down_proj
        got = module(x)
        mistakes = {
            "gate and up are swapped: the activation belongs on the gate": lambda: down(
                gate * F.silu(up)
            ),
            "both projections go through the activation: only the gate does": lambda: down(
                F.silu(gate) * F.silu(up)
            ),
            "the activation is missing": lambda: down(gate * up),
            "the activation comes after the product: only the gate goes through it": lambda: down(
                F.silu(gate * up)
            ),
            "gate and up are added: a gate multiplies": lambda: down(F.silu(gate) + up),
            "that is a gate with the logistic σ (Dauphin et al. 2017): SiLU is x·σ(x)": lambda: (
                down(gate.sigmoid() * up)
            ),
            "that is GEGLU: the activation is silu, not gelu": lambda: down(F.gelu(gate) * up),
            "down_proj is missing": lambda: F.silu(gate) * up,
            "the gate isn't used": lambda: down(F.silu(up)),
            "up_proj isn't used": lambda: down(F.silu(gate)),
        }
        name_mistake(got, mistakes)
        expect_close(got, down(F.silu(gate) * up), "down_proj(silu(gate_proj(x)) · up_proj(x))")
