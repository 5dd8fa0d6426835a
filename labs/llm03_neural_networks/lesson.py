# %% [markdown]
# # LLM03 · Neural network fundamentals
# A linear layer from every side, and a transformer's cost foretold from its configuration.
#
# **You will be able to** read shapes and strides; write a linear layer and its backward; start a
# deep network so that its signal survives; and foretell a transformer's parameters, FLOPs and bytes
# to the last one, before it is built. **Builds on** matrix products and the chain rule; LLM02 shows
# how autograd applies it. **Takes** an hour to read, half a minute to run (`tiny`, 2 cores).

# %% Imports
import math
import random
import struct
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cache, partial
from statistics import linear_regression, median
from typing import Any

from labs.kit import Card, Lab, Results, Run, assets, seconds, tolerance

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

lab = Lab("LLM03")
lab.argument("--model", help="a Llama model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)
FLOAT32 = tolerance(torch.float32)

# %% [markdown]
# ## 1. Shapes that fit
# A tensor is a box of numbers; its **shape** gives the size of each axis. `x + y` adds entry by
# entry, so the shapes must fit. They need not be equal, for **broadcasting** stretches. Write the
# shapes one below the other, *aligned at the right*. On each axis two sizes fit if they are equal
# or one of them is 1; a missing axis counts as 1; what is 1 is stretched to the other's size.
# Anything else is an error (NumPy's rule, which PyTorch took over). The figure draws four cases.
#
# Two traps. A 1 also stretches to 0: the answer has the *other's* size, not the larger. And what
# fits needn't be what you meant. Say $p_i$ are $n$ predictions, shape `(n, 1)`, and $t_j$ their
# targets, shape `(n,)`. Then $p - t$ has the shape `(n, n)`, without a word, and
# `((p - t) ** 2).mean()` is taken over all pairs. With a bar for the mean and $\text{var}$ for the
# mean squared deviation from it, that is
#
# $$\frac{1}{n^2} \sum_{i,j} (p_i - t_j)^2 = (\bar p - \bar t)^2 + \text{var}(p) + \text{var}(t)$$
#
# for the cross terms average to zero. It is smallest where every $p_i = \bar t$: training teaches
# the model to say the mean, whatever it is asked.


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
    pairs = list(zip((1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b, strict=True))
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ValueError(f"{a} and {b} don't fit")
    return tuple(n if m == 1 else m for m, n in pairs)


TWELVE = [
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
    ((2, 9, 50, 50), (2, 1, 1, 50)),
    ((2, 9, 50, 50), (2, 50)),
]


def pytorchs_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sum on the meta device, where tensors have a shape and no numbers."""
    return tuple((torch.empty(a, device="meta") + torch.empty(b, device="meta")).shape)


def by_the_rule_and_by_pytorch(pair: Any) -> list[Any]:
    answers = []
    for shape_of in (broadcast_shape, pytorchs_shape):
        try:
            answers.append(tuple(shape_of(*pair)))
        except (ValueError, RuntimeError):
            answers.append("error")
    return answers


def random_shape() -> tuple[int, ...]:
    return tuple(random.choices((0, 1, 1, 2, 3), k=random.randrange(5)))


def draw_shapes(ax: Any, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Two shapes, the sum's below them, a box for each axis: dotted where it is stretched."""
    axes = max(len(a), len(b))
    padded = [(None,) * (axes - len(shape)) + shape for shape in (a, b)]
    for i, (m, n) in enumerate(zip(*padded, strict=True)):
        fits = m == n or not {1, None}.isdisjoint((m, n))
        colour = "C0" if fits else "C1"
        for row, size in enumerate((m, n, n if m in (1, None) else m)):
            stretched = row < 2 and size in (1, None) and m != n
            full = fits and not stretched
            fill, line = colour if full else "none", ":" if stretched else "-"
            ax.add_patch(Rectangle((i, -0.8 * row), 0.94, 0.7, ec=colour, lw=2, fc=fill, ls=line))
            text = "error" if row == 2 and not fits else "(1)" if size is None else size
            ink = "white" if full else colour
            ax.text(i + 0.47, 0.33 - 0.8 * row, text, ha="center", va="center", color=ink)
    ax.set(xlim=(-0.1, 3), ylim=(-1.7, 0.8), title=f"{a} + {b}", aspect="equal")
    ax.axis("off")


@lab.experiment
def the_rule_is_pytorchs(run: Run):
    """Aligned at the right, sizes equal or 1: the rule gives PyTorch's shape, or its error.

    Predict: write down the twelve results before you read on. Four are errors: which?
    """
    told = [by_the_rule_and_by_pytorch(pair) for pair in TWELVE]
    rows = [[*pair, *answers] for pair, answers in zip(TWELVE, told, strict=True)]
    run.table("Twelve sums", ["a", "b", "by the rule", "PyTorch"], rows)
    alike = sum(a == b for a, b in told)
    run.check("of the twelve, told alike", alike, equals=12, decides=True)
    told = [by_the_rule_and_by_pytorch((random_shape(), random_shape())) for _ in range(2000)]
    alike = sum(a == b for a, b in told)
    run.check("of 2,000 random pairs, told alike", alike, equals=2000, decides=True)
    errors = sum(b == "error" for _, b in told)
    both, because = [errors, 2000 - errors], "the partner: neither is a rarity"
    run.check("errors, and shapes, among them", both, at_least=200, because=because)
    fig, plots = plt.subplots(2, 2, figsize=(7.2, 5.4))
    for ax, i in zip(plots.flat, (5, 1, 3, 10), strict=True):
        draw_shapes(ax, *(shape[-3:] for shape in TWELVE[i]))
    caption = "Two shapes and their sum's. Full: taken as it is; dotted: stretched, in brackets "
    caption += "where the axis is missing. Lower left is the trap: nothing warns."
    run.figure(
        fig,
        "broadcasting",
        caption,
        alt="Four pairs of shapes, each drawn as two rows of boxes and a row for the result; "
        "boxes of a stretched axis are dotted, an error is orange.",
    )


@lab.experiment
def a_missing_axis_teaches_the_mean(run: Run):
    """Predictions (n, 1) against targets (n,): no error, and training learns to say the mean.

    Predict: the targets are linear in x but for a little noise. Where does the broken loss end?
    """
    x, noise = torch.randn(256, 4, dtype=torch.float64), 0.1 * torch.randn(256).double()
    t = x @ torch.tensor([1.0, -1.0, 1.0, -1.0]).double() + noise  # variances 4 and 0.01
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
    because = "four times the noise's share of the variance, 0.01 of 4.01; broken, it is 1"
    run.check("loss over var t, as meant", ends[0][1], at_most=0.01, because=because)
    because = "where the formula is smallest; 500 steps shrink what is left at least by 1e-20"
    off = ends[1][0] - t.mean()
    run.agree("broken: predictions less the mean", off, because=because, decides=True)
    return f"Broken, the loss ends at {ends[1][1]:.3f} var t; as meant, at {ends[0][1]:.4f}."


# %% [markdown]
# ## 2. Strides, views and copies
# Memory has no axes: a tensor's numbers lie in a row, its **storage**. Shape, **strides** (how many
# places further the next entry along each axis lies) and an offset make a box of it: entry $(i, j)$
# is at
#
# $$\text{offset} + i \cdot \text{stride}_0 + j \cdot \text{stride}_1$$
#
# Let $x$ be 3 rows of 4 numbers, one row after the other: its strides are `(4, 1)`. Read with shape
# `(4, 3)` and strides `(1, 4)`, the same numbers are its transpose, `x.T`. Nothing moved: this is a
# **view**. A slice steps over entries, so it is one too; `expand` stretches an axis by giving it
# stride 0, and so broadcasting lays out no copies of its inputs. What no strides can describe must
# be copied: `x.T` row by row, as 12 numbers. `x.T.view(12)` refuses, `x.T.reshape(12)` copies
# without a word. `contiguous` copies unless the numbers already lie row by row, and `repeat` always
# does.
#
# Two consequences. Writing into a view writes into its source. And where a stride is 0 many entries
# are one number, so PyTorch refuses to write into all of them in place.


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
def expand_copies_nothing(run: Run):
    """`expand` copies nothing: same pointer, stride 0, not a byte more. `repeat` copies it all.

    Predict: which lines of the table share x's memory?
    """
    x, rows = torch.arange(12.0).view(3, 4), []
    views = {"x": x, "x.T": x.T, "x[1:, ::2]": x[1:, ::2], "diagonal(x)": diagonal(x)}
    views |= {"x[:, :1].expand(3, 9)": x[:, :1].expand(3, 9), "x[[0, 2]]": x[[0, 2]]}
    views |= {"x.T.contiguous()": x.T.contiguous(), "x.T.reshape(12)": x.T.reshape(12)}
    for name, y in views.items():
        shares = y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        rows.append([name, tuple(y.shape), y.stride(), y.storage_offset(), "yes" if shares else ""])
    run.table("Twelve numbers in a row", ["", "shape", "strides", "offset", "x's memory"], rows)
    column = torch.ones(3, 1)  # 12 bytes
    wide, copied = column.expand(3, 10**6), column.repeat(1, 10**6)
    same = [tensor.data_ptr() == column.data_ptr() for tensor in (wide, copied)]
    nbytes = [tensor.untyped_storage().nbytes() for tensor in (wide, copied)]
    run.check("expand: same pointer", same[0], equals=True, decides=True)
    run.check("expand: stride of the new axis", wide.stride(1), equals=0, decides=True)
    run.check("expand: bytes of storage", nbytes[0], equals=12, decides=True)
    run.check("repeat: same pointer", same[1], equals=False, decides=True)
    run.check("repeat: bytes of storage", nbytes[1], equals=12 * 10**6, decides=True)
    diagonal(x).zero_()
    run.check("sum of x, its diagonal 0, 5, 10 zeroed", x.sum().item(), equals=66.0 - 15.0)
    try:
        wide.add_(1)
        refused = False
    except RuntimeError:
        refused = True
    run.check("writing into what was expanded is refused", refused, equals=True)


# %% [markdown]
# ## 3. A linear layer, four ways
# A **linear layer** maps $n$ numbers to $m$. For a batch of $B$ inputs,
#
# $$y_{bi} = \sum_j w_{ij} x_{bj} + \text{bias}_i$$
#
# where $x$ has the shape `(B, n)`, the **weight** $w$ `(m, n)`, and $y$ `(B, m)`. Each of the $Bm$
# sums takes $n$ products and as many additions: **$2Bmn$ FLOPs** (floating-point operations). There
# are four ways to say it:
#
# - by loops over $b$, $i$ and $j$, as the formula stands;
# - by broadcasting: $x$ becomes `(B, 1, n)`, and all products `(B, m, n)` are laid out, which takes
#   $n$ times the answer's memory, then summed over the last axis;
# - by **einsum**, which names the axes, `"bj,ij->bi"`: one named in both inputs is matched, and one
#   that the answer doesn't name is summed over;
# - as a matrix product, `x @ w.T`.
#
# **Backward** is given $g = \partial\text{loss}/\partial y$, of $y$'s shape, and owes the loss's
# derivatives by $x$, $w$ and bias: $dx$, $dw$ and $d\text{bias}$. An input collects from each
# answer it went into, times the factor there:
#
# $$
# \begin{aligned}
# dx_{bj} &= \sum_i g_{bi} w_{ij} \\
# dw_{ij} &= \sum_b g_{bi} x_{bj} \\
# d\text{bias}_i &= \sum_b g_{bi}
# \end{aligned}
# $$
#
# As products, $dx = g w$ and $dw = g^\top x$. (If you forget which is transposed: only one order
# has the right shape.) Each takes $2Bmn$ FLOPs, so **backward costs twice what forward does**. The
# bias was stretched over the batch, so its gradient is summed over the batch. That holds for
# everything that was broadcast.


# %% 3. Four ways
def linear_loops(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """(B, n), (m, n), (m,) -> (B, m), in Python's own numbers, which are float64."""
    y, weights, shifts = [], w.tolist(), bias.tolist()
    for row in x.tolist():
        for i in range(len(weights)):
            y.append(shifts[i])
            for j in range(len(row)):
                y[-1] += weights[i][j] * row[j]
    return torch.tensor(y, dtype=x.dtype).view(len(x), -1)


def linear_broadcast(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return (x[:, None] * w).sum(-1) + bias  # (B, 1, n)·(m, n) = (B, m, n) -> (B, m)


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
        "g @ w; then, both flattened to two axes, g.T @ x; and the sum of g's rows.",
    ),
)
def linear_backward(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """g = ∂loss/∂y (..., m), x (..., n), w (m, n) -> dx, dw, dbias, as large as x, w and bias."""
    rows, inputs = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])  # (B, m), (B, n)
    return g @ w, rows.T @ inputs, rows.sum(0)


def best(call: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds of the fastest of several calls: what disturbs only adds."""
    return min(seconds(call, repeats))


@lab.experiment
def four_ways_agree(run: Run):
    """Loops, broadcasting, einsum and matrix product give the same; the loops take far longer.

    Predict: 16 inputs, 256 × 256 weights. How many times as long do Python's loops take?
    """
    short = torch.randn(16, 256), torch.randn(256, 256) / 16, torch.randn(256)
    exact, rows = [t.double() for t in short], []
    ways = {"loops": linear_loops, "broadcast": linear_broadcast}
    ways |= {"einsum": linear_einsum, "matmul": linear}
    answer = F.linear(*exact)
    for name, way in ways.items():
        off = way(*exact) - answer
        run.agree(f"{name} less the library's, float64", off, decides=True)
        off = way(*short) - answer.float()
        run.agree(f"{name} less the library's, float32", off, FLOAT32, decides=True)
        rows.append([name, 1e6 * best(partial(way, *short))])
    run.table("Forward in float32", ["", "time (µs)"], rows)
    error = (linear(*(t.bfloat16() for t in short)) - answer).abs().max()
    run.measure("matmul, bfloat16, off by", error, expect_at_most=tolerance(torch.bfloat16))
    ratio, because = rows[0][1] / rows[3][1], "one number at a time, and interpreted"
    name = "time, loops over matmul"
    run.measure(name, ratio, expect_at_least=100, because=because, timed=True, decides=True)
    return f"The loops take {ratio:,.0f} times as long as the matrix product."


@lab.experiment
def the_backward_is_autograds(run: Run):
    """The backward by hand equals autograd's; a gradient is summed where its tensor was stretched.

    Predict: the same batch is given twice over. Which of dx, dw and dbias doubles?
    """
    x, w, bias = (torch.randn(*s).double().requires_grad_() for s in ((8, 5, 48), (32, 48), (32,)))
    y = linear(x, w, bias)
    g = torch.randn_like(y)
    mine, its = linear_backward(g, x, w), torch.autograd.grad(y, (x, w, bias), g)
    for name, got, want in zip(("dx", "dw", "dbias"), mine, its, strict=True):
        run.agree(f"{name} less autograd's", got - want, decides=True)
    (summed,) = torch.autograd.grad(bias.expand(8, 5, 32), bias, g)
    run.agree("gradient through expand, less the sum", summed - g.sum((0, 1)), decides=True)
    because = "the partner: sums of 40 normal numbers"
    run.check("largest of dbias", its[2].abs().max(), at_least=1, because=because)
    twice = linear_backward(torch.cat((g, g)), torch.cat((x, x)), w)
    for name, got, want in zip(("dw", "dbias"), twice[1:], its[1:], strict=True):
        run.agree(f"batch given twice: {name} less 2·{name}", got - 2 * want)
    run.agree("batch given twice: each half of dx less dx", twice[0].view(2, *x.shape) - its[0])


# %% [markdown]
# ## 4. Attention by einsum
# Names pay where axes are many. **Attention** (LLM06) has queries $q$, `(B, Tq, H, D)`, and keys
# $k$ and values $v$, `(B, Tk, H, D)`: in each of $B$ sequences a vector of $D$ numbers for each
# token and for each of $H$ heads. For each head by itself, the **scores** of a query are its dot
# products with all `Tk` keys, over $\sqrt D$; the softmax, each one's exp over the sum of all,
# makes them weights; and the answer $o$ is the mean of the values with these weights. For each
# sequence and head, with $t$ for the query's place and $s$, $u$ for a key's,
#
# $$
# \begin{aligned}
# a_{ts} &= \frac{e^{q_t \cdot k_s/\sqrt D}}{\sum_u e^{q_t \cdot k_u/\sqrt D}} \\
# o_t &= \sum_s a_{ts} v_s
# \end{aligned}
# $$
#
# As matrix products these want their axes transposed first, and the answer's transposed back;
# einsum takes them where they stand.


# %% 4. Attention
@lab.exercise(
    level=2,
    hints=(
        "Name the axes: queries are bqhd, keys and values bkhd. What do scores keep?",
        "Scores are bhqk, divided by √D; the softmax runs over the keys, the last axis.",
        'Mix the values with "bhqk,bkhd->bqhd": k is summed over.',
    ),
)
def attention_by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(QKᵀ/√D)V for each head: (B, Tq, H, D), (B, Tk, H, D) twice -> (B, Tq, H, D)."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


@lab.experiment
def einsum_spells_attention(run: Run):
    """Two einsums, no transpose and no view, spell attention: they equal PyTorch's.

    Predict: which letter does each of the two einsums sum over?
    """
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, FLOAT32)):
        q, k, v = torch.randn(3, 2, 50, 4, 16, dtype=dtype)  # (B, T, H, D) each
        q = q[:, :9]
        queries, keys, values = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
        want = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2)
        off = attention_by_einsum(q, k, v) - want
        run.agree(f"less PyTorch's, {dtype}", off, bound, decides=True)
    return "The scores sum over d, the answer over k: each is the letter that is named no more."


# %% [markdown]
# ## 5. What a product costs in time
# A machine has two rates: how many FLOPs it does, and how many bytes it fetches, in a second. A
# product that needs both can't be faster than the slower supply:
#
# $$
# \text{time} \ge
# \max\left(\frac{\text{FLOPs}}{\text{peak}}, \frac{\text{bytes}}{\text{bandwidth}}\right)
# $$
#
# This is the **roofline** (Williams, Waterman & Patterson 2009). `x @ w.T` must at least read $x$
# and $w$ and write $y$: $s(Bn + mn + Bm)$ bytes, at $s$ bytes a number, for $2Bmn$ FLOPs. With one
# input, $B = 1$, that is 2 FLOPs for each weight, so 1 for each byte in bf16, where an H100 SXM
# could do 295 meanwhile (989 TFLOP/s over 3.35 TB/s by NVIDIA's data sheet). With more inputs each
# weight that is fetched serves them all, and the peak comes into reach. A third limit is the call
# itself, some microseconds: it rules what is small.
#
# These are a language model's two lives. Reading a prompt, all its tokens pass each matrix
# together. Writing, each new token passes alone, and for it all weights are fetched.
#
# **How the figure's roofs are measured**, on this machine and for each dtype. Peak: the best rate
# of all products shown. Bandwidth: how fast as many bytes as the large matrix has are read, by a
# sum or a dot product, whichever is faster (if a cache holds them, it is the cache's). Call: the
# time of a 1 × 1 product. Each is the fastest of five, for disturbance only adds; but on cores that
# are busy all the while, all of them suffer.


# %% 5. The roofline
def product_seconds(run: Run, dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    """Of a product (B, n) times (n, m)."""
    b, n, m = shape
    x, w = torch.randn(b, n).to(run.device, dtype), torch.randn(m, n).to(run.device, dtype)
    return best(lambda: x @ w.T)


def reading_rate(run: Run, nbytes: int) -> float:
    """Bytes a second, of reading so many."""
    a, b = torch.ones(2, nbytes // 8, device=run.device)
    return nbytes / min(best(lambda: (a.sum(), b.sum())), best(lambda: a @ b))


@lab.experiment
def time_follows_the_flops(run: Run):
    """Once large, a product's time follows its 2·B·m·n FLOPs; small ones pay for bytes or the call.

    Predict: weights of 2,048 × 2,048. How many times as long do 16 inputs take as one?
    """
    doublings = run.pick(tiny=11, small=12, full=13)
    side, short = 2**doublings, {"bf16": [torch.bfloat16], "fp16": [torch.float16]}
    squares = [(2**i,) * 3 for i in range(4, doublings + 1)]
    inputs = [(2**i, side, side) for i in range(10)]
    told, (fig, axes) = [], plt.subplots(1, 2, sharey=True)
    for i, dtype in enumerate([torch.float32, *short.get(run.precision, [])]):
        name, size = str(dtype)[6:], dtype.itemsize
        shapes = run.progress([(1, 1, 1), *squares, *inputs], f"products, {name}")
        time = {shape: product_seconds(run, dtype, shape) for shape in shapes}
        flops = {(b, n, m): 2 * b * n * m for b, n, m in time}
        moved = {(b, n, m): size * (b * n + m * n + b * m) for b, n, m in time}
        peak, bandwidth = max(flops[x] / time[x] for x in time), reading_rate(run, size * side**2)
        floor = {x: max(time[1, 1, 1], moved[x] / bandwidth, flops[x] / peak) for x in time}
        for ax, sweep in zip(axes, (squares, inputs), strict=True):
            for what, seconds_of, look in (("roof", floor, ":"), ("measured", time, "o-")):
                rates = [flops[x] / seconds_of[x] / 1e9 for x in sweep]
                ax.loglog([x[0] for x in sweep], rates, f"C{i}{look}", label=f"{what}, {name}")
        logs = [[math.log(of[x]) for x in squares if x[0] >= 256] for of in (flops, time)]
        slope = linear_regression(*logs).slope
        run.measure(
            f"{name}: slope of log time on log FLOPs, n ≥ 256",
            slope,
            expect_between=(0.9, 1.1),
            because="a constant rate has 1",
            timed=True,
            decides=True,
        )
        run.measure(f"{name}: peak", peak / 1e9, unit="GFLOP/s", timed=True)
        run.measure(f"{name}: bandwidth", bandwidth / 1e9, unit="GB/s", timed=True)
        more, one = (16, side, side), (1, side, side)
        told += [f"In {name} large squares take time as FLOPs to the power {slope:.2f}."]
        told += [f"16 inputs take {time[more] / time[one]:.1f} times as long as one"]
        told[-1] += f" (by the roofs {floor[more] / floor[one]:.1f})."
    for ax in axes:
        ax.set_xscale("log", base=2)
    axes[0].set(xlabel="n, of n × n times n × n", ylabel="GFLOP/s", title="Square products")
    axes[1].set(xlabel=f"inputs to {side:,} × {side:,}", title="One matrix, more inputs")
    axes[1].legend(fontsize=9)
    caption = "Rates of products, and the roofs that call, bandwidth and peak put over them."
    run.figure(
        fig,
        "roofline",
        caption,
        alt="Two plots of GFLOP/s on log scales, over the size of a square product and over "
        "the number of inputs: measured points, and the roof that bandwidth and peak put "
        "over them.",
    )
    return " ".join(told)


# %% [markdown]
# ## 6. A start that keeps the signal
# Before training, weights are random, and a deep network must not lose its input in them. For a
# layer of $n$ inputs, draw the weights with mean 0 and variance $a/n$, the biases with mean 0 and
# variance $c/n$. Let $q$ be the mean square of the inputs $h$. An answer $z$ sums $n$ products of
# variance $(a/n)q$ and a bias, so $\text{var}(z) = aq + c/n$. $\text{ReLU}(z) = \max(z, 0)$, and
# $z$ is as often negative as positive, so half is kept:
#
# $$q' = \frac{1}{2}\left(aq + \frac{c}{n}\right)$$
#
# Begin with $q = 1$, and go through $L$ layers:
#
# - **$a = 2$, $c = 0$** (He et al. 2015): $q$ stays 1. That is variance-preserving, for ReLU.
# - **$a = 1$, $c = 0$** (Glorot & Bengio 2010, who thought of tanh): $q$ halves at each layer.
# - **PyTorch's** `nn.Linear` draws both from $U(-1/\sqrt n, 1/\sqrt n)$, of variance
#   $(2/\sqrt n)^2/12 = 1/(3n)$, so $a = c = 1/3$. Were its biases 0, $q$ would shrink sixfold a
#   layer and the root mean square (RMS) $\sqrt q$ be $6^{-10} = 1.7 \cdot 10^{-8}$ after 20. With
#   them it comes to rest where $q = q/6 + 1/(6n)$, which is $q = 1/(5n)$.
#
# So the biases save the signal? They save its *size*. What must survive is what tells two inputs
# apart, the **spread across inputs**: its square is the variance of a unit's answer over the
# inputs, so the mean square less the mean product for two unrelated inputs. Let their $z$ have
# variance $v$ and correlation $\rho$. After the ReLU, the product's mean is (Cho & Saul 2009)
#
# $$\frac{v}{2\pi}\left(\sqrt{1 - \rho^2} + (\pi - \arccos\rho)\rho\right)$$
#
# Subtract it from $q'$. Near $\rho = 1$ the squared spread is multiplied by $a/2$ a layer: a sixth,
# with biases or without, for a bias is the same for all inputs.
#
# Without biases a ReLU layer multiplies its answer by what its input is multiplied by, so PyTorch's
# start is then He's, scaled down, and one normalisation at the end would undo it. With biases none
# would: for $n = 512$ what tells inputs apart stands, after 20 layers, beside a constant 2 million
# times as large, and bfloat16, which keeps 8 significant bits, rounds it away.
#
# **How exact is this?** Exact for infinite width. With He's weights a layer multiplies $q$ by the
# mean of $n$ terms $2\,\text{ReLU}(g)^2$, $g$ standard normal: each has mean 1 and variance
# $\frac{1}{2} \cdot 4 \cdot 3 - 1 = 5$, for $g^4$ has mean 3. So $\ln q$ wanders, after $L$ layers,
# from 0 to $-5L/(2n)$, give or take $\sqrt{5L/n}$ (Hanin & Rolnick 2018, for layers of any widths).
# At $n = 512$, $L = 20$ this makes $\sqrt q$ uncertain by 22 %.


# %% 6. Initialisation
DEPTH = 20
BARE = "PyTorch, no biases"
STARTS = {"He": (2, 0), "Glorot": (1, 0), "PyTorch": (1 / 3, 1 / 3), BARE: (1 / 3, 0)}  # a and c


def fresh_layer(n: int, start: str) -> nn.Linear:
    """A float64 layer n -> n. PyTorch's are as it draws them, with biases or without."""
    layer = nn.Linear(n, n, bias=start == "PyTorch", dtype=torch.float64)
    if start in ("He", "Glorot"):
        nn.init.normal_(layer.weight, std=math.sqrt(STARTS[start][0] / n))
    return layer


def theory(a: float, c: float, n: int) -> list[tuple[float, float]]:
    """(RMS, spread across inputs) after each layer, for unrelated inputs of variance 1."""
    q, product, found = 1.0, 0.0, []
    for _ in range(DEPTH):
        v = a * q + c / n
        rho = (a * product + c / n) / v
        angle = math.acos(rho)
        q, product = v / 2, v * (math.sin(angle) + (math.pi - angle) * rho) / (2 * math.pi)
        found.append((math.sqrt(q), math.sqrt(q - product)))
    return found


@torch.no_grad()
def signal(layers: list[nn.Linear], x: Tensor) -> tuple[list[tuple[float, float]], float]:
    """(RMS, spread) after each layer and its ReLU, and what bfloat16 keeps of the last spread.

    That is the correlation of the answers' deviations from their mean in bfloat16 and in float64.
    """
    found, short = [], x.bfloat16()
    for layer in layers:
        x = layer(x).relu()  # (inputs, n)
        short = F.linear(short, *(p.bfloat16() for p in layer.parameters())).relu()
        found.append((x.square().mean().sqrt().item(), x.var(0).mean().sqrt().item()))
    both = torch.stack([(y - y.mean(0)).flatten() for y in (x, short.double())])
    return found, both.corrcoef()[0, 1].item()


@lab.experiment
def the_start_decides_what_survives(run: Run):
    """He's start keeps the signal through 20 ReLU layers; PyTorch's keeps a size, not the signal.

    Predict: PyTorch's default, biases and all. Is the last answer larger than rounding? And what of
    it depends on the input?
    """
    n, kept, rows = run.pick(tiny=512, small=1024, full=2048), {}, []
    room = math.exp(2 * math.sqrt(5 * DEPTH / n) + 1.25 * DEPTH / n)
    because = "from the theory: four standard deviations of ln √q, and its shift"
    fig, axes = plt.subplots(1, 2)
    for i, (start, (a, c)) in enumerate(STARTS.items()):
        expected, found, kept[start] = theory(a, c, n), [], []
        for seed in run.seeds(3):
            torch.manual_seed(seed)
            layers, x = [fresh_layer(n, start) for _ in range(DEPTH)], torch.randn(256, n).double()
            by_layer, correlation = signal(layers, x)
            found.append(by_layer)
            kept[start].append(correlation)
        rows.append([start])
        for j, what in enumerate(("RMS", "spread")):
            values, aim = [by_layer[-1][j] for by_layer in found], expected[-1][j]
            rows[-1] += [median(values), aim]
            off = [max(value / aim, aim / value) for value in values]
            name, named = f"{start}: {what}, times off the theory", start in ("He", "PyTorch")
            run.check(name, off, at_most=room, because=because, decides=named)
        for by_layer, look in ((found[0], "o"), (expected, "-")):
            rms, share = zip(*((rms, spread / rms) for rms, spread in by_layer), strict=True)
            for ax, values in zip(axes, (rms, share), strict=True):
                label = start if look == "o" else None
                ax.semilogy(range(1, DEPTH + 1), values, f"C{i}{look}", ms=9 - 2 * i, label=label)
    columns = ["", "RMS", "in theory", "spread across inputs", "in theory"]
    run.table(f"After {DEPTH} layers (medians of three seeds)", columns, rows)
    because = "what is left is far above a rounding of bfloat16, 2⁻⁹ of the value"
    run.check("He: kept in bfloat16", kept["He"], at_least=0.9, because=because, decides=True)
    run.check(f"{BARE}: kept in bfloat16", kept[BARE], at_least=0.9, because=because)
    because = "what is left is thousands of times smaller than a rounding, which takes its place"
    share = kept["PyTorch"]
    run.check("PyTorch: kept in bfloat16", share, at_most=0.5, because=because, decides=True)
    for ax, title in zip(axes, ("RMS", "spread across inputs, over RMS"), strict=True):
        ax.set(xlabel="layer", title=title, xticks=range(0, DEPTH + 1, 5))
    axes[0].legend()
    caption = f"{DEPTH} ReLU layers of {n}, nothing trained. Points: measured; lines: theory. "
    run.figure(
        fig,
        "signal",
        caption + "On the right three of the four lie on each other.",
        alt="Two line plots over 20 layers on log scales, the RMS of the activations and "
        "their spread across inputs, for four initialisations.",
    )
    shown = "; ".join(f"{start}: {median(values):.3f}" for start, values in kept.items())
    return f"Correlation, in bfloat16, with what truly tells the inputs apart: {shown}."


# %% [markdown]
# ## 7. A transformer's bill
# A **decoder** like GPT or Llama turns each of $T$ tokens, out of a vocabulary of $V$, into a
# vector of width $d$ (a row of the **embedding**, $V \times d$), passes it through $L$ layers of
# one shape, and multiplies the result by an **output** matrix, $V \times d$, for the scores of the
# next token. It is **tied** where that matrix is the embedding itself. A layer has two parts, a
# norm before each:
#
# - **Attention**: $H$ query heads, $H_\text{kv}$ key and value heads, of width $D$. The matrices of
#   the queries and of the answer have $dHD$ entries each, those of keys and values $dH_\text{kv}D$
#   each: where $H_\text{kv} < H$, several query heads share one.
# - **Feed-forward**: up to width $f$, an activation, and down again, $2df$. **Gated** (SwiGLU,
#   Shazeer 2020) it goes up twice, $3df$: one way's activation is multiplied with the other.
# - **Norms** bring a vector to a standard size and then scale each coordinate by a learned gain:
#   $d$ each, two a layer and one at the end. GPT-2's have $d$ shifts too.
# - **Biases**: GPT-2 has one for each matrix of its layers, as long as the answer; Llama has none.
# - **Positions**: GPT-2 learns a vector of $d$ for each of 1,024. Rotary ones have no parameters.
#
# In SmolLM2 a layer has 2·576·(576 + 192) = 884,736 entries in attention, 3·576·1,536 = 2,654,208
# in the feed-forward part and 1,152 gains. Thirty of them, 49,152·576 = 28,311,552 for the tied
# embedding and 576 for the last norm make 134,515,008.
#
# **FLOPs.** Each entry of the matrices, the output's included, works once on every token, for 2
# FLOPs. Besides, each head of attention multiplies $T$ queries by $T$ keys, and $T \times T$
# weights by $T$ values: $2T^2D$ each. (Half is masked, but plain kernels compute it.) So a sequence
# takes
#
# $$2T\left(N_\text{att} + N_\text{ff} + Vd\right) + 4T^2LHD$$
#
# forward, where $N_\text{att}$ and $N_\text{ff}$ count the entries of attention's and of
# feed-forward's matrices, and twice as many backward. That counts matrix products, as PyTorch's
# counter does; norms, softmax, activations and look-ups have far fewer. The usual estimate is $2N$
# a token for $N$ parameters, $6N$ with backward (Kaplan et al. 2020, who leave embeddings out of
# $N$; many don't).
#
# **Bytes.** Training with AdamW in float32 holds $4N$ for weights, $4N$ for gradients and $8N$ for
# AdamW's averages of the gradients and of their squares. (bf16 autocast changes none of that.) A
# model that writes keeps the keys and values of all tokens so far, its **KV cache**:
# $2LH_\text{kv}D$ numbers a token. And backward needs what forward computed, the **activations**: a
# linear layer keeps its input, a product of two things both, a softmax its answer. In Llama as
# transformers writes it, a layer keeps
#
# $$BT\left(6d + 2 + 4HD + 4f\right) + BHT^2$$
#
# numbers for $B$ sequences. For each norm and token: its input, the same normalised, the same
# scaled, and one factor. For attention: queries, keys and values (these two repeated for all $H$
# heads), the heads' answers, and the weights, $T^2$ a head. For the gated part: the gate before and
# after its activation, the other way up, and their product. To this come $BT(3d + 1)$ of the last
# norm, the rotary cosines and sines, $2TD$, and the tokens, 8 bytes each. (A loss adds $BTV$ for
# its softmax. A fused kernel keeps no $T^2$: LLM06.)


# %% 7. Parameters
@dataclass(frozen=True)
class Transformer:
    """A decoder, as its configuration tells it; `positions` is 0 where they are rotary."""

    vocabulary: int  # V
    width: int  # d
    layers: int  # L
    heads: int  # H
    kv_heads: int  # H_kv
    head_dim: int  # D
    ffn: int  # f
    tied: bool = False
    gated: bool = True
    biases: bool = False  # in all matrices but the output, and in the norms
    positions: int = 0


# Sources: Radford et al. 2019, Table 2, and the hparams.json of OpenAI's release; Allal et al. 2025
# (SmolLM2); Touvron et al. 2023 (Llama 2); Grattafiori et al. 2024, Table 3; their config.json.
GPT2 = Transformer(
    50257, 768, 12, 12, 12, 64, 3072, tied=True, gated=False, biases=True, positions=1024
)
SMOLLM2 = Transformer(49152, 576, 30, 9, 3, 64, 1536, tied=True)
PUBLISHED = {
    "GPT-2": GPT2,
    "GPT-2 XL": replace(GPT2, width=1600, layers=48, heads=25, kv_heads=25, ffn=6400),
    "SmolLM2-135M": SMOLLM2,
    "Llama-2-7B": Transformer(32000, 4096, 32, 32, 32, 128, 11008),
    "Llama-3-8B": Transformer(128256, 4096, 32, 32, 8, 128, 14336),
}
LLAMA_NAMES = (  # what a Llama's config.json calls the first eight
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "tie_word_embeddings",
)


@lab.exercise(
    level=3,
    hints=(
        "Begin without biases: four matrices of attention, two or three of the feed-forward part.",
        "k and v are narrower where kv_heads < heads, and heads · head_dim needn't be the width.",
        "A bias is as long as its matrix's answer: H·D, H_kv·D twice, d; f for each way up, and d.",
    ),
)
def parameter_count(s: Transformer) -> dict[str, int]:
    """Of "embedding", "positions", "attention", "ffn", "norms", and "output", 0 if it's tied."""
    queries, keys, ways_up = s.heads * s.head_dim, s.kv_heads * s.head_dim, 2 if s.gated else 1
    attention, ffn = 2 * s.width * (queries + keys), (ways_up + 1) * s.width * s.ffn
    if s.biases:
        attention += queries + 2 * keys + s.width
        ffn += ways_up * s.ffn + s.width
    return {
        "embedding": s.vocabulary * s.width,
        "positions": s.positions * s.width,
        "attention": s.layers * attention,
        "ffn": s.layers * ffn,
        "norms": (2 * s.layers + 1) * s.width * (2 if s.biases else 1),
        "output": 0 if s.tied else s.vocabulary * s.width,
    }


def total(s: Transformer) -> int:
    return sum(parameter_count(s).values())


def library_model(s: Transformer) -> Any:
    """transformers' model of this shape, its attention written out in plain products."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    plain: dict[str, Any] = {"attn_implementation": "eager"}
    if not s.positions:
        named: dict[str, Any] = dict(zip(LLAMA_NAMES, astuple(s), strict=False))
        return LlamaForCausalLM(LlamaConfig(**named, **plain))
    sizes: dict[str, Any] = {"n_embd": s.width, "n_layer": s.layers, "n_head": s.heads}
    sizes |= {"n_inner": s.ffn, "vocab_size": s.vocabulary, "n_positions": s.positions}
    sizes |= dict.fromkeys(("bos_token_id", "eos_token_id"))  # its own may lie outside of V
    return GPT2LMHeadModel(GPT2Config(**sizes, **plain))


@cache
def language_model(run: Run) -> tuple[Any, Transformer]:
    """SmolLM2, or --model's; and its shape.

    Raises:
        Card: for a model that isn't made like Llama.
    """
    from transformers import AutoModelForCausalLM

    path = assets.pretrained(run.options.model, run.online)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = model.config
    if config.model_type not in ("llama", "mistral") or getattr(config, "attention_bias", False):
        why = "This lab counts Llama's parts, and others have biases, experts or more norms."
        fix = "the same command without --model, for the embedded SmolLM2"
        raise Card(f"{config.model_type} isn't made like Llama.", why, fix)
    return model.to(run.device), Transformer(*(getattr(config, name) for name in LLAMA_NAMES))


@lab.experiment
def a_configuration_tells_the_parameters(run: Run):
    """Published configurations give the parameters of real models, to the last one.

    Predict: GPT-2's paper says 117 M. What do its own width, depth and vocabulary come to?
    """
    rows = []
    for name, s in PUBLISHED.items():
        with torch.device("meta"):  # shapes without numbers: 8 billion parameters take no memory
            library = library_model(s).num_parameters()
        what = f"{name}: counted, as transformers does"
        run.check(what, total(s), equals=library, decides=True)
        rows.append([name, total(s), *(f"{n / total(s):.1%}" for n in parameter_count(s).values())])
    run.table("Parameters, and each part's share", ["", "all", *parameter_count(s)], rows)
    model, s = language_model(run)
    has = sum(p.numel() for p in model.parameters())
    run.check("the model opened here: counted, as it has", total(s), equals=has, decides=True)
    return f"GPT-2 comes to {total(GPT2) / 1e6:.1f} M."


# %% 8. FLOPs
def forward_flops(s: Transformer, batch: int, length: int) -> int:
    """FLOPs of the matrix products of a forward pass over tokens (batch, length)."""
    parts = parameter_count(replace(s, biases=False))
    matrices = parts["attention"] + parts["ffn"] + s.vocabulary * s.width
    squares = s.layers * s.heads * s.head_dim * length**2
    return batch * (2 * length * matrices + 4 * squares)


def counted_flops(call: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        answer = call()
    return answer, counter.get_total_flops()


@lab.experiment
def a_configuration_tells_the_flops(run: Run):
    """The formula gives the FLOPs that PyTorch counts, exactly; backward takes exactly twice that.

    Predict: for which of these models is 2N FLOPs a token too much, and why?
    """
    told, (fig, ax) = [], plt.subplots()
    lengths = [2**i for i in range(7, 14)]
    for name, s in PUBLISHED.items():
        with torch.device("meta"):
            model, tokens = library_model(s).eval(), torch.zeros(2, 64, dtype=torch.long)
            logits, forward = counted_flops(lambda m=model, t=tokens: m(t).logits)
            backward = counted_flops(logits.sum().backward)[1]
        formula, ratio = forward_flops(s, 2, 64), backward / forward
        run.check(f"{name}: forward, as counted", formula, equals=forward, decides=True)
        run.check(f"{name}: backward over forward", ratio, equals=2.0, decides=True)
        reach = [t for t in lengths if t <= (s.positions or t)]
        ratios = [forward_flops(s, 1, t) / (2 * total(s) * t) for t in reach]
        ax.semilogx(reach, ratios, "o-", base=2, label=name)
        told.append(f"{name} {ratios[0]:.2f}")
    s = replace(SMOLLM2, layers=2, vocabulary=320)
    model, tokens = library_model(s), torch.randint(320, (2, 32))
    real = counted_flops(lambda: model(tokens))[1]
    formula = forward_flops(s, 2, 32)
    run.check("a small one with numbers: forward", formula, equals=real, decides=True)
    model.set_attn_implementation("sdpa")
    missed = real - counted_flops(lambda: model(tokens))[1]
    share, because = missed / (8 * s.layers * s.heads * s.head_dim * 32**2), "it counts by formula"
    run.measure("of the T² terms, missed by the counter in a fused kernel", share, because=because)
    ax.axhline(1, color="grey", ls=":")
    ax.set(xlabel="tokens T in a sequence", ylabel="forward FLOPs over 2·N·T", ylim=(0, 4))
    ax.set_title("How good is 2N FLOPs a token?")
    ax.legend()
    caption = "The exact count over the estimate, GPT-2's up to its 1,024 positions. Dotted: equal."
    run.figure(
        fig,
        "flops",
        caption,
        alt="Line plot of forward FLOPs divided by 2·N·T over the length of a sequence, a "
        "curve for each of five models; a dotted line marks 1.",
    )
    return f"FLOPs over 2N at {lengths[0]} tokens: {', '.join(told)}."


# %% 9. Bytes
def held(tensors: Any) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    storages = [t.untyped_storage() for t in tensors]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def kept_bytes(model: nn.Module, tokens: Tensor) -> int:
    """What a forward pass keeps for backward beside the parameters: autograd's hook hands it us."""
    kept: list[Tensor] = list(model.parameters())
    weights = held(kept)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(tokens, use_cache=False)
    return held(kept) - weights


def activation_bytes(s: Transformer, batch: int, length: int) -> int:
    """The formula, in float32."""
    token = 6 * s.width + 2 + 4 * s.heads * s.head_dim + 4 * s.ffn
    layers = s.layers * (batch * length * token + batch * s.heads * length**2)
    ends = batch * length * (3 * s.width + 1) + 2 * length * s.head_dim
    return 4 * (layers + ends) + 8 * batch * length


@lab.experiment
def a_configuration_tells_the_bytes(run: Run):
    """Weights, gradients, AdamW's state, activations, cache and file: foretold to the byte.

    Predict: two layers of SmolLM2, 2 × 64 tokens. Which takes more: weights or activations?
    """
    s, batch, length = replace(SMOLLM2, layers=2, vocabulary=1024), 2, 64
    n, model, tokens = total(s), library_model(s), torch.randint(1024, (batch, length))
    parameters, optimizer = list(model.parameters()), torch.optim.AdamW(model.parameters())
    kept, output = kept_bytes(model, tokens), model(tokens)
    output.logits.sum().backward()
    optimizer.step()
    state = [t for one in optimizer.state.values() for t in one.values()]
    cached = [t for layer in output.cache.layers for t in (layer.keys, layer.values)]
    path = assets.smollm2() / "model.safetensors"
    with path.open("rb") as file:  # 8 bytes that tell the header's length, the header, the numbers
        (header,) = struct.unpack("<Q", file.read(8))
    for name, foretold, found in (
        ("weights", 4 * n, held(parameters)),
        ("gradients", 4 * n, held(p.grad for p in parameters)),
        ("AdamW, a step count for each tensor too", 8 * n + 4 * len(parameters), held(state)),
        ("activations", activation_bytes(s, batch, length), kept),
        ("cache", 4 * 2 * s.layers * s.kv_heads * s.head_dim * batch * length, held(cached)),
        ("SmolLM2's file", 8 + header + 2 * total(SMOLLM2), path.stat().st_size),
    ):
        run.check(f"bytes, {name}", foretold, equals=found, decides=True)
    rows = []
    for name, s in PUBLISHED.items():
        cache_token = 2 * 2 * s.layers * s.kv_heads * s.head_dim / 2**10
        rows.append([name, 2 * total(s) / 1e9, 16 * total(s) / 1e9, cache_token])
    columns = ["", "weights, bf16 (GB)", "to train, float32 (GB)", "cache a token, bf16 (KiB)"]
    run.table("Real models, activations apart", columns, rows)
    sizes = f"{kept / 1e6:.1f} MB of activations, and {4 * n / 1e6:.1f} MB of weights"
    return f"{batch * length} tokens leave {sizes}."


# %% 10. Time
@lab.experiment
@torch.no_grad()
def rates_and_a_configuration_tell_the_time(run: Run):
    """A machine's two rates and a configuration tell how fast SmolLM2 reads and writes.

    Predict: how many tokens are read in the time in which one is written?
    """
    (model, s), length = language_model(run), run.pick(tiny=256, small=1024, full=4096)
    tokens = torch.randint(s.vocabulary, (1, length), device=run.device)
    rate = 2 * 1024**3 / product_seconds(run, torch.float32, (1024, 1024, 1024))
    read, cached = best(lambda: model(tokens), 3), model(tokens).cache
    write = best(lambda: model(tokens[:, :1], cache=cached), 9)
    floors = forward_flops(s, 1, length) / rate, best(lambda: [p.sum() for p in model.parameters()])
    run.measure(
        "reading, in floors",
        read / floors[0],
        expect_between=(0.9, 3),
        because="all FLOPs, at the rate of a product of 1,024 × 1,024 matrices",
        timed=True,
        decides=True,
    )
    run.measure(
        "writing, in floors",
        write / floors[1],
        expect_between=(0.9, 3),
        because="each weight fetched once, in the time that summing them takes",
        timed=True,
        decides=True,
    )
    ratio = write / (read / length)
    run.measure("tokens read in the time of writing one", ratio, timed=True)
    told = f"Reading {length:,} tokens takes {1e3 * read:.0f} ms, writing one {1e3 * write:.0f} ms."
    return f"{told} In the time of writing one the model reads {ratio:.0f}."


# %% [markdown]
# ## What surprised
# **The backward's factor of two is no rule of thumb**, it is exact. **PyTorch's default start is
# worse with biases than without**, if a network has no norms and no residual paths; those save it
# in practice (LLM05a, LLM05b). And even He's start lets inputs come closer, if slowly: see the
# right half of the figure.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say what surprised, in the numbers of this run."""
    long, llama = forward_flops(SMOLLM2, 1, 8192), PUBLISHED["Llama-3-8B"]
    many = long / (2 * total(SMOLLM2) * 8192)
    few = forward_flops(llama, 1, 128) / (2 * total(llama) * 128)
    fused = "of the T² terms, missed by the counter in a fused kernel"
    missed = results.value("a_configuration_tells_the_flops", fused)
    biases, bare = (
        results.value("the_start_decides_what_survives", f"{start}: kept in bfloat16")
        for start in ("PyTorch", BARE)
    )
    return (
        f"2N FLOPs a token errs in both directions: Llama-3-8B takes {few:.2f} times as many at "
        "128 tokens, as its untied embedding counts as parameters but is only looked up; SmolLM2 "
        f"takes {many:.1f} times as many at its full context of 8,192. **A counter counts what it "
        f"has formulas for**: in a fused kernel it missed {missed:.0%} of the T² terms. **GPT-2's "
        f"“117 M” is {total(GPT2) / 1e6:.1f} M**: OpenAI's release says that the paper's counts "
        f"were wrong. After {DEPTH} layers of PyTorch's start, bfloat16 correlates by {biases:.2f} "
        f"with what tells the inputs apart; without biases by {bare:.2f}."
    )


# %% [markdown]
# **A roof is a bound, not a promise.** Up to where the roofs meet, more inputs ought to be free;
# see what 16 cost here. And a short format isn't everywhere a fast one: where two peaks are shown,
# compare them. Small squares may dip where a product is first split among threads, for the others
# have to be woken: on the two Xeon cores that this was written on, 64 × 64 took 57 µs with both and
# 6 µs with one. And on busy cores nothing follows its roof: time on a quiet machine.
#
# **Read on**: Williams, Waterman & Patterson 2009, *Roofline* · He et al. 2015, *Delving Deep into
# Rectifiers* · Hanin & Rolnick 2018, *How to Start Training* · Korthikanti et al. 2022, *Reducing
# Activation Recomputation in Large Transformer Models*. Next is LLM04, tokenization.

# %%
if __name__ == "__main__":
    lab.main()
