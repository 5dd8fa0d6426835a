# %% [markdown]
# # LLM05a · Normalization techniques
# What keeps a transformer's numbers in size: norms and their gradients, positions, feed-forward.
#
# **You will be able to** write LayerNorm and RMSNorm with their gradients and prove them; say where
# ε and float32 belong, and why; match parameters, tune rates and count baselines, so that a race
# between activations means something. **Builds on** gradients and matrix products (LLM02 and LLM03)
# and takes attention as given (LLM06 opens it). **Takes** an hour to read, a minute or two to run
# (`tiny`, 2 cores; `small` is for a GPU: it trains 96 models, an hour's work for one core).

# %% Imports
import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from statistics import mean, median, stdev
from typing import Any

from labs.kit import Lab, Results, Run, seconds_paired, tolerance
from labs.shared import small_gpt
from labs.shared.small_gpt import Config, FeedForward, Learned, Position

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

lab = Lab("LLM05a")
lab.argument("--tune", action="store_true", help="search the learning rates at tiny, too")
DOUBLE = torch.float64

# %% [markdown]
# ## 1. Two norms
# A deep network multiplies and adds hundreds of times, and a factor of 1.1 to the power of 100 is
# 14,000. So its vectors are brought back to a known size on the way. **LayerNorm** (Ba et al. 2016)
# takes a token's vector $x$ of $d$ numbers, subtracts their mean $\mu$, divides by their standard
# deviation $\sigma$, and lets two learned vectors, a gain $\gamma$ and a bias $\beta$, set size and
# offset anew, each entry its own:
#
# $$
# \begin{aligned}
# \mu &= \text{mean}(x) \\
# \sigma^2 &= \text{mean}\left((x - \mu)^2\right) \\
# \hat x &= \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \\
# y &= \gamma \hat x + \beta
# \end{aligned}
# $$
#
# **RMSNorm** (Zhang & Sennrich 2019) leaves out the mean and the bias, and divides by the root of
# the mean square:
#
# $$
# \begin{aligned}
# m &= \text{mean}(x^2) \\
# \hat x &= \frac{x}{\sqrt{m + \varepsilon}} \\
# y &= \gamma \hat x
# \end{aligned}
# $$
#
# Take $x = (3, 5)$: $\mu = 4$ and $\sigma = 1$, so LayerNorm says $(-1, 1)$; $m = 17$, so RMSNorm
# says $(0.73, 1.21)$. Means are over the last axis alone: a token's answer depends on no other
# token. And $\sigma^2$ is divided by $d$, not by $d - 1$ as a statistician's estimate would be (and
# as `Tensor.std` does unless told otherwise).


# %% Forward
def wide(x: Tensor) -> Tensor:
    """At least float32, which statistics need: section 3 shows it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@lab.exercise(
    level=1,
    hints=(
        "Each token by itself: mean(-1, keepdim=True), in what `wide` returns.",
        "The variance is the mean of the squares of what is left after the mean is taken away.",
        "ε is added to the variance, before the root; at the end come gain, bias and x's dtype.",
    ),
)
def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """(..., d), (d,), (d,) -> (..., d) in x's dtype; computed in float32 at least."""
    centred = wide(x) - wide(x).mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)  # (..., 1)
    return (centred / (variance + eps).sqrt() * gain + bias).to(x.dtype)


@lab.exercise(
    level=1,
    hints=(
        "As LayerNorm, but nothing is taken away first: which mean is left?",
        "ε is added to the mean square, before the root.",
        "Square what `wide` returns: in float16 the square of 300 is infinite.",
    ),
)
def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    """(..., d), (d,) -> (..., d) in x's dtype; computed in float32 at least."""
    square = wide(x).square().mean(-1, keepdim=True)  # (..., 1)
    return (wide(x) / (square + eps).sqrt() * gain).to(x.dtype)


@lab.experiment
def by_hand_equals_the_library(run: Run):
    """Both norms by hand equal PyTorch's, near 0 and far from it.

    Predict: both functions of the library have a default ε. Is it the same?
    """
    gain, bias = torch.randn(2, 256, dtype=DOUBLE)
    for name, x in (
        ("entries of size 1", torch.randn(64, 256, dtype=DOUBLE)),
        ("entries of size 0.001, below √ε", torch.randn(64, 256, dtype=DOUBLE) / 1000),
        ("mean 3", torch.randn(64, 256, dtype=DOUBLE) + 3),
    ):
        for dtype, bound in ((DOUBLE, 1e-12), (torch.float32, tolerance(torch.float32))):
            x, g, b = x.to(dtype), gain.to(dtype), bias.to(dtype)
            error = layer_norm(x, g, b) - F.layer_norm(x, (256,), g, b, 1e-5)
            run.agree(f"LayerNorm, {name}, {str(dtype)[6:]}", error, bound, decides=True)
            error = rms_norm(x, g) - F.rms_norm(x, (256,), g, 1e-5)
            run.agree(f"RMSNorm, {name}, {str(dtype)[6:]}", error, bound, decides=True)
    layer, rms = nn.LayerNorm(256).eps, torch.finfo(torch.float32).eps
    small = torch.randn(64, 256) / 1000
    error = rms_norm(small, torch.ones(256), rms) - F.rms_norm(small, (256,))
    run.agree("RMSNorm, ε left to the library, float32", error, tolerance(torch.float32))
    return f"The library's own ε: LayerNorm {layer:g}; RMSNorm the dtype's, in float32 {rms:.2g}."


# %% [markdown]
# ## 2. What a norm can't see, and what ε does
# Multiply $x$ by $s > 0$: $\mu$ and $\sigma$ are multiplied too, and $\hat x$ is the same. Add a
# constant $c$ to all entries: $\mu$ takes it away. With $\varepsilon = 0$, then, LayerNorm sees
# neither scale nor shift, and RMSNorm sees the shift. $\varepsilon$ breaks this a little. For
# RMSNorm $m$ becomes $s^2 m$, so that the answer changes by the factor
#
# $$
# \sqrt{\frac{1 + \varepsilon/m}{1 + \varepsilon/(s^2 m)}} \approx
# 1 + \frac{\varepsilon}{2m}\left(1 - \frac{1}{s^2}\right)
# $$
#
# For $m = 1$, $\varepsilon = 10^{-5}$ and $s = 10$ each entry changes by $5 \cdot 10^{-6}$ of
# itself: the largest of some ten thousand normal ones, about 4, by $2 \cdot 10^{-5}$. In general a
# vector keeps the share $\sqrt{m/(m + \varepsilon)}$ of the size that it should have: $\varepsilon$
# is a threshold. Entries far above $\sqrt\varepsilon = 0.003$ become 1, those far below stay small,
# multiplied by at most $1/\sqrt\varepsilon = 316$.
#
# That is why $\varepsilon$ stands *inside* the root. In $x/(\sqrt m + \varepsilon)$ the largest
# factor would be $1/\varepsilon$, and worse: $\sqrt m$ has no derivative at $m = 0$. The chain rule
# then multiplies $\infty$ by 0, and one padded vector of zeros makes the whole gradient NaN. (An
# $\varepsilon$ that the dtype can't hold is none: $10^{-8}$ is 0 in float16.)


