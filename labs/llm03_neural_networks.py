# %% [markdown]
# # LLM03 · Neural network fundamentals
# A linear layer from every side, and a transformer's cost foretold from its configuration.
#
# **You will be able to** read shapes and strides; write a linear layer and its backward; start a
# deep network so that its signal survives; and foretell a transformer's parameters, FLOPs and bytes
# to the last one, before it is built. **Builds on** matrix products and the chain rule; LLM02 shows
# how autograd applies it. **Takes** an hour to read, a minute to run (`tiny`, 2 cores).

# %% Imports
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from labs.kit import Card, Lab, Run, assets, seconds, seconds_paired, tolerance

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

lab = Lab("LLM03")
lab.argument("--model", help="a Llama model instead of SmolLM2: a folder, or a hub id")

# %% [markdown]
# ## 1. Shapes that fit
# A tensor is a box of numbers; its **shape** gives the size of each axis. `x + y` adds entry by
# entry, so the shapes must fit. They need not be equal: **broadcasting** stretches. Write the
# shapes below each other, *aligned at the right*. On each axis two sizes fit if they are equal or
# if one of them is 1, and a missing axis counts as 1; what is 1 is stretched to the other's size.
# Anything else is an error (NumPy's rule, which PyTorch took over):
#
# ```
# (8, 1, 6)
# (   7, 1)
# (8, 7, 6)
# ```
#
# Two traps. A size of 1 also stretches to 0: the answer has the *other's* size, not the larger. And
# what fits needn't be what you meant: (4,) with (4, 1) gives (4, 4), without a word. Say pᵢ are n
# predictions, shape (n, 1), and tⱼ their targets, shape (n,). Then `((p - t) ** 2).mean()` averages
# over all n² pairs, and (with bars for means, var for mean squared deviations)
#
# `mean over i, j of (pᵢ − tⱼ)² = (p̄ − t̄)² + var p + var t`,
#
# for the cross term averages to zero. The smallest value is var t, at pᵢ = t̄ for every i: training
# teaches the model to say the mean, whatever it is asked.


# %% 1. Broadcasting
@lab.exercise(
    level=1,
    hints=(
        "Align at the right: which size does a missing axis on the left count as?",
        "Pad the shorter shape with ones on its left; then go through both axis by axis.",
        "If one size is 1 the answer is the other; equal sizes stay; else raise ValueError.",
    ),
)
def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of x + y for x of shape `a` and y of shape `b`; ValueError where they don't fit."""
    axes = max(len(a), len(b))
    a, b = (1,) * (axes - len(a)) + tuple(a), (1,) * (axes - len(b)) + tuple(b)
    for m, n in zip(a, b, strict=True):
        if m != n and 1 not in (m, n):
            raise ValueError(f"{m} and {n} don't fit")
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


TWELVE = (
    ((4, 3), (3,)),
    ((4, 3), (4,)),
    ((4, 3), (4, 1)),
    ((4,), (4, 1)),
    ((2, 5), ()),
    ((8, 1, 6), (7, 1)),
    ((2, 3, 4), (2, 4)),
    ((2, 3, 4), (2, 1, 4)),
    ((5, 1), (1, 0)),
    ((5, 2), (5, 0)),
    ((64, 12, 50, 50), (64, 1, 1, 50)),
    ((64, 12, 50, 50), (64, 50)),
)


def shape_or_error(rule: Callable[..., Any], a: tuple[int, ...], b: tuple[int, ...]) -> Any:
    try:
        return tuple(rule(a, b))
    except (ValueError, RuntimeError):
        return "error"


def pytorchs(a: tuple[int, ...], b: tuple[int, ...]) -> Any:
    """What PyTorch makes of a sum; on the meta device, where tensors have shapes but no numbers."""
    return (torch.empty(a, device="meta") + torch.empty(b, device="meta")).shape


