"""Check the exercises of LLM05a against PyTorch's own kernels, or the definition.

Those of LLM05a+ are in deeper_checks.
"""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake
from labs.llm05a_normalization import deeper_checks
from labs.shared import small_gpt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Mistakes = dict[str, Callable[[], Tensor]]  # by message: the result that each mistake gives
EPS = 0.1  # large enough for its position in the formula to make a clear difference


@checks.proves("layer_norm")
def layer_norm(module: Any) -> None:
    """Check the values, the input, the dtype, and that statistics are computed in float32."""
    implementation = module.layer_norm
    x = draw(3, 4, 8) + 2
    gain, bias = draw(2, 8, seed=1)
    given = x.clone()
    got = implementation(x, gain, bias, EPS)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: -=, sub_ and similar work in place")
    name_mistake(got, _mistakes_of_layer_norm(x, gain, bias))
    want = F.layer_norm(x, (8,), gain, bias, EPS)
    _check_float64(got, want)
    expect_close(got, want, "(x − μ) / √(σ² + ε) · γ + β")
    short = (draw(4, 64) + 100.25).bfloat16()
    got = implementation(short, torch.ones(64).double(), torch.zeros(64).double())
    _check_short_dtype(got, F.layer_norm(short.double(), (64,)), short)


def _mistakes_of_layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Mistakes:
    """Return the result of each known mistake."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    unbiased = x.var(-1, keepdim=True)
    x_hat = centred / (variance + EPS).sqrt()

    def normed(root: Tensor, centred: Tensor = centred) -> Tensor:
        return centred / root * gain + bias

    def with_statistics_over(*axes: int) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return normed((centred.square().mean(axes, keepdim=True) + EPS).sqrt(), centred)

    return _mistakes_of_epsilon(variance, normed) | {
        "the variance is divided by d − 1: a norm divides by d, correction=0": (
            lambda: normed((unbiased + EPS).sqrt())
        ),
        "mean and variance are taken over all numbers, but each token has its own: mean(-1, …)": (
            lambda: with_statistics_over(0, 1, 2)
        ),
        "mean and variance are taken over the tokens of a text, not over the last axis": (
            lambda: with_statistics_over(1)
        ),
        "the mean isn't subtracted": lambda: normed((variance + EPS).sqrt(), x),
        "that is RMSNorm: LayerNorm subtracts the mean first": (
            lambda: normed((x.square().mean(-1, keepdim=True) + EPS).sqrt(), x)
        ),
        "the bias is missing": lambda: x_hat * gain,
        "gain and bias are missing": lambda: x_hat,
        "the gain is missing": lambda: x_hat + bias,
        "the gain multiplies the bias too: apply the gain first, then the bias": (
            lambda: (x_hat + bias) * gain
        ),
    }


def _mistakes_of_epsilon(square: Tensor, normed: Callable[[Tensor], Tensor]) -> Mistakes:
    """Return the result of each known mistake with ε and the root.

    Args:
        square: what ε is added to: the variance, or the mean square.
        normed: returns the norm's result for a denominator.
    """
    return {
        "ε is outside the root: √(… + ε), not √… + ε": lambda: normed(square.sqrt() + EPS),
        "ε isn't used": lambda: normed(square.sqrt()),
        "ε is squared: add ε itself to the square": lambda: normed((square + EPS**2).sqrt()),
        "the root is missing": lambda: normed(square + EPS),
    }


def _check_float64(got: Any, want: Tensor) -> None:
    """Fail if a result for float64 is right only up to the rounding of float32."""
    if isinstance(got, Tensor) and got.shape == want.shape:
        error = (got - want).abs().max().item()
        if 1e-9 < error < 1e-5:
            raise Mistake("the result is rounded to float32: use `wide`, which keeps float64")


def _check_short_dtype(got: Any, want: Tensor, given: Tensor) -> None:
    """Check a result in a short dtype: it has that dtype, and it was rounded once."""
    if isinstance(got, Tensor) and got.dtype != given.dtype:
        raise Mistake(f"expected the dtype of x, {given.dtype}, got {got.dtype}")
    rounding = want.abs().max().item() * torch.finfo(given.dtype).eps / 2
    message = (
        f"are the statistics computed in {given.dtype}? Use `wide`, which gives float32, and round "
        "only the result"
    )
    result = got.double() if isinstance(got, Tensor) else got
    expect_close(result, want, message, 1.01 * rounding)


@checks.proves("rms_norm")
def rms_norm(module: Any) -> None:
    """Check the values, a zero vector, the dtype, and that statistics are computed in float32."""
    implementation = module.rms_norm
    x = draw(3, 4, 8) + 1
    gain = draw(8, seed=1)
    given = x.clone()
    got = implementation(x, gain, EPS)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: /=, mul_ and similar work in place")
    name_mistake(got, _mistakes_of_rms_norm(x, gain))
    want = F.rms_norm(x, (8,), gain, EPS)
    _check_float64(got, want)
    expect_close(got, want, "x / √(mean(x²) + ε) · γ")
    zeros = torch.zeros(2, 8).double()
    got = implementation(zeros, gain, 1e-5)
    expect_close(got, zeros, "a vector of zeros must give zeros: is ε used?")
    short = (300 * draw(4, 64)).half()
    got = implementation(short, torch.ones(64).double())
    _check_short_dtype(got, F.rms_norm(short.double(), (64,), eps=1e-5), short)


def _mistakes_of_rms_norm(x: Tensor, gain: Tensor) -> Mistakes:
    """Return the result of each known mistake."""
    square = x.square().mean(-1, keepdim=True)
    variance = x.var(-1, correction=0, keepdim=True)
    x_hat = x / (square + EPS).sqrt()

    def normed(root: Tensor) -> Tensor:
        return x / root * gain

    return _mistakes_of_epsilon(square, normed) | {
        "the mean is subtracted: that is LayerNorm, and RMSNorm keeps the mean": (
            lambda: F.layer_norm(x, (8,), gain, eps=EPS)
        ),
        "use the mean square, not the variance: don't subtract the mean before you square": (
            lambda: normed((variance + EPS).sqrt())
        ),
        "that is the length √Σx²: RMSNorm divides by the root of the MEAN square": (
            lambda: normed((square * 8 + EPS).sqrt())
        ),
        "the mean is taken over all numbers, but each token has its own: mean(-1, keepdim=True)": (
            lambda: normed((x.square().mean() + EPS).sqrt())
        ),
        "the gain is missing": lambda: x_hat,
        "the gain is used as 1 + gain, but this one starts at 1, not at 0": (
            lambda: x_hat * (1 + gain)
        ),
    }


@checks.proves("gated_width")
def gated_width(module: Any) -> None:
    """Check six widths, among them those of two Llama models."""
    implementation = module.gated_width
    cases = {
        (64, 8): 176,
        (48, 8): 128,
        (96, 8): 256,
        (100, 48): 288,
        (4096, 256): 11_008,
        (5120, 256): 13_824,
    }
    results: dict[tuple[int, int], int] = {}
    for (d, multiple), want in cases.items():
        got = implementation(d, multiple)
        if isinstance(got, bool) or not isinstance(got, int):
            kind = type(got).__name__
            raise Mistake(f"expected a whole number, got a {kind}: math.ceil returns one")
        results[d, multiple] = got
        if got % multiple and got != want and got not in (8 * d // 3, 4 * d):
            raise Mistake(f"expected a multiple of {multiple}, got {got}")
    for message, rule in WRONG_WIDTHS.items():
        if results == {(d, multiple): rule(d, multiple) for d, multiple in cases}:
            raise Mistake(message)
    for (d, multiple), want in cases.items():
        got = results[d, multiple]
        if got != want:
            raise Mistake(f"d = {d}, multiples of {multiple}: expected {want}, got {got}")
    if implementation(64) != 176:
        raise Mistake("without a second argument the multiple must be 8")


WRONG_WIDTHS: dict[str, Callable[[int, int], int]] = {
    "the width is rounded down, but it must be rounded up": (
        lambda d, multiple: 8 * d // (3 * multiple) * multiple
    ),
    "the width is rounded to the nearest multiple, but it must be rounded up": (
        lambda d, multiple: round(8 * d / 3 / multiple) * multiple
    ),
    "4d is the width without a gate: three matrices need two thirds of it": lambda d, _: 4 * d,
    "8d/3 isn't rounded to a multiple yet": lambda d, _: 8 * d // 3,
    "one multiple too many where 8d/3 is a multiple already": (
        lambda d, multiple: (8 * d // 3 // multiple + 1) * multiple
    ),
}


@checks.proves("SwiGLU.forward")
def swi_glu(module: Any) -> None:
    """Check the layer with random weights."""
    layer = module.SwiGLU(6, 10).double()
    x = draw(2, 5, 6)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=10 + i))
        got = layer(x)
        name_mistake(got, _mistakes_of_swi_glu(layer, x))
        want = layer.down_proj(F.silu(layer.gate_proj(x)) * layer.up_proj(x))
        expect_close(got, want, "down_proj(silu(gate_proj(x)) · up_proj(x))")


def _mistakes_of_swi_glu(layer: Any, x: Tensor) -> Mistakes:
    """Return the result of each known mistake."""
    gate = layer.gate_proj(x)
    up = layer.up_proj(x)
    down = layer.down_proj
    return {
        "gate and up are swapped: the activation acts on the gate": lambda: down(gate * F.silu(up)),
        "both projections go through the activation, but only the gate should": (
            lambda: down(F.silu(gate) * F.silu(up))
        ),
        "the activation is missing": lambda: down(gate * up),
        "the activation comes after the product, but it acts on the gate alone": (
            lambda: down(F.silu(gate * up))
        ),
        "gate and up are added, but a gate multiplies": lambda: down(F.silu(gate) + up),
        "that is a gate with the logistic σ (Dauphin et al. 2017): SiLU is x·σ(x)": (
            lambda: down(gate.sigmoid() * up)
        ),
        "that is GEGLU: the activation is silu, not gelu": lambda: down(F.gelu(gate) * up),
        "down_proj is missing": lambda: F.silu(gate) * up,
        "the gate isn't used": lambda: down(F.silu(up)),
        "up_proj isn't used": lambda: down(F.silu(gate)),
    }


@checks.proves("sinusoid")
def sinusoid(module: Any) -> None:
    """Check two sizes of tables against the definition."""
    _check_sinusoids(module, 7, 6)
    _check_sinusoids(module, 3, 4)


def _check_sinusoids(module: Any, length: int, d: int) -> None:
    """Check a table of `length` positions and d entries."""
    want = torch.tensor(
        [
            [(math.sin, math.cos)[k % 2](t * 10000 ** (-(k - k % 2) / d)) for k in range(d)]
            for t in range(length)
        ],
        dtype=torch.float64,
    )
    got = module.sinusoid(length, d)
    if isinstance(got, Tensor) and got.dtype != torch.float64:
        raise Mistake(f"expected float64, got {got.dtype}: pass dtype=torch.float64 to arange")
    name_mistake(got, _mistakes_of_sinusoids(length, d))
    expect_close(got, want, "entries 2i and 2i + 1 are sin and cos of t · 10000^(−2i/d)")


def _mistakes_of_sinusoids(length: int, d: int) -> Mistakes:
    """Return the result of each known mistake."""
    t = torch.arange(length).double()[:, None]
    i = torch.arange(d // 2).double()
    angles = t * 10000 ** (-2 * i / d)
    own_angles = t * 10000 ** (-torch.arange(d).double() / d)
    even = torch.arange(d) % 2 == 0

    def table(angles: Tensor) -> Tensor:
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)

    return {
        "all sines come before all cosines, but entries 2i and 2i + 1 are neighbours": (
            lambda: torch.cat((angles.sin(), angles.cos()), -1)
        ),
        "sine and cosine are swapped: entry 0 is the sine": (
            lambda: torch.stack((angles.cos(), angles.sin()), -1).flatten(-2)
        ),
        "the factor 2 of the exponent is missing: −2i/d for i = 0 … d/2 − 1": (
            lambda: table(t * 10000 ** (-i / d))
        ),
        "the frequencies grow: the exponent must be negative": (
            lambda: table(t * 10000 ** (2 * i / d))
        ),
        "the positions start at 1, but they must start at 0": (
            lambda: table((t + 1) * 10000 ** (-2 * i / d))
        ),
        "every entry has a separate frequency, but neighbours 2i and 2i + 1 share one": (
            lambda: torch.where(even, own_angles.sin(), own_angles.cos())
        ),
        "the slowest frequency is 10000^(−(d − 2)/d), not 1/10000: divide 2i by d": (
            lambda: table(t * 10000 ** (-i / (d // 2 - 1)))
        ),
    }


@checks.proves("PreNormBlock.forward")
def pre_norm_block(module: Any) -> None:
    """Check a Pre-LN block with random weights, gains and biases."""
    block, x = _block(module.PreNormBlock)
    f, g, a, b = block.attention, block.ffn, block.attention_norm, block.ffn_norm
    with torch.no_grad():
        got = _unchanged(block, x)
        middle = x + f(a(x))
        want = middle + g(b(middle))
        mistakes: Mistakes = {
            "that is Post-LN: the norm belongs in front of the branch": (
                lambda: b(a(x + f(x)) + g(a(x + f(x))))
            ),
            "both branches read the same x: the FFN gets x with attention's result in it": (
                lambda: x + f(a(x)) + g(b(x))
            ),
            "the residual connections are missing: add each branch's result to x": (
                lambda: g(b(f(a(x))))
            ),
            "a branch's result is added to the normed x: add it to x itself": (
                lambda: _pre_on_the_normed(block, x)
            ),
            "the norms are missing": lambda: x + f(x) + g(x + f(x)),
            "the two norms are swapped": lambda: x + f(b(x)) + g(a(x + f(b(x)))),
            "one norm is used twice: each branch has a separate one": (
                lambda: middle + g(a(middle))
            ),
            "the FFN comes first, but attention should": (lambda: x + g(b(x)) + f(a(x + g(b(x))))),
            "the FFN is missing": lambda: middle,
            "attention is missing": lambda: x + g(b(x)),
            "the second residual connection is missing: add the FFN's result to x": (
                lambda: g(b(middle))
            ),
        }
        name_mistake(got, mistakes)
        expect_close(got, want, "x = x + attention(norm(x)), then x = x + ffn(norm(x))")


@checks.proves("PostNormBlock.forward")
def post_norm_block(module: Any) -> None:
    """Check a Post-LN block with random weights, gains and biases."""
    block, x = _block(module.PostNormBlock)
    f, g, a, b = block.attention, block.ffn, block.attention_norm, block.ffn_norm
    with torch.no_grad():
        got = _unchanged(block, x)
        middle = a(x + f(x))
        want = b(middle + g(middle))
        mistakes: Mistakes = {
            "that is Pre-LN: the norm belongs after the sum": (
                lambda: x + f(a(x)) + g(b(x + f(a(x))))
            ),
            "the norm acts on the branch alone: it should act on the sum": (
                lambda: x + a(f(x)) + b(g(x + a(f(x))))
            ),
            "the FFN reads the first sum without its norm": lambda: b(x + f(x) + g(x + f(x))),
            "the FFN's result is added to x, not to the normed sum": lambda: b(x + g(middle)),
            "the residual connections are missing: add each branch's result before the norm": (
                lambda: b(g(a(f(x))))
            ),
            "the norms are missing": lambda: x + f(x) + g(x + f(x)),
            "the two norms are swapped": lambda: a(b(x + f(x)) + g(b(x + f(x)))),
            "one norm is used twice: each branch has a separate one": (
                lambda: a(middle + g(middle))
            ),
            "the last norm is missing": lambda: middle + g(middle),
            "the FFN comes first, but attention should": (lambda: a(b(x + g(x)) + f(b(x + g(x))))),
            "the FFN is missing": lambda: middle,
        }
        name_mistake(got, mistakes)
        expect_close(got, want, "x = norm(x + attention(x)), then x = norm(x + ffn(x))")


def _block(make: Any) -> tuple[Any, Tensor]:
    """Return a block with random parameters, and an input, (2, 5, 16)."""
    # parts of the library, so that a mistake in the learner's own ones isn't blamed on the block
    block = make(16, nn.LayerNorm, small_gpt.FeedForward).double()
    with torch.no_grad():
        for i, parameter in enumerate(block.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=20 + i) / 2)
    return block, draw(2, 5, 16) + 1


def _unchanged(block: Any, x: Tensor) -> Any:
    """Return the block's output, and fail if it changed its input."""
    given = x.clone()
    got = block(x)
    if not torch.equal(given, x):
        raise Mistake("your block changed its input: x += … works in place, write x = x + …")
    return got


def _pre_on_the_normed(block: Any, x: Tensor) -> Tensor:
    """Return the result of adding each branch to its normed input."""
    x = block.attention_norm(x)
    x = block.ffn_norm(x + block.attention(x))
    return x + block.ffn(x)


for _check in (
    deeper_checks.rms_norm_backward,
    deeper_checks.layer_norm_backward,
    deeper_checks.conditional_entropy,
):
    checks.proves(_check.__name__)(_check)