# %% Invariance
@lab.experiment
def what_a_norm_cannot_see(run: Run):
    """With ε = 0 neither norm sees x's scale, and LayerNorm alone can't see a shift either.

    Predict: ε = 1e-5, entries of size 1. By how much does RMSNorm of 10x differ from that of x?
    """
    x, one, eps = torch.randn(64, 256, dtype=DOUBLE), torch.ones(256, dtype=DOUBLE), 1e-5
    layer = partial(layer_norm, gain=one, bias=0 * one)
    exact: dict[str, Any] = {"at_most": 1e-9, "decides": True}
    exact["because"] = "they cancel; float64 rounding is 1e-15"
    run.agree("LayerNorm, 10x", layer(10 * x, eps=0) - layer(x, eps=0), **exact)
    run.agree("LayerNorm, x + 3", layer(x + 3, eps=0) - layer(x, eps=0), **exact)
    run.agree("RMSNorm, 10x", rms_norm(10 * x, one, 0) - rms_norm(x, one, 0), **exact)
    change = (rms_norm(x + 3, one, 0) - rms_norm(x, one, 0)).square().mean().sqrt()
    because = "half of √((1 − 1/√10)² + 9/10) = 1.17, from 1 + 3² = 10"
    what = "RMSNorm, x + 3, root mean square"
    run.check(what, change, at_least=0.58, because=because, decides=True)
    m = x.square().mean(-1, keepdim=True)  # (64, 1)
    factor, first = ((1 + eps / m) / (1 + eps / (100 * m))).sqrt(), eps / (2 * m) * 0.99
    scaled = rms_norm(10 * x, one, eps)
    run.agree("ε = 1e-5: 10x, less the derived factor", scaled - factor * rms_norm(x, one, eps))
    off = ((scaled / rms_norm(x, one, eps) - 1) / first - 1).abs().max()
    because = "the next term of the expansion: below ε/m of it"
    what = "that change over (ε/2m)(1 − 1/s²), less 1"
    run.check(what, off, at_most=(eps / m.min()).item(), because=because)
    largest = (scaled - rms_norm(x, one, eps)).abs().max()
    return f"Each entry changes by {first.mean():.1e} of itself, the largest one by {largest:.1e}."


# %% Epsilon
@lab.experiment
def epsilon_belongs_inside_the_root(run: Run):
    """Inside the root ε limits a norm's gain to 1/√ε; outside it a zero vector's gradient is NaN.

    Predict: entries of 1e-4 and ε = 1e-5. How large are they after RMSNorm?
    """

    def outside(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-5)

    one, signs, rows = torch.ones(256, dtype=DOUBLE), torch.randn(256, dtype=DOUBLE).sign(), []
    for size in (1.0, 1e-2, 1e-3, 1e-4, 1e-6):
        inside = rms_norm(size * signs, one).abs()
        theory = size / math.sqrt(size**2 + 1e-5)
        what = f"{size:g} before: size after, less √(m / (m + ε))"
        run.agree(what, inside - theory, decides=True)
        rows.append([f"{size:g}", inside.mean().item(), outside(size * signs).abs().mean().item()])
    run.table("Size of entries", ["before", "ε inside", "ε outside"], rows)
    zero = torch.zeros(256, dtype=DOUBLE)
    slope = torch.func.jacrev(lambda x: rms_norm(x, one))(zero).diagonal()
    run.agree("slope at 0, less 1/√ε", slope - 1e-5**-0.5, 1e-9, decides=True)
    broken = torch.func.grad(lambda x: outside(x).sum())(zero)
    is_nan = bool(broken.isnan().all())
    run.check("ε outside: is that gradient NaN?", is_nan, equals=True, decides=True)
    lost = zero.half() / (zero.half().square().mean(-1, keepdim=True) + 1e-8).sqrt()
    run.check("ε = 1e-8 in float16: are zeros NaN?", bool(lost.isnan().all()), equals=True)
    return f"Entries of 1e-4 become {rows[3][1]:.2g}, not 1: they lie below √ε = 0.0032."


# %% [markdown]
# ## 3. Statistics in float32
# Mixed precision multiplies matrices in bfloat16, which keeps 8 significant bits: between 64 and
# 128 its numbers lie 0.5 apart. A norm is no place for it. If $x$ has the mean 100.25, a mean in
# bfloat16 is 100 or 100.5, and every entry is off by 0.25 before it is divided by $\sigma$. In
# float16 the numbers end at 65,504, so the square of 300 is infinite and the answer 0. Computed in
# float32 and rounded once, at the end, both are right to half a unit in the last place: $2^{-8}$ of
# the value in bfloat16. That is what PyTorch's kernels do, and what `wide` is for.
#
# float32 has its own trap, in a formula that every textbook has:
#
# $$\sigma^2 = \text{mean}(x^2) - \mu^2$$
#
# It is tempting because one pass over $x$ is enough. With $\mu = 2^{13}$ the mean square is near
# $2^{26}$, where numbers of float32 lie 4 or 8 apart: a variance of 1 can't be what remains.
# Subtract first, then square.


# %% Statistics in float32
@lab.experiment
def statistics_need_float32(run: Run):
    """Short dtypes spoil a norm's statistics; from float32 ones a single rounding is left.

    Predict: entries 100.25 ± 1 in bfloat16. How far off is their mean, in bfloat16?
    """
    one, zero = torch.ones(1024, dtype=DOUBLE), torch.zeros(1024, dtype=DOUBLE)
    layer, rms = partial(layer_norm, gain=one, bias=zero), partial(rms_norm, gain=one)
    fused = partial(F.layer_norm, normalized_shape=(1024,))

    def error(norm: Any, x: Tensor, exact: Any) -> Tensor:  # in units of the largest answer
        want = exact(x.double())
        return (norm(x).double() - want).abs().max() / want.abs().max()

    x = (torch.randn(64, 1024) + 100.25).bfloat16()
    off = (x.mean(-1).double() - x.double().mean(-1)).abs()
    because = "0.25 less six times the spread of a mean of 1,024, 1/32"
    what = "the mean in bfloat16 is off by"
    run.check(what, off.min(), at_least=0.0625, because=because, decides=True)
    because = "half a unit in the last place, 2⁻⁸; float32's part is 1e-4 of it"
    for name, norm in (("by hand", layer), ("library", fused)):
        off = error(norm, x, layer)
        what = f"LayerNorm of it, {name}: error"
        run.check(what, off, at_most=2**-8 * 1.001, because=because, decides=True)
    x = (300 * torch.randn(64, 1024)).half()
    infinite = bool(x.square().mean(-1).isinf().all())
    run.check("is 300's mean square infinite in float16?", infinite, equals=True, decides=True)
    off, because = error(rms, x, rms), "half a unit in the last place, 2⁻¹¹ in float16"
    what = "RMSNorm of it, by hand: error"
    run.check(what, off, at_most=2**-11 * 1.01, because=because, decides=True)
    x = torch.randn(64, 1024) + 2**13
    one_pass, true = x.square().mean(-1) - x.mean(-1).square(), x.double().var(-1, correction=0)
    because = "only multiples of 4 are possible, and the variance is near 1"
    off = (one_pass.double() - true).abs().min()
    run.check("float32, mean 2¹³: mean(x²) − μ² is off by", off, at_least=0.5, because=because)
    off, because = error(layer, x, layer), "a unit in the mean's last place is 2⁻¹⁰, and σ = 1"
    run.check("LayerNorm of it, by hand: error", off, at_most=2**-10, because=because)
    return f"In float32 mean(x²) − μ² gave variances from {one_pass.min():g} to {one_pass.max():g}."