def draw_shapes(ax: Any, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Two shapes and their sum's below them, a box for each axis: dotted where it's stretched."""
    axes = max(len(a), len(b))
    padded = [(None,) * (axes - len(shape)) + shape for shape in (a, b)]
    for i, (m, n) in enumerate(zip(*padded, strict=True)):
        fits = m == n or not {1, None}.isdisjoint((m, n))
        colour = "C0" if fits else "C1"
        for row, size in enumerate((m, n, n if m in (1, None) else m)):
            stretched, missing = row < 2 and size in (1, None) and m != n, size is None
            full = fits and not stretched
            look = {"fc": colour if full else "none", "ls": ":" if stretched else "-"}
            ax.add_patch(plt.Rectangle((i, -1.2 * row), 0.9, 1, ec=colour, lw=2, **look))
            text = "error" if row == 2 and not fits else "(1)" if missing else size
            ink = "white" if full else colour
            ax.text(i + 0.45, 0.47 - 1.2 * row, text, ha="center", va="center", color=ink)
    ax.set(xlim=(-0.1, 3), ylim=(-2.5, 1.1), title=f"{a} + {b}", aspect="equal")
    ax.axis("off")


@lab.experiment
def the_rule_is_pytorchs(run: Run):
    """Aligned at the right, sizes equal or 1: the rule gives PyTorch's shape, or its error.

    Predict: write down the twelve results before you read on. Four are errors: which?
    """
    names = ["a", "b", "by the rule", "PyTorch"]
    answers = [[shape_or_error(f, *pair) for f in (broadcast_shape, pytorchs)] for pair in TWELVE]
    run.table("Twelve sums", names, [[*p, *got] for p, got in zip(TWELVE, answers, strict=True)])
    run.check("of the twelve, told alike", sum(ours == its for ours, its in answers), equals=12)
    sizes = torch.tensor([0, 1, 1, 2, 3])[torch.randint(5, (2000, 8))].tolist()
    lengths = torch.randint(5, (2000, 2)).tolist()
    told = []
    for drawn, (m, n) in zip(sizes, lengths, strict=True):
        pair = tuple(drawn[:m]), tuple(drawn[4 : 4 + n])
        told.append([shape_or_error(f, *pair) for f in (broadcast_shape, pytorchs)])
    wrong, errors = sum(a != b for a, b in told), sum(b == "error" for _, b in told)
    run.check("of 2,000 random pairs, told otherwise", wrong, at_most=0, because="one rule")
    because = "the partner: each kind of answer is common"
    run.check("errors among them", errors, at_least=200, at_most=1800, because=because)
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 6.6))
    for ax, i in zip(axes.flat, (5, 1, 3, 10), strict=True):
        draw_shapes(ax, *(shape[-3:] for shape in TWELVE[i]))
    run.figure(
        fig,
        "broadcasting",
        "Shapes aligned at the right, the sum's below. Full: taken as it is; dotted: stretched, "
        "in brackets where the axis is missing. Lower left is the trap: nothing warns.",
    )


@lab.experiment
def a_missing_axis_teaches_the_mean(run: Run):
    """Predictions (n, 1) against targets (n,): no error, and training learns to say the mean.

    Predict: the targets are linear in x but for a little noise. Where does the broken loss end?
    """
    x, noise = torch.randn(256, 4, dtype=torch.float64), 0.1 * torch.randn(256).double()
    t = x @ torch.tensor([1.0, -1.0, 1.0, -1.0]).double() + noise  # variance 4 and 0.01
    x, ends = torch.cat((x, torch.ones(256, 1)), 1), []  # the last weight is a bias
    for target in (t[:, None], t):
        w = torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
        for _ in range(500):
            loss = (x @ w - target).square().mean()
            w = (w - 0.1 * torch.autograd.grad(loss, w)[0]).detach().requires_grad_()
        ends.append(((x @ w).detach(), loss.item() / t.var(correction=0).item()))
    p = torch.randn(256, 1, dtype=torch.float64)
    formula = (p.mean() - t.mean()) ** 2 + p.var(correction=0) + t.var(correction=0)
    run.agree("mean over all pairs, less the formula", (p - t).square().mean() - formula)
    because = "twice the noise's share of the variance, 0.01 of 4.01"
    run.check("loss over var t, as meant", ends[0][1], at_most=0.005, because=because)
    run.agree("broken: largest prediction, less the mean", ends[1][0] - t.mean(), 1e-9)
    return f"Broken, the loss ends at {ends[1][1]:.3f} var t; as meant, at {ends[0][1]:.4f}."


# %% [markdown]
# ## 2. Strides, views and copies
# Memory has no axes: a tensor's numbers lie in a row, its **storage**. The shape, the **strides**
# (how many places further the next entry along each axis lies) and an offset make a box of it:
# entry (i, j) is at `offset + i·stride₀ + j·stride₁`. For 3 rows of 4 numbers, row by row, the
# strides are (4, 1). Read with shape (4, 3) and strides (1, 4), the same row of numbers is the
# transpose. Nothing moved: this is a **view**. Slicing steps over entries, so it makes a view too;
# `expand` stretches an axis with stride 0, and this is how broadcasting costs no memory. What
# no strides can describe must be copied: `x.T.view(12)` refuses to, `x.T.reshape(12)` does it
# without a word, `contiguous` and `repeat` do it because they are asked to.
#
# Two consequences. Writing into a view writes into its source. And where a stride is 0, many
# entries are one number, so PyTorch refuses to write there.


# %% 2. Views
@lab.exercise(
    level=2,
    hints=(
        "Entry (i, i) is at offset + i·stride₀ + i·stride₁: how far is it to the next?",
        "Don't trust a shape to tell the strides: x may be a transpose or a slice. Ask x.stride().",
        "x.as_strided((length,), (sum of both strides,)); the offset stays x's own if not given.",
    ),
)
def diagonal(x: Tensor) -> Tensor:
    """(m, n) -> (min(m, n),), a view of the diagonal whatever the strides of x; by as_strided."""
    return x.as_strided((min(x.shape),), (sum(x.stride()),))


@lab.experiment
def views_copy_nothing(run: Run):
    """`expand` copies nothing: same pointer, stride 0, not a byte more. `repeat` copies it all.

    Predict: which lines of the table share x's memory?
    """
    x, rows = torch.arange(12.0).view(3, 4), []
    for name, y in (
        ("x", x),
        ("x.T", x.T),
        ("x[1:, ::2]", x[1:, ::2]),
        ("diagonal(x)", diagonal(x)),
        ("x[:, :1].expand(3, 9)", x[:, :1].expand(3, 9)),
        ("x.T.contiguous()", x.T.contiguous()),
        ("x.T.reshape(12)", x.T.reshape(12)),
        ("x[[0, 2]]", x[[0, 2]]),
    ):
        shares = y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        rows.append([name, tuple(y.shape), y.stride(), y.storage_offset(), "yes" if shares else ""])
    run.table("One row of twelve numbers", ["", "shape", "strides", "offset", "x's memory"], rows)
    column = torch.ones(3, 1)  # 12 bytes
    wide, copied = column.expand(3, 10**6), column.repeat(1, 10**6)
    run.check("expand: same pointer", wide.data_ptr() == column.data_ptr(), equals=True)
    run.check("expand: stride", wide.stride(1), at_most=0, because="the next entry is the same")
    run.check("expand: bytes of storage", wide.untyped_storage().nbytes(), equals=12)
    because = "the partner: a million numbers for each of three, 4 bytes each"
    run.check("repeat: same pointer", copied.data_ptr() == column.data_ptr(), equals=False)
    nbytes = copied.untyped_storage().nbytes()
    run.check("repeat: bytes of storage", nbytes, equals=12 * 10**6, because=because)
    diagonal(x).zero_()
    run.check("sum after zeroing the view of 0, 5, 10", x.sum(), equals=66 - 15)
    refused = shape_or_error(lambda a, _: (wide.add_(1), a), (), ())
    run.check("writing into the expanded", refused, equals="error")


# %% [markdown]
# ## 3. A linear layer, four ways
# A **linear layer** maps n numbers to m. For a batch of B inputs,
#
# `y[b, i] = Σⱼ w[i, j] · x[b, j] + bias[i]`,
#
# x is (B, n), the **weight** w (m, n), y (B, m). Each of the B·m answers takes n products and as
# many sums: **2·B·m·n FLOPs** (floating-point operations; the bias adds one in 2n, and isn't
# counted). Below are four ways to say it. The loops say it as the formula does. By broadcasting, x
# becomes (B, 1, n), all products (B, m, n) are laid out, then summed: fine, but for memory. In
# **einsum** one names the axes: what both sides name is matched, and what the answer doesn't name is
# summed over: `"bj,ij->bi"`. As a matrix product it is `x @ w.T`.
#
# The **backward** pass is handed g = ∂loss/∂y, as large as y, and owes ∂loss/∂ of x, w and bias. By
# the chain rule an input collects from every answer that it went into, times the factor it met:
#
# `dx[b, j] = Σᵢ g[b, i] · w[i, j]`, `dw[i, j] = Σ_b g[b, i] · x[b, j]`, `dbias[i] = Σ_b g[b, i]`.
#
# As products, dx = g w and dw = gᵀ x: each takes 2·B·m·n FLOPs, so **backward costs twice what
# forward does**. (Can't recall which is transposed? Only one order has the right shape.) The bias was
# stretched over the batch, so its gradient is summed over the batch: that is so wherever something
# was broadcast.


# %% 3. Four ways
def linear_loops(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """(B, n), (m, n), (m,) -> (B, m), on Python's own numbers, which are float64."""
    rows, weights, shifts = x.tolist(), w.tolist(), bias.tolist()
    y = []
    for row in rows:
        y.append([])
        for weight, shift in zip(weights, shifts, strict=True):
            total = shift
            for j in range(len(row)):
                total += weight[j] * row[j]
            y[-1].append(total)
    return torch.tensor(y, dtype=x.dtype)


def linear_broadcast(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return (x[:, None] * w).sum(-1) + bias  # (B, 1, n)·(m, n) -> (B, m, n) -> (B, m)


def linear_einsum(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("bj,ij->bi", x, w) + bias


@lab.exercise(
    level=1,
    hints=(
        "Which axis of w must meet the last one of x? A matrix product sums last with first.",
        "w is (m, n), so its transpose is wanted; the bias, (m,), broadcasts at the right.",
        "x @ w.T + bias, which takes any number of axes before the last.",
    ),
)
def linear(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """(..., n), (m, n), (m,) -> (..., m), as a matrix product and without `nn`."""
    return x @ w.T + bias


@lab.exercise(
    level=2,
    hints=(
        "Three gradients, each of its own tensor's shape: dx (..., n), dw (m, n), dbias (m,).",
        "All axes before the last are batch, and w was used at each of them: flatten, then sum.",
        "g @ w; g.flatten(0, -2).T @ x.flatten(0, -2); the sum of g's rows.",
    ),
)
def linear_backward(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """g = ∂loss/∂y (..., m), x (..., n), w (m, n) -> dx, dw, dbias, as large as x, w and bias."""
    rows, inputs = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])  # (B, m), (B, n)
    return g @ w, rows.T @ inputs, rows.sum(0)


@lab.experiment
def four_ways_agree(run: Run):
    """Loops, broadcasting, einsum and matrix product give the same; the loops take far longer.

    Predict: 16 inputs, 256 × 256 weights. How many times longer do Python's loops take?
    """
    draws = torch.randn(16, 256), torch.randn(256, 256) / 16, torch.randn(256)
    x, w, bias = (t.double() for t in draws)
    ways = {"broadcast": linear_broadcast, "einsum": linear_einsum, "matmul": linear}
    exact = linear_loops(x, w, bias)
    run.agree("loops less nn.functional.linear, float64", exact - F.linear(x, w, bias))
    for name, way in ways.items():
        run.agree(f"{name} less loops, float64", way(x, w, bias) - exact)
    short = [t.float() for t in draws]
    for name, way in ways.items():
        bound = tolerance(torch.float32)
        run.agree(f"{name} less loops, float32", way(*short) - exact.float(), bound)
    error = (linear(*(t.bfloat16() for t in draws)) - exact).abs().max()
    run.measure("matmul, bfloat16: error", error, expect_at_most=tolerance(torch.bfloat16))
    rows = []
    for name, way in {"loops": linear_loops, **ways}.items():
        slow, fast = seconds_paired(partial(way, *short), partial(linear, *short), 5)
        rows.append([name, 1e6 * median(slow), median(a / b for a, b in zip(slow, fast, strict=True))])
    run.table("Forward in float32", ["", "time (µs)", "times matmul's"], rows)
    many = {"expect_at_least": 100, "because": "one number at a time, interpreted"}
    run.measure("loops' time over matmul's", rows[0][2], timed=True, **many)
    return f"Loops take {rows[0][2]:,.0f} times as long as the matrix product."


@lab.experiment
def the_backward_equals_autograds(run: Run):
    """The layer's backward by hand equals autograd's; what was broadcast has its gradient summed."""
    x, w, bias = (torch.randn(*s).double().requires_grad_() for s in ((8, 5, 48), (32, 48), (32,)))
    y = linear(x, w, bias)
    g = torch.randn_like(y)
    theirs = torch.autograd.grad(y, (x, w, bias), g)
    for name, mine, its in zip(("dx", "dw", "dbias"), linear_backward(g, x, w), theirs, strict=True):
        run.agree(f"{name} less autograd's", mine - its)
    stretched = bias.expand(8, 5, 32)
    (summed,) = torch.autograd.grad(stretched, bias, g)
    run.agree("gradient through expand, less the sum", summed - g.sum((0, 1)))
    size = theirs[2].abs().max()
    run.check("largest of dbias", size, at_least=1, because="the partner: sums of 40 normal draws")


# %% 4. Attention by einsum
@lab.exercise(
    level=2,
    hints=(
        "Name the axes: queries are bqhd, keys and values bkhd. What do scores keep?",
        "Scores are bhqk, divided by √D; the softmax runs over the keys, the last axis.",
        'Mix with "bhqk,bkhd->bqhd": k is summed over.',
    ),
)
def attention_by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(QKᵀ/√D)V for each head: (B, Tq, H, D), (B, Tk, H, D) twice -> (B, Tq, H, D)."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


@lab.experiment
def einsum_spells_attention(run: Run):
    """Attention takes two einsums, no transpose and no view, and equals PyTorch's own.

    (What it is for, LLM06 tells. Here it is a product with four axes to keep apart.)
    """
    q, k, v = torch.randn(3, 2, 50, 4, 16, dtype=torch.float64)  # (B, T, H, D) each
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, tolerance(torch.float32))):
        mine, its = ([x.to(dtype).transpose(1, i) for x in (q[:, :9], k, v)] for i in (1, 2))
        library = F.scaled_dot_product_attention(*its).transpose(1, 2)
        run.agree(f"less PyTorch's, {str(dtype)[6:]}", attention_by_einsum(*mine) - library, bound)
