"""Check the exercises of LLM07+: against torch's Adam, by hand, and DoRA's rows by formula."""

from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm07_lora.check_helpers import random_layer, require_function, type_of

import torch
from torch import Tensor


def first_update(module: Any) -> None:
    """Check the update against a step of torch's Adam from B = 0."""
    implementation = module.first_update
    require_function(implementation)
    g = draw(7, 5)
    a = draw(2, 5, seed=1)
    scale = 3.0
    rate = 0.1
    b = torch.zeros(7, 2, dtype=torch.float64, requires_grad=True)
    (scale * (b @ a) * g).sum().backward()  # a loss whose gradient by W is G
    torch.optim.Adam([b], lr=rate, eps=1e-20).step()
    want = scale * (b @ a).detach()
    got = implementation(g, a, scale, rate)
    expect_close(got, want, "ΔW has the shape of W, (out, in)", tolerance=torch.inf)
    name_mistake(
        got,
        {
            "the step goes against the gradient: the minus is missing": lambda: -want,
            "the factor scale is missing: ΔW is scale times B A": lambda: want / scale,
            "the scale is there twice: Adam's step doesn't depend on the gradient's size": (
                lambda: want * scale
            ),
            "this is gradient descent: Adam moves each number of B by the rate": (
                lambda: -scale * rate * g @ a.mT @ a
            ),
            "this is gradient descent, with its scale²: Adam moves B by the rate": (
                lambda: -(scale**2) * rate * g @ a.mT @ a
            ),
            "Adam moves B by the rate, not ΔW: take the sign of B's gradient": (
                lambda: -scale * rate * (g @ a.mT @ a).sign()
            ),
            "this is the sign of W's gradient: only A and B are trained": (
                lambda: -scale * rate * g.sign()
            ),
        },
    )
    expect_close(got, want, "expected scale times B A, with B after a step of Adam")


def quantize(module: Any) -> None:
    """Check codes and scales, block by block, also for a block of zeros."""
    implementation = module.quantize
    require_function(implementation)
    levels = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0], dtype=torch.float64)
    weight = draw(4, 6)
    weight[3] = 0.0  # two blocks of zeros
    got = implementation(weight.clone(), levels, 3)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"expected codes and scales, got {type_of(got)}")
    codes, scales = got
    blocks = weight.view(8, 3)
    if not isinstance(codes, Tensor) or codes.dtype != torch.uint8:
        raise Mistake("codes must be a tensor of uint8: a code is the index of a level")
    if codes.shape != weight.shape:
        raise Mistake(f"codes are {tuple(codes.shape)}: give them the shape of the matrix")
    want = blocks.abs().amax(1)
    mistakes = {
        "the scale is the largest value of a block: take the largest absolute value": (
            lambda: blocks.amax(1)
        ),
        "the scale is that of the entire matrix: each block has its own": (
            lambda: weight.abs().max().expand(8)
        ),
    }
    name_mistake(scales, mistakes)
    expect_close(scales, want, "expected the largest absolute value of each block, (blocks,)")
    _expect_codes(codes, blocks, want, levels)


def _expect_codes(codes: Tensor, blocks: Tensor, scales: Tensor, levels: Tensor) -> None:
    relative = blocks / scales.clamp_min(1e-12)[:, None]
    nearest = (relative[..., None] - levels).abs().argmin(-1)
    got = codes.view(nearest.shape).long()
    if torch.equal(got, nearest):
        return
    if (got[6:] != 2).any():
        raise Mistake("in a block of zeros every code must be that of the level 0")
    if torch.equal(got, (blocks[..., None] - levels).abs().argmin(-1)):
        raise Mistake("divide each block by its scale before you look for the nearest level")
    below = (relative[..., None] >= levels).sum(-1).clamp_min(1) - 1
    if torch.equal(got, below):
        raise Mistake("these are the levels below each number: take the nearest level")
    raise Mistake("a code isn't that of the nearest level")


# DoraLinear


def dora_linear(module: Any) -> None:
    """Check the output, the magnitudes of the rows, and the gradients."""
    layer = random_layer(module.DoraLinear)
    with torch.no_grad():
        layer.magnitude.copy_(draw(4, seed=7).abs() + 0.5)
    x = draw(2, 5, 6, seed=9)
    weight, bias = layer.base.weight.detach(), layer.base.bias.detach()
    changed = weight + 3 * (layer.B @ layer.A).detach()  # alpha 6 over rank 2
    magnitudes = layer.magnitude.detach()
    norms = changed.norm(dim=1)
    columns = changed / changed.norm(dim=0)
    want = x @ (changed * (magnitudes / norms)[:, None]).mT + bias
    got = layer(x)
    mistakes = {
        "this is LoRA: the rows don't have the norms in `magnitude`": lambda: x @ changed.mT + bias,
        "the rows are multiplied by `magnitude`, but not divided by their norms": (
            lambda: x @ (changed * magnitudes[:, None]).mT + bias
        ),
        "the norms are those of W alone: take them of W + ΔW": (
            lambda: x @ (changed * (magnitudes / weight.norm(dim=1))[:, None]).mT + bias
        ),
        "the norms are those of columns: each output has a row of W": (
            lambda: x @ (columns * magnitudes[:, None]).mT + bias
        ),
        "the bias is scaled, too: scale before you add it": (
            lambda: (x @ changed.mT + bias) * (magnitudes / norms)
        ),
        "the bias is missing": lambda: want - bias,
        "the bias is added twice: the base's output contains it": lambda: (
            (x @ changed.mT + bias) * (magnitudes / norms) + bias
        ),
    }
    name_mistake(got.detach(), mistakes)
    expect_close(got.detach(), want, "expected magnitude ÷ norm of each row, times (W + ΔW) x")
    _expect_dora_gradients(layer, got, x, changed)
    layer.merged = True  # as after merge(): the base's weight has the update and the magnitudes
    plain = (x @ weight.mT + bias).detach()
    hint = "once merged, the base's weight has update and magnitudes: return the base's output"
    expect_close(layer(x).detach(), plain, hint)


def _expect_dora_gradients(layer: Any, got: Tensor, x: Tensor, changed: Tensor) -> None:
    """Check that the norms count as constants, and that magnitudes get a gradient."""
    wanted = (layer.A, layer.B, layer.magnitude)
    if not got.requires_grad:
        raise Mistake("no gradient reaches A, B or magnitude: detach only the norms")
    gradients = torch.autograd.grad(got.sum(), wanted, allow_unused=True)
    for name, gradient in zip(("A", "B", "magnitude"), gradients, strict=True):
        if gradient is None:
            raise Mistake(f"no gradient reaches {name}: what did you detach?")
    norms = changed.norm(dim=1)
    factor = (layer.magnitude.detach() / norms)[:, None]  # (out, 1)
    total = x.sum((0, 1))  # (in,)
    want = 3 * factor * (layer.A.detach() @ total)  # (out, r)
    hint = "the norms must count as constants in the backward pass: detach them"
    if not torch.allclose(gradients[1], want):
        raise Mistake(hint)