# %% [markdown]
# ## 4. Backward
# Training sends the gradient of the loss through each layer in reverse: given
# $dy = \partial L/\partial y$, find $dx$, $d\gamma$ and $d\beta$. For LayerNorm, $\beta$ is added
# to every token's answer, so $d\beta$ is the sum of $dy$ over tokens, and $d\gamma$ the sum of
# $dy\,\hat x$. For $dx$ let $g = \gamma\,dy$, the gradient that arrives at $\hat x$, and
# $r = \sqrt{\sigma^2 + \varepsilon}$. Each $\hat x_j$ depends on $x_i$ in three ways: directly,
# through $\mu$ ($\partial\mu/\partial x_i = 1/d$), and through $r$
# ($\partial r/\partial x_i = (x_i - \mu)/(dr) = \hat x_i/d$). Collected:
#
# $$dx_i = \frac{g_i - \text{mean}(g) - \hat x_i\,\text{mean}(g \hat x)}{r}$$
#
# The formula has a shape worth seeing. Two parts of $g$ are taken away: its component along
# $(1, \ldots, 1)$ and its component along $\hat x$. They are the two directions which the forward
# pass can't see, so no gradient may point there: with $\varepsilon = 0$, $dx$ is orthogonal to
# both. Of *two* numbers such as $(3, 5)$ LayerNorm tells only which one is larger, $(-1, 1)$ or
# $(1, -1)$, and so $dx = 0$ whatever $dy$ is. And the $1/r$ says that an $x$ which is $s$ times
# larger gets an $s$ times smaller gradient. RMSNorm sees shifts: which part stays then?


