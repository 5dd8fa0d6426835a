"""Check the exercises of LLM05a+ against PyTorch's own kernels, or the definition."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor

Mistakes = dict[str, Callable[[], Tensor]]  # by message: the result that each mistake gives
EPS = 0.1  # large enough for its position in the formula to make a clear difference


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
    _, dgain = _run_on_one_token(implementation, dy, x, gain)
    expect_close(dgain, dy[0, 0] * x_hat[0, 0], "for one token, (d,), dgain is dy · x̂")


def _run_on_one_token(implementation: Any, dy: Tensor, x: Tensor, gain: Tensor) -> Any:
    """Return the gradients for the first token alone, with dy and x of shape (d,)."""
    try:
        return implementation(dy[0, 0], x[0, 0], gain, EPS)
    except (IndexError, RuntimeError) as error:
        message = "x may have any number of axes, (..., d): sum by sum_to_size(gain.shape)"
        raise Mistake(message) from error


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


def layer_norm_backward(module: Any) -> None:
    """Check all three gradients against autograd's, for a batch and for one token."""
    implementation = module.layer_norm_backward
    dy = draw(3, 4, 8)
    x = draw(3, 4, 8, seed=1) + 1
    gain, bias = draw(2, 8, seed=2)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, gain, bias)]
    want = torch.autograd.grad(F.layer_norm(inputs[0], (8,), inputs[1], inputs[2], EPS), inputs, dy)
    got = implementation(dy, x, gain, EPS)
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
    _, dgain, dbias = _run_on_one_token(implementation, dy, x, gain)
    expect_close(dgain, dy[0, 0] * x_hat[0, 0], "for one token, (d,), dgain is dy · x̂")
    expect_close(dbias, dy[0, 0], "for one token, (d,), dbias is dy")


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
