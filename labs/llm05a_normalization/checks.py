"""Check the exercises of LLM05a against PyTorch's own kernels, or the definition."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
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
    expect_close(got, F.layer_norm(x, (8,), gain, bias, EPS), "(x − μ) / √(σ² + ε) · γ + β")
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
    expect_close(got, F.rms_norm(x, (8,), gain, EPS), "x / √(mean(x²) + ε) · γ")
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
    """Check five widths, among them those of two Llama models."""
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
            raise Mistake(f"expected a whole number, got a {type(got).__name__}: use //")
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


@checks.proves("rms_norm_backward")
def rms_norm_backward(module: Any) -> None:
    """Check both gradients against autograd's, for a batch and for one token."""
    implementation = module.rms_norm_backward
    dy = draw(3, 4, 8)
    x = draw(3, 4, 8, seed=1) + 1
    gain = draw(8, seed=2)
    inputs = [x.clone().requires_grad_(), gain.clone().requires_grad_()]
    want = torch.autograd.grad(F.rms_norm(inputs[0], (8,), inputs[1], EPS), inputs, dy)
    got = implementation(dy, x, gain, EPS)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake("expected two gradients: return dx, dgain")
    name_mistake(got[0], _mistakes_of_dx(dy, x, gain))
    expect_close(got[0], want[0], "dx = (g − its component along x̂) / r, with g = γ·dy")
    x_hat = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    unsummed = [dy * x_hat, *((dy * x_hat).sum(axis) for axis in (0, 1))]
    if any(equals(got[1], wrong) for wrong in unsummed):
        raise Mistake("dgain is one vector, (d,): sum over all axes but the last")
    name_mistake(got[1], _mistakes_of_dgain(dy, x, x_hat, gain))
    expect_close(got[1], want[1], "dgain = Σ dy · x̂ over all tokens")
    _, dgain = implementation(dy[0, 0], x[0, 0], gain, EPS)
    expect_close(dgain, dy[0, 0] * x_hat[0, 0], "for one token, (d,), dgain is dy · x̂")


def _mistakes_of_dx(dy: Tensor, x: Tensor, gain: Tensor) -> Mistakes:
    """Return the result of each known mistake in the gradient of x."""
    bare_r = x.square().mean(-1, keepdim=True).sqrt()
    r = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    x_hat = x / r
    g = dy * gain

    def along(a: Tensor, b: Tensor) -> Tensor:
        """Return b times the mean of a · b: if b is x̂, the component of a along it."""
        return b * (a * b).mean(-1, keepdim=True)

    return {
        "r is treated as a constant: subtract the component of g along x̂": lambda: g / r,
        "that is LayerNorm's gradient: RMSNorm depends on shifts, so don't subtract mean(g)": (
            lambda: (g - g.mean(-1, keepdim=True) - along(g, x_hat)) / r
        ),
        "the gain is missing from dx: the gradient that arrives at x̂ is g = γ·dy": (
            lambda: (dy - along(dy, x_hat)) / r
        ),
        "the division by r is missing": lambda: g - along(g, x_hat),
        "the component along x̂ has the wrong sign: subtract it": lambda: (g + along(g, x_hat)) / r,
        "x is used in place of x̂: subtract x̂ · mean(g · x̂)": lambda: (g - along(g, x)) / r,
        "a sum is used in place of the mean: ∂r/∂xᵢ has a factor 1/d": (
            lambda: (g - 8 * along(g, x_hat)) / r
        ),
        "ε is missing from r": lambda: (g - along(g, x / bare_r)) / bare_r,
    }


def _mistakes_of_dgain(dy: Tensor, x: Tensor, x_hat: Tensor, gain: Tensor) -> Mistakes:
    """Return the result of each known mistake in the gradient of the gain."""
    return {
        "dgain uses dy · x, but it is the sum of dy · x̂": lambda: (dy * x).sum((0, 1)),
        "dgain contains the gain itself: it is dy · x̂, not g · x̂": (
            lambda: (dy * gain * x_hat).sum((0, 1))
        ),
        "dgain is a mean, but it is a sum over the tokens": lambda: (dy * x_hat).mean((0, 1)),
        "dgain is the sum of dy, the gradient of a bias: it is the sum of dy · x̂": (
            lambda: dy.sum((0, 1))
        ),
    }