# %% Backward
def layer_norm_backward(
    dy: Tensor, x: Tensor, gain: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """dy and x (..., d), gain (d,) -> dx (..., d), dgain (d,), dbias (d,)."""
    centred = x - x.mean(-1, keepdim=True)
    r = (centred.square().mean(-1, keepdim=True) + eps).sqrt()  # (..., 1)
    x_hat, g = centred / r, dy * gain
    dx = (g - g.mean(-1, keepdim=True) - x_hat * (g * x_hat).mean(-1, keepdim=True)) / r
    return dx, (dy * x_hat).sum_to_size(gain.shape), dy.sum_to_size(gain.shape)


@lab.exercise(
    level=3,
    hints=(
        "Only one of LayerNorm's two statistics is left: what does x̂ⱼ depend on now?",
        "Take from g = γ·dy its component along x̂, with x̂ = x / r; nothing along (1, …, 1).",
        "Divide by r = √(m + ε). dgain is dy·x̂ summed over all axes but the last.",
    ),
)
def rms_norm_backward(
    dy: Tensor, x: Tensor, gain: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """dy and x (..., d), gain (d,) -> dx (..., d), dgain (d,)."""
    r = (x.square().mean(-1, keepdim=True) + eps).sqrt()  # (..., 1)
    x_hat, g = x / r, dy * gain
    dx = (g - x_hat * (g * x_hat).mean(-1, keepdim=True)) / r
    return dx, (dy * x_hat).sum_to_size(gain.shape)


class LayerNormByHand(torch.autograd.Function):
    """How autograd is given a backward of one's own: `LayerNormByHand.apply(x, gain, bias)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return layer_norm(x, gain, bias, eps)

    @staticmethod
    def backward(ctx: Any, dy: Tensor):
        x, gain = ctx.saved_tensors
        return *layer_norm_backward(dy, x, gain, ctx.eps), None


class RMSNormByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return rms_norm(x, gain, eps)

    @staticmethod
    def backward(ctx: Any, dy: Tensor):
        x, gain = ctx.saved_tensors
        return *rms_norm_backward(dy, x, gain, ctx.eps), None


class Mixed(RMSNormByHand):
    """RMSNorm with the wrong backward: LayerNorm's."""

    @staticmethod
    def backward(ctx: Any, dy: Tensor):
        x, gain = ctx.saved_tensors
        return *layer_norm_backward(dy, x, gain, ctx.eps)[:2], None


class RMSNorm(nn.Module):
    """The layer for vectors of `d_model` numbers, as it stands in a Llama."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


@lab.experiment
def own_backward_passes_gradcheck(run: Run):
    """Both backward passes by hand equal finite differences, and the library's gradients.

    Predict: with ε = 0, what is the dot product of x and the gradient that RMSNorm sends to it?
    """
    x, dy = torch.randn(2, 3, 5, 16, dtype=DOUBLE)  # (tokens of 3 texts, 5 each, d) twice
    gain, bias = torch.randn(2, 16, dtype=DOUBLE)
    inputs = [one.clone().requires_grad_() for one in (x, gain, bias)]
    near = partial(torch.autograd.gradcheck, raise_exception=False)
    passes = near(LayerNormByHand.apply, inputs)
    run.check("LayerNorm passes gradcheck", passes, equals=True, decides=True)
    passes = near(RMSNormByHand.apply, inputs[:2])
    run.check("RMSNorm passes gradcheck", passes, equals=True, decides=True)
    run.check("RMSNorm passes with LayerNorm's", near(Mixed.apply, inputs[:2]), equals=False)
    for name, ours, f, n in (
        ("LayerNorm", layer_norm_backward, lambda x, g, b: F.layer_norm(x, (16,), g, b, 1e-5), 3),
        ("RMSNorm", rms_norm_backward, lambda x, g: F.rms_norm(x, (16,), g, 1e-5), 2),
    ):
        theirs = torch.autograd.grad(f(*inputs[:n]), inputs[:n], dy)
        for what, mine, want in zip(("dx", "dγ", "dβ"), ours(dy, x, gain), theirs, strict=False):
            run.agree(f"{name}: {what} less the library's", mine - want, decides=True)
    layer, rms = layer_norm_backward(dy, x, gain, 0)[0], rms_norm_backward(dy, x, gain, 0)[0]
    run.agree("RMSNorm, ε = 0: x · dx", (x * rms).sum(-1))
    run.agree("LayerNorm, ε = 0: x · dx", (x * layer).sum(-1))
    run.agree("LayerNorm, ε = 0: sum of dx", layer.sum(-1))
    seen: dict[str, Any] = {"at_least": 0.1}
    seen["because"] = "the partner: 15 sums of 16 terms of size 1"
    run.check("largest x · g, before the norm", (x * dy * gain).sum(-1).abs().max(), **seen)
    run.check("largest sum of dx of RMSNorm", rms.sum(-1).abs().max(), **seen)
    two = layer_norm_backward(dy[..., :2], x[..., :2], gain[:2], 0)[0]
    two *= (x[..., :1] - x[..., 1:2]).abs()
    run.agree("LayerNorm of two numbers, ε = 0: dx times their distance", two)
    ten = rms_norm_backward(dy, 10 * x, gain, 0)[0]
    run.agree("RMSNorm, ε = 0: dx at 10x, times 10, less dx at x", 10 * ten - rms)


# %% [markdown]
# ## 5. Is RMSNorm faster?
# It computes less: no mean, no subtraction, no bias. Zhang & Sennrich (2019) report 7 to 64 % less
# running time. But what costs is not the arithmetic: it is how often the numbers are read from
# memory and written back. A **fused** kernel does it once; a formula in PyTorch at every operation,
# forward, and again backward. So we time both norms by hand and by the library's functions, which
# one would think are fused, forward alone and with backward, and count the operations that PyTorch
# runs for each. (In float32, in which mixed precision keeps what a model's norms act on.)


# %% Time
class Counting(TorchDispatchMode):
    """Counts the operations that reach the device's library while it is entered."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.count += function.name() != "aten::detach"  # which only hides a tensor from autograd
        return function(*args, **(kwargs or {}))


def operations(f: Callable[[], Any]) -> int:
    with Counting() as counting:
        f()
    return counting.count


def call(f: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor | None) -> Any:
    """`f`, and with a `dy` also its gradients."""
    if dy is None:
        with torch.no_grad():
            return f(*inputs)
    inputs = [one.requires_grad_() for one in inputs]
    return torch.autograd.grad(f(*inputs), inputs, dy)


NORMS = {  # each as a function of (x, gain, bias) or (x, gain)
    "by hand": (layer_norm, rms_norm),
    "library": (
        lambda x, gain, bias: F.layer_norm(x, gain.shape, gain, bias, 1e-5),
        lambda x, gain: F.rms_norm(x, gain.shape, gain, 1e-5),
    ),
}


@lab.experiment
def rms_norm_is_faster(run: Run):
    """RMSNorm is faster than LayerNorm, because it does less: a textbook claim.

    Predict: by hand or the library's, forward or with backward: in which of the four is it true?
    """
    widths = run.pick(tiny=[64, 256, 1024], small=[256, 1024, 4096], full=[1024, 4096, 16384])
    numbers, rows = run.pick(tiny=2**18, small=2**20, full=2**26), []
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.2, 5))
    for ax, what in zip(axes, ("forward", "with backward"), strict=True):
        for colour, (name, norms) in zip(("C0", "C1"), NORMS.items(), strict=True):
            times, ratios, calls = ([], []), [], []
            for width in widths:
                x, dy = torch.randn(2, numbers // width, width, device=run.device)
                inputs = [x, *torch.ones(2, width, device=run.device)]
                back = dy if what == "with backward" else None
                calls = [partial(call, f, inputs[: 3 - n], back) for n, f in enumerate(norms)]
                both = seconds_paired(calls[0], calls[1], 15)
                ratios.append(median(a / b for a, b in zip(*both, strict=True)))
                for found, measured in zip(times, both, strict=True):
                    found.append(1e9 * median(measured) / numbers)
            rows.append([name, what, *(operations(one) for one in calls)])
            text = f"LayerNorm's time over RMSNorm's, {name}, {what}, widths {widths}"
            run.measure(text, ratios, expect_at_least=1, timed=True, decides=True)
            ax.loglog(widths, times[0], "o-", color=colour, label=f"LayerNorm, {name}")
            ax.loglog(widths, times[1], "s--", color=colour, label=f"RMSNorm, {name}")
        ax.set(xlabel="width d", title=what, xticks=widths, xticklabels=widths)
        ax.minorticks_off()
    run.table("Operations that PyTorch runs", ["", "", "LayerNorm", "RMSNorm"], rows)
    axes[0].set_ylabel("time for each number (ns)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    run.figure(
        fig,
        "norm_time",
        f"Time of a norm against width, {numbers:,} numbers at a time.",
        alt="Two line plots on log scales of the nanoseconds for each number over the width, "
        "forward and with backward, for LayerNorm and RMSNorm by hand and from the "
        "library.",
    )
    layer, rms = rows[1][2:]
    return f"Forward, the library runs {layer} operation for LayerNorm and {rms} for RMSNorm here."


# %% [markdown]
# ## 6. Positions
# Attention compares tokens without knowing where they stand, so each vector is told its place $t$
# before the first layer. A **learned** table adds a vector for each place, as in GPT-2: simple, and
# at the table's end it ends. The **sinusoid** (Vaswani et al. 2017, §3.5) needs no learning: with
# $\omega_i = 10000^{-2i/d}$, entry $2i$ is $\sin(\omega_i t)$ and entry $2i + 1$ is
# $\cos(\omega_i t)$. They are clock hands, $d/2$ of them, the fastest turning once in $2\pi = 6.3$
# places, the slowest, for large $d$, in some 60,000.
#
# The vectors $p_t$ and $p_s$ of two places then have the dot product
#
# $$
# \begin{aligned}
# p_t \cdot p_s
# &= \sum_i \left(\sin(\omega_i t)\sin(\omega_i s) + \cos(\omega_i t)\cos(\omega_i s)\right) \\
# &= \sum_i \cos(\omega_i (t - s))
# \end{aligned}
# $$
#
# It depends on the **offset** $t - s$ alone, and near places are alike. But attention takes
# $p_t^\top W_q^\top W_k p_s$, with two matrices that it learns and the tokens added to both $p$,
# and with most matrices the property is gone. RoPE, in LLM05b, turns the queries $W_q x$ and the
# keys $W_k x$ themselves, and so keeps it.


# %% Positions
@lab.exercise(
    level=2,
    hints=(
        "An angle for each place and each pair of entries: (T, 1) times (d/2,).",
        "The exponent is −2i/d, for i = 0 … d/2 − 1: the first pair has frequency 1.",
        "Sine and cosine of one frequency are neighbours: stack them on a new last axis, flatten.",
    ),
)
def sinusoid(length: int, d_model: int) -> Tensor:
    """(T, d) in float64: at place t, entries 2i and 2i + 1 are sin and cos of t · 10000^(−2i/d)."""
    places = torch.arange(length, dtype=torch.float64)
    frequencies = 10000 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)  # (d/2,)
    angles = places[:, None] * frequencies  # (T, d/2)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


class Sinusoid(Position):
    table: Tensor  # (T, d)

    def __init__(self, length: int, d_model: int):
        super().__init__()
        self.register_buffer("table", sinusoid(length, d_model).float())

    def embed(self, x: Tensor) -> Tensor:  # (B, T, d)
        return x + self.table[: x.shape[1]]


@lab.experiment
def a_sinusoids_product_tells_the_offset(run: Run):
    """A sinusoid's dot product depends on the offset alone, until a matrix comes between.

    Predict: at which offset is the dot product of 64 entries half of that at offset 0?
    """
    d, places = 64, torch.arange(512, dtype=DOUBLE)
    table, slow = sinusoid(512, d), 10000 ** (-torch.arange(0, d, 2, dtype=DOUBLE) / d)
    products = table @ table.T  # (T, T)

    def spread(products: Tensor) -> Tensor:
        """The largest difference between two pairs of places with the same offset."""
        diagonals = (products.diagonal(offset) for offset in range(-400, 401, 16))
        return torch.stack([one.max() - one.min() for one in diagonals]).max()

    because = "float64: 32 cosines of up to 512"
    run.agree("spread at one offset", spread(products), 1e-10, because, decides=True)
    theory = (places[:, None] * slow).cos().sum(-1)
    run.agree("products with place 0, less Σ cos ωt", products[0] - theory, 1e-10)
    between = torch.randn(d, d, dtype=DOUBLE) / math.sqrt(d)
    learned = torch.randn(512, d, dtype=DOUBLE)
    size: dict[str, Any] = {"at_least": 1.0}
    size["because"] = "the products have a spread of √d/2 = 4 or more"
    mixed = spread(table @ between @ table.T)
    run.check("spread with a random W_qᵀW_k between", mixed, **size, decides=True)
    run.check("spread of an untrained learned table", spread(learned @ learned.T), **size)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.6))
    left.imshow(table[:64], cmap="cividis", aspect="auto")
    left.grid(False)
    left.set(xlabel="entry", ylabel="place t", title="The table, 64 entries")
    for place, style in ((0, "-"), (32, "--"), (200, ":")):
        right.plot(products[place, place : place + 129], style, label=f"from place {place}")
    right.set(xlabel="offset", title="Dot product")
    right.legend()
    run.figure(
        fig,
        "sinusoid",
        "Sinusoids: whatever the place, an offset has one dot product.",
        alt="A heat map of the sinusoid table, place by entry, and a line plot of dot "
        "products over the offset, from three places.",
    )
    half = int((products[0] < products[0, 0] / 2).int().argmax())
    return f"Of {products[0, 0]:.0f} at offset 0, less than half is left at offset {half}."


# %% [markdown]
# ## 7. Activations
# Attention mixes tokens; the **feed-forward layer** (FFN) then works on each by itself: up to
# $d_\text{ff}$ numbers, usually $4d$, through a nonlinear **activation**, and down again:
# $W_2\,f(W_1 x)$. With the identity for $f$, the two matrices would be one.
#
# The activations are
#
# $$
# \begin{aligned}
# \text{ReLU}(x) &= \max(0, x) \\
# \text{ReLU}^2(x) &= \max(0, x)^2 \\
# \text{GELU}(x) &= x\,\Phi(x) \\
# \text{SiLU}(x) &= x\,\sigma(x)
# \end{aligned}
# $$
#
# **GELU** (Hendrycks & Gimpel 2016) is $x$ times the chance that a standard normal number lies
# below it, $\Phi(x) = (1 + \text{erf}(x/\sqrt 2))/2$. It is often approximated with tanh. **SiLU**
# (Elfwing et al. 2017) has the logistic $\sigma(x) = 1/(1 + e^{-x})$. So et al. (2021) found
# **ReLU²** by search. GELU and SiLU are smooth and dip below zero; ReLU and ReLU² are 0 for
# negative $x$.
#
# Three of them are nearly one. $x\,\sigma(kx)$, **Swish** (Ramachandran et al. 2017), is SiLU at
# $k = 1$, nearly GELU at $k = 1.7$, and ReLU as $k \to \infty$: the larger $k$, the sharper the
# bend. And $x\,\sigma(kx) = \text{SiLU}(kx)/k$: between two matrices the $k$ can be moved into
# them. So SiLU and Swish of any $k$ make the same functions of $x$; what differs is where training
# starts, and how far a step goes.


# %% Activations
def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def relu_squared(x: Tensor) -> Tensor:
    return relu(x).square()


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()  # not x / (1 + e⁻ˣ): where e⁻ˣ is infinite, that has the slope NaN


def swish(x: Tensor, k: float = 4.0) -> Tensor:
    return x * (k * x).sigmoid()


@lab.experiment
def activations_have_shapes(run: Run):
    """By hand they equal the library's; GELU's approximations are close to it, not equal.

    Predict: how low do GELU and SiLU go, and where?
    """
    x, lowest = torch.linspace(-6, 6, 12_001, dtype=DOUBLE), []
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.8))
    for name, f, theirs, style in (
        ("ReLU", relu, F.relu, "-"),
        ("ReLU²", relu_squared, lambda x: F.relu(x) ** 2, "--"),
        ("GELU", gelu, F.gelu, "-."),
        ("SiLU", silu, F.silu, ":"),
    ):
        run.agree(f"{name} less the library's", f(x) - theirs(x), decides=True)
        for ax, y in zip(axes, (f(x), torch.func.vmap(torch.func.grad(f))(x)), strict=True):
            ax.plot(x, y, style, lw=2, label=name)
        lowest.append(f"{name} {f(x).min():.3f} at {x[f(x).argmin()]:.2f}")
    for ax, title in zip(axes, ("f(x)", "slope f′(x)"), strict=True):
        ax.set(xlim=(-4, 3), ylim=(-0.5, 3), xlabel="x", title=title)
    axes[0].legend()
    run.figure(
        fig,
        "activations",
        "Four activations and their slopes.",
        alt="Two line plots of ReLU, ReLU², GELU and SiLU: the functions on the left, their "
        "slopes on the right.",
    )
    run.agree("x·σ(4x) less SiLU(4x)/4", swish(x) - silu(4 * x) / 4)
    by_tanh = (F.gelu(x, approximate="tanh") - gelu(x)).abs().max()
    because = "another function, drawn to follow GELU (Hendrycks & Gimpel 2016)"
    close: dict[str, Any] = {"at_least": 1e-4, "at_most": 1e-3, "because": because}
    run.check("GELU by tanh: off by", by_tanh, **close, decides=True)
    off = (swish(x, 1.702) - gelu(x)).abs().max()
    close = {"at_least": 1e-3, "at_most": 0.03, "because": because}
    run.check("x·σ(1.702x): off by", off, **close, decides=True)
    return f"Lowest: {'; '.join(lowest[2:])}."


# %% [markdown]
# ## 8. A gate costs a matrix
# A **gated** FFN (Shazeer 2020) multiplies two projections, one of which goes through the
# activation, the gate:
#
# $$W_2 \left(f(W_\text{gate}\,x) \odot W_\text{up}\,x\right)$$
#
# Here $\odot$ is the product entry by entry. With SiLU for $f$ this is **SwiGLU**, as in Llama. It
# has three matrices instead of two, so to have as many parameters its inner width has to be
# smaller: $3 \cdot d \cdot d_\text{ff} = 2 \cdot d \cdot 4d$ gives $d_\text{ff} = 8d/3$. For the
# hardware's sake that is rounded up to a multiple of 8 or of 256. For $d$ = 4,096 it is 10,922.7,
# hence the 11,008 of Llama-2-7B.