@checks.proves("layer_norm_backward")
def layer_norm_backward(module: Any) -> None:
    """Check all three gradients against autograd's."""
    dy = draw(3, 4, 8)
    x = draw(3, 4, 8, seed=1) + 1
    gain, bias = draw(2, 8, seed=2)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, gain, bias)]
    want = torch.autograd.grad(F.layer_norm(inputs[0], (8,), *inputs[1:], EPS), inputs, dy)
    got = module.layer_norm_backward(dy, x, gain, EPS)
    if not isinstance(got, tuple) or len(got) != 3:
        raise Mistake("expected three gradients: return dx, dgain, dbias")
    name_mistake(got[0], _mistakes_of_layer_dx(dy, x, gain))
    expect_close(got[0], want[0], "dx = (g − mean(g) − x̂ · mean(g · x̂)) / r, with g = γ·dy")
    x_hat = F.layer_norm(x, (8,), eps=EPS)
    for name, gradient, terms in (("dgain", got[1], dy * x_hat), ("dbias", got[2], dy)):
        if any(equals(gradient, wrong) for wrong in (terms, terms.sum(0), terms.sum(1))):
            raise Mistake(f"{name} is one vector, (d,): sum over all axes but the last")
    name_mistake(got[1], _mistakes_of_dgain(dy, x, x_hat, gain))
    expect_close(got[1], want[1], "dgain = Σ dy · x̂ over all tokens")
    message = "dbias contains the gain, but it is the sum of dy itself"
    name_mistake(got[2], {message: lambda: (dy * gain).sum((0, 1))})
    expect_close(got[2], want[2], "dbias = Σ dy over all tokens")


def _mistakes_of_layer_dx(dy: Tensor, x: Tensor, gain: Tensor) -> Mistakes:
    """Return the result of each known mistake in the gradient of x."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    r = (variance + EPS).sqrt()
    x_hat = centred / r
    g = dy * gain

    def mean(a: Tensor) -> Tensor:
        return a.mean(-1, keepdim=True)

    along = x_hat * mean(g * x_hat)
    return {
        "that is RMSNorm's formula: mean(g) isn't subtracted": lambda: (g - along) / r,
        "μ and r are treated as constants": lambda: g / r,
        "r is treated as a constant: subtract the component of g along x̂": (
            lambda: (g - mean(g)) / r
        ),
        "the gain is missing from dx: the gradient that arrives at x̂ is g = γ·dy": (
            lambda: (dy - mean(dy) - x_hat * mean(dy * x_hat)) / r
        ),
        "the division by r is missing": lambda: g - mean(g) - along,
        "x isn't centred: x̂ is (x − μ) / r": lambda: (g - mean(g) - x / r * mean(g * x / r)) / r,
        "ε is missing from r": (
            lambda: (g - mean(g) - centred / variance * mean(g * centred)) / variance.sqrt()
        ),
    }


@checks.proves("conditional_entropy")
def conditional_entropy(module: Any) -> None:
    """Check it on counts with rows of zeros, against the sum over all pairs."""
    counts = torch.tensor([[0, 3, 0, 0], [1, 0, 1, 6], [2, 0, 0, 2], [0, 0, 0, 0]]).double()
    pairs = [(count, count / sum(row)) for row in counts.tolist() for count in row if count]
    total = sum(count for count, _ in pairs)
    want = -sum(count * math.log(p) for count, p in pairs) / total
    got = module.conditional_entropy(counts.clone())
    if isinstance(got, bool) or not isinstance(got, float):
        raise Mistake(f"expected a float, got a {type(got).__name__}: end with .item()")
    if math.isnan(got):
        raise Mistake("the result is NaN: a row of zeros divided by its sum, or 0 · ln 0?")
    joint = counts / total
    rows = joint.sum(1)
    entropies = [
        -sum(count / sum(row) * math.log(count / sum(row)) for count in row if count)
        for row in counts.tolist()
    ]
    seen = [entropy for entropy, row in zip(entropies, rows.tolist(), strict=True) if row]
    columns = joint / joint.sum(0).clamp(min=1e-9)
    wrong = {
        "the sign is wrong: an entropy isn't negative": -want,
        "that is in bits: use the natural logarithm": want / math.log(2),
        "that is a sum over all pairs: divide by their number": want * total,
        "that is the entropy of pairs, H(last, next): divide each row by its sum": (
            -torch.xlogy(joint, joint).sum().item()
        ),
        "that is the plain mean over rows: weight each by how often its token occurs": (
            sum(entropies) / len(entropies)
        ),
        "that is the plain mean over rows that occur: weight each by how often its token occurs": (
            sum(seen) / len(seen)
        ),
        "that is H(last | next): divide by the sums of rows, not of columns": (
            -torch.xlogy(joint, columns).sum().item()
        ),
        "that is the entropy of the next token alone: it ignores the last one": (
            -torch.xlogy(joint.sum(0), joint.sum(0)).sum().item()
        ),
    }
    for message, value in wrong.items():
        if abs(got - value) < 1e-9:
            raise Mistake(message)
    if abs(got - want) > 1e-9:
        raise Mistake(
            f"expected {want:.6f} nats, got {got:.6f}: −Σ n(a, b) ln p(b | a) / Σ n(a, b)"
        )