# %% SwiGLU
@lab.exercise(
    level=1,
    hints=(
        "Three matrices d × d_ff must count about as much as two of d × 4d.",
        "That is 8d/3, which isn't a whole number for most d.",
        "Rounding up to a multiple: -(-a // b) * b rounds a up; keep to whole numbers.",
    ),
)
def gated_width(d_model: int, multiple: int = 8) -> int:
    """The inner width of a gated FFN: 8/3 of `d_model`, rounded up to a multiple of `multiple`."""
    return -(-8 * d_model // (3 * multiple)) * multiple


class SwiGLU(nn.Module):
    """A gated feed-forward layer without biases, its matrices named as in Llama."""

    def __init__(self, d_model: int, d_ff: int | None = None):
        super().__init__()
        d_ff = d_ff or gated_width(d_model)
        self.gate_proj, self.up_proj = (nn.Linear(d_model, d_ff, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    @lab.exercise(
        level=1,
        hints=(
            "Two projections of x, of width d_ff each, are multiplied entry by entry.",
            "Only one of them goes through `silu`: which one is the gate?",
            "Both together go through down_proj.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d): what `up_proj` says, let through as far as the gate is open."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


@lab.experiment
def a_gate_matches_in_parameters(run: Run):
    """SwiGLU by hand equals Llama's; at 8/3 of d it has as many parameters as 4d without a gate.

    Predict: do two linear layers, one of them the gate, mean the same if they change places?
    """
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    ours = SwiGLU(48).double()
    theirs = LlamaMLP(
        LlamaConfig(hidden_size=48, intermediate_size=gated_width(48), num_attention_heads=4)
    ).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(64, 48, dtype=DOUBLE)
    run.agree("ours less transformers' LlamaMLP", ours(x) - theirs(x), decides=True)
    theirs.gate_proj, theirs.up_proj = theirs.up_proj, theirs.gate_proj
    change = (ours(x) - theirs(x)).abs().max()
    because = "the partner: silu(a)·b isn't a·silu(b)"
    run.check("gate and up swapped: largest change", change, at_least=0.01, because=because)
    for d, width, model in ((4096, 11_008, "Llama-2-7B"), (5120, 13_824, "Llama-2-13B")):
        run.check(f"width of {model}, d = {d:,}", gated_width(d, 256), equals=width)
    gated, plain = small_gpt.parameters(ours), small_gpt.parameters(FeedForward(48))
    run.check("d = 48: parameters, less those at 4d", gated - plain, equals=0, decides=True)
    unmatched = small_gpt.parameters(SwiGLU(48, 4 * 48))
    return f"{gated:,} parameters with a gate or without; at width 4d there would be {unmatched:,}."


# %% [markdown]
# ## 9. A fair race
# Which activation is best? Only small differences are to be expected, so everything else must be
# equal, and chance must be seen. We train a small decoder on Shakespeare's plays, character by
# character: two blocks, each of attention and an FFN. These two are **branches**: each reads a
# LayerNorm of the vectors $x$ and adds its answer to $x$ (He et al. 2016). Sinusoids tell the
# places. All contestants, the **arms**, have the same number of parameters, and see the same
# batches if their seed is the same. AdamW ($\beta_1 = 0.9$, $\beta_2 = 0.95$, no weight decay)
# trains them; the learning rate rises over the first tenth of the steps, then falls to 0. Its peak
# is each arm's own, the best of a grid by a seed that isn't told afterwards, though on the same
# text: one choice of five flatters all arms alike. (At `tiny` the rates below are taken, which
# `--tune` found; `small`, `full` and `--tune` search.) The loss is the mean of $-\ln p$ of the next
# character, in **nats**, on the last tenth of the text, which no arm is trained on.
#
# A loss means something beside a baseline. With $V$ different characters, knowing nothing costs
# $\ln V$. The best guess from frequencies alone costs their entropy, about 3.3 nats here. The best
# guess from the *last character*, $a$, of the next, $b$, costs the **conditional entropy**, about
# 2.45:
#
# $$H(\text{next} \mid \text{last}) = -\sum_{a,b} p(a, b) \ln p(b \mid a)$$
#
# What would one expect? Section 7 says that SiLU, Swish with $k = 4$, nearly GELU and in the limit
# ReLU are one function whose weights start out smaller or larger (at $k = 0$ it is $x/2$). Where
# entries are small, as at the start, a gentle bend is hardly any. If that is what matters, they
# finish in the order of their $k$: a claim of its own, below.

# %% The arms
GRID = (0.005, 0.01, 0.02, 0.04, 0.08)
RATES = {  # at tiny
    **dict.fromkeys(("identity", "SiLU", "GELU", "Swish, k = 4", "ReLU", "ReLU²", "SwiGLU"), 0.02),
    **{"RMSNorm": 0.02, "Post-LN": 0.01, "no attention": 0.02},
    **{"learned": 0.01, "learned, from sinusoids": 0.02},
}


def identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS = {
    "identity": partial(FeedForward, activation=identity),
    "SiLU": partial(FeedForward, activation=F.silu),
    "GELU": FeedForward,
    "Swish, k = 4": partial(FeedForward, activation=swish),
    "ReLU": partial(FeedForward, activation=F.relu),
    "ReLU²": partial(FeedForward, activation=relu_squared),
    "SwiGLU": SwiGLU,
}


def from_sinusoids(length: int, d_model: int) -> Position:
    """A learned table that starts as the sinusoids."""
    position = Learned(length, d_model)
    position.table.data = sinusoid(length, d_model).float()
    return position


def sizes(run: Run) -> tuple[int, int, int, int]:
    """d, T, batch and steps. Of multiples of 24 an 8/3 is a multiple of 8: all arms match."""
    return run.pick(tiny=(48, 32, 16, 250), small=(96, 64, 32, 800), full=(192, 128, 64, 4000))


def arm(run: Run, name: str) -> Config:
    """The base (GELU, LayerNorm before each branch, sinusoids) but for what `name` says."""
    d, length, _, _ = sizes(run)
    changes: dict[str, Any] = {
        "RMSNorm": {"norm": RMSNorm},
        "Post-LN": {"placement": "post"},
        "learned": {"position": partial(Learned, length, d)},
        "learned, from sinusoids": {"position": partial(from_sinusoids, length, d)},
        "no attention": {"heads": 0, "position": Position},
        **{name: {"ffn": ffn} for name, ffn in ACTIVATIONS.items()},
    }
    base = {"d_model": d, "position": partial(Sinusoid, length, d)}
    return Config(len(small_gpt.shakespeare().characters), **{**base, **changes[name]})


def windows(run: Run) -> Tensor:
    """(n, T + 1): the 16,384 characters that every loss is told on, each with those before it."""
    length = sizes(run)[1]
    return small_gpt.shakespeare().windows(2**14 // length, length)


@cache
def trained(run: Run, name: str, lr: float, seed: int) -> tuple[float, list[float]]:
    """The loss at the end, on `windows`, and the curve in training; nats per character."""
    _, length, batch, steps = sizes(run)
    how = {"lr": lr, "seed": seed, "steps": steps, "warmup": steps // 10}
    config, corpus = arm(run, name), small_gpt.shakespeare()
    result = small_gpt.train(run, config, corpus, batch=batch, length=length, **how)
    return small_gpt.nats(result.model, windows(run)).mean().item(), result.losses


@cache
def best_rate(run: Run, name: str) -> float:
    """The arm's best learning rate, by a seed whose losses aren't told."""
    if run.size == "tiny" and not run.options.tune:
        return RATES[name]
    losses = {lr: trained(run, name, lr, run.seeds(4)[3])[0] for lr in GRID}
    return min(GRID, key=lambda lr: losses[lr] if math.isfinite(losses[lr]) else math.inf)


def race(run: Run, names: list[str]) -> dict[str, list[float]]:
    """Three seeds' losses for each arm, tuned; and a table of them."""
    jobs = [(name, seed) for name in names for seed in run.seeds(3)]
    found: dict[str, list[float]] = {name: [] for name in names}
    for name, seed in run.progress(jobs, f"{len(names)} arms, 3 seeds"):
        found[name].append(trained(run, name, best_rate(run, name), seed)[0])
    rows = []
    for name, losses in found.items():
        count = small_gpt.parameters(small_gpt.LanguageModel(arm(run, name)))
        told = [f"{x:.3f}" for x in (mean(losses), stdev(losses))]
        rows.append([name, count, f"{best_rate(run, name):g}", *told])
    run.table("Loss (nats)", ["", "parameters", "learning rate", "mean", "sd of 3 seeds"], rows)
    return found


def less(found: dict[str, list[float]], a: str, b: str) -> list[float]:
    """By how much the loss of `a` is above that of `b`, seed by seed: the batches are the same."""
    return [x - y for x, y in zip(found[a], found[b], strict=True)]


# %% The race
def show_race(run: Run) -> None:
    """Curves, and their differences to ReLU's: the batches are the same, so their noise cancels."""
    fig, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7.2, 7.5))
    curves = {}
    for name in ACTIVATIONS:
        found = [trained(run, name, best_rate(run, name), seed)[1] for seed in run.seeds(3)]
        curves[name] = torch.tensor(found).unfold(1, 20, 1).mean(-1)  # (3, steps − 19)
    for i, (name, curve) in enumerate(curves.items()):
        x, less_relu = torch.arange(20, curve.shape[1] + 20), curve - curves["ReLU"]
        line = {"color": f"C{i}", "ls": ("-", "--", ":")[i % 3], "label": name}
        top.plot(x, curve.mean(0), **line)
        bottom.plot(x, less_relu.mean(0), **line)
        bottom.fill_between(x, less_relu.amin(0), less_relu.amax(0), color=f"C{i}", alpha=0.1)
    bound = small_gpt.bigram(windows(run))
    top.axhline(bound, color="grey", lw=1, label="best guess from the last character")
    top.set(title="Loss in training (nats per character)", ylim=(None, 3))
    top.legend(ncols=2, loc="upper right")
    bottom.set(title="The same, less ReLU's", xlabel="training step", ylim=(-0.12, 0.12))
    caption = (
        "Activations at matched parameters, each at its own best learning rate. Lines: the mean "
        "of 20 steps and 3 seeds; bands below: from the lowest seed to the highest."
    )
    run.figure(
        fig,
        "race",
        caption,
        alt="Two line plots over training steps: the loss with eight activations, and below "
        "its difference from ReLU's with bands.",
    )


@lab.experiment
def gated_and_smooth_activations_win(run: Run):
    """At matched parameters and tuned rates GELU, ReLU² and SwiGLU beat ReLU: textbook claims.

    Predict: in which order do identity, SiLU, GELU, ReLU, ReLU² and SwiGLU finish?
    """
    found = race(run, list(ACTIVATIONS))
    counts = {small_gpt.parameters(ffn(sizes(run)[0])) for ffn in ACTIVATIONS.values()}
    run.check("how many different numbers of FFN parameters", len(counts), equals=1)
    for name, because in (
        ("GELU", "Hendrycks & Gimpel 2016, on other tasks"),
        ("ReLU²", "So et al. 2021, on larger models"),
        ("SwiGLU", "Shazeer 2020, at 220 M parameters"),
    ):
        how: dict[str, Any] = {"unit": "nats", "expect_at_most": 0, "because": because}
        run.measure(f"{name} less ReLU", less(found, name, "ReLU"), **how, decides=True)
    how = {"unit": "nats", "because": "nanochat's log of 2026-02-05 has SwiGLU behind"}
    run.measure("SwiGLU less ReLU²", less(found, "SwiGLU", "ReLU²"), **how)
    show_race(run)
    order = sorted(ACTIVATIONS, key=lambda name: mean(found[name]))
    spread = max(stdev(losses) for losses in found.values())
    told = ", ".join(f"{name} {mean(found[name]):.3f}" for name in order)
    return f"From the best: {told}; the largest spread between seeds is {spread:.3f}."


@lab.experiment
def a_sharper_bend_is_better(run: Run):
    """In the family x·σ(kx) a larger k is better: identity, SiLU, GELU, Swish with k = 4, ReLU.

    Predict: is the last of the family, ReLU, also its best?
    """
    family = ["identity", "SiLU", "GELU", "Swish, k = 4", "ReLU"]
    found = race(run, family)
    for a, b in pairwise(family):
        how: dict[str, Any] = {"unit": "nats", "expect_at_least": 0, "decides": True}
        how["because"] = "k is larger, the bend sharper"
        run.measure(f"{a} less {b}", less(found, a, b), **how)
    best = min(family, key=lambda name: mean(found[name]))
    gain, first = mean(less(found, "identity", best)), mean(less(found, "identity", "SiLU"))
    return f"{best} is the best; of the {gain:.3f} nats to it, k = 1 already brings {first:.3f}."


# %% [markdown]
# ## 10. What a token alone can't know
# Take the attention out. An FFN works on each token by itself, so the model's guess about the next
# character is a function of the last one: a table of $V$ rows, however many layers and parameters
# make it. And no table is better than the frequencies counted on the very text that is tested
# (Gibbs' inequality): the model's loss can't go below $H(\text{next} \mid \text{last})$ of *these*
# characters, whatever it was trained on and for how long. (Counted on other text, that number would
# be no bound. Learned positions would let the table differ from place to place: they are left out.)


# %% A bound
@lab.experiment
def a_token_alone_cannot_beat_the_bigram(run: Run):
    """Without attention no loss is below H(next | last), counted on the tokens it is told on.

    Predict: how close to the bound does such a model come?
    """
    bound, corpus = small_gpt.bigram(windows(run)), small_gpt.shakespeare()
    found = race(run, ["no attention", "GELU"])
    alone, together = found["no attention"], found["GELU"]
    because = f"H(next | last) = {bound:.4f}; less 1e-5 for float32"
    what = "loss without attention (nats)"
    run.check(what, alone, at_least=bound - 1e-5, because=because, decides=True)
    run.check("with attention", together, at_most=bound, because="the partner: it knows more")
    counts = torch.ones(2 * [len(corpus.characters)], dtype=DOUBLE)  # (last, next), each seen once
    pair = corpus.train[:-1], corpus.train[1:]
    counts.index_put_(pair, torch.ones(1, dtype=DOUBLE), accumulate=True)
    chances = counts / counts.sum(-1, keepdim=True)
    counted = -chances[windows(run)[:, :-1], windows(run)[:, 1:]].log().mean().item()
    losses = {
        "knowing nothing, ln V": math.log(len(corpus.characters)),
        "frequencies of these characters": small_gpt.unigram(windows(run)),
        "pairs counted in the training text": counted,
        "the bound: pairs of these characters": bound,
        "trained without attention": mean(alone),
        "trained with attention": mean(together),
    }
    run.table("Loss", ["", "nats"], [[name, f"{loss:.3f}"] for name, loss in losses.items()])
    off = [f"{loss - bound:.3f}" for loss in (mean(alone), counted)]
    return f"Above the bound: training without attention {off[0]} nats, counting {off[1]}."


# %% [markdown]
# ## 11. Before or after
# Where does the norm stand? In the first transformer (Vaswani et al. 2017) *after* the sum,
# **Post-LN**. Since GPT-2 mostly *before* the branch, **Pre-LN**:
#
# $$
# \begin{aligned}
# \text{Post-LN:}\quad x &\leftarrow \text{norm}(x + f(x)) \\
# \text{Pre-LN:}\quad x &\leftarrow x + f(\text{norm}(x))
# \end{aligned}
# $$
#
# Pre-LN has one more norm at the end (Xiong et al. 2020 say why). The vectors $x$ that run through
# all blocks are the **residual stream**. Post-LN brings it back to size 1 at every step, and
# divides what came from below each time. Pre-LN leaves it alone: it runs through unbroken and, as
# each branch adds its own variance, grows. Our matrices start with the variance
# $2/(\text{inputs} + \text{outputs})$ (Glorot & Bengio 2010). With $d = 64$ an FFN's entries have
# variance $2 \cdot 64/(64 + 256) = 0.4$ before the activation, and what it adds has 0.23; attention
# adds as much again or more. At two blocks all this should matter little, so we ask; LLM05b goes to
# 32.


# %% Before or after
@lab.experiment
@torch.no_grad()
def post_norm_keeps_the_size(run: Run):
    """At the start Post-LN's stream keeps size 1; Pre-LN's grows as each branch adds its variance.

    Predict: after 8 blocks, how large are the entries under Pre-LN? They enter with size 1.
    """
    tokens, found = windows(run)[:32, :-1], {}
    for placement in ("pre", "post"):
        config = Config(len(small_gpt.shakespeare().characters), 8, placement=placement)
        model = small_gpt.LanguageModel(config)
        x, found[placement] = model.embedding(tokens), []
        for block in model.blocks:
            x = block(x, model.position)
            found[placement].append(x.square().mean().sqrt().item())
    rows = [[i + 1, *pair] for i, pair in enumerate(zip(*found.values(), strict=True))]
    run.table("Size (RMS) of the residual stream", ["after block", "Pre-LN", "Post-LN"], rows)
    because = "where γ = 1 and β = 0 an answer's mean square is σ²/(σ² + ε)"
    off = [abs(size - 1) for size in found["post"]]
    run.check("Post-LN: distance from 1", off, at_most=1e-4, because=because, decides=True)
    growth = [b / a for a, b in pairwise(found["pre"])]
    because = "variances add up, as a branch's answer hardly depends on x; 1 is 4 sd of seeds away"
    what = "Pre-LN: growth from block to block"
    run.check(what, growth, at_least=1, because=because, decides=True)
    because = "8 FFNs alone add 0.23 each: 1.6·E[GELU(z)²] for z of variance 0.4, so √(1 + 1.86)"
    what = "Pre-LN, after 8 blocks"
    run.check(what, found["pre"][-1], at_least=1.69, because=because, decides=True)
    return f"After 8 blocks: Pre-LN {found['pre'][-1]:.2f}, Post-LN {found['post'][-1]:.2f}."


@lab.experiment
def two_blocks_forgive(run: Run):
    """At two blocks and tuned rates, the norm, its place and the kind of positions matter little.

    Predict: which of these choices costs something?
    """
    others = {
        "RMSNorm": "Zhang & Sennrich 2019 found it as good",
        "Post-LN": "Xiong et al. 2020: depth is what it can't stand",
        "learned": "Vaswani et al. 2017 found learned positions and sinusoids alike",
        "learned, from sinusoids": "if a table that starts at random is slow, its start is why",
    }
    base = "GELU"
    found = race(run, [base, *others])
    for name, because in others.items():
        how: dict[str, Any] = {"expect_between": (-0.03, 0.03), "because": because}
        off = less(found, name, base)
        run.measure(f"{name} less the base", off, unit="nats", **how, decides=True)
    most = max(found, key=lambda name: mean(found[name]))
    return f"The most costly is {most}: {mean(less(found, most, base)):+.3f} nats."


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's times and races."""
    family = ("identity", "SiLU", "GELU", "Swish, k = 4", "ReLU")
    steps = ((f"to {b}", f"{a} less {b}") for a, b in pairwise(family))
    gains = ((name, results.value("a_sharper_bend_is_better", what)) for name, what in steps)
    bends = ", ".join(f"{name} {gain:+.3f}" for name, gain in gains)
    arms = ("RMSNorm", "Post-LN", "learned", "learned, from sinusoids")
    costs = ((arm, results.value("two_blocks_forgive", f"{arm} less the base")) for arm in arms)
    behind = "; ".join(f"{arm} {cost:+.3f}" for arm, cost in costs)
    verdict = results.verdict("rms_norm_is_faster")
    return (
        f"## In this run\nThe verdict on RMSNorm being faster: {verdict}. What a sharper bend "
        f"gained, step by step, in nats: {bends}. What other choices cost at two blocks, in nats: "
        f"{behind}."
    )


# %% [markdown]
# ## What surprised
# **A function of the library may be a formula.** On a CPU `F.rms_norm` is several operations where
# `F.layer_norm` is one; where yours says 1 and 1, look at the times again. And its ε, unless told,
# is a hundredth of LayerNorm's.
#
# **What is raced is rarely all that decides.** SiLU and Swish of any k are the same functions of x:
# what sets them apart, where they are apart, is how their weights start. Part of what Post-LN costs
# is the grid's, whose rates lie a factor of 2 apart, part is warm-up's: LLM05b goes on from there.
# A table of positions that starts at random can learn whatever the sinusoids say. (Vaswani et al.
# found both alike after 100,000 steps.) So a race at one size says who is ahead *there*: try
# `small`.
#
# **A bound belongs to its tokens.** Counting pairs in 4.5 million characters of other plays ends
# above it as well: the rest of the way can't be learned from other plays.
#
# **Read on**: Ba et al. 2016, *Layer Normalization* · Zhang & Sennrich 2019, *Root Mean Square
# Layer Normalization* · Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture*
# · Shazeer 2020, *GLU Variants Improve Transformer* · So et al. 2021, *Primer* · Narang et al.
# 2021, *Do Transformer Modifications Transfer Across Implementations and Applications?* Next is
# LLM05b.

# %%
if __name__ == "__main__":
    lab.main()
