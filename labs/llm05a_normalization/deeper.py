# %% [markdown]
# # LLM05a+ · Normalization, deeper
# The gradients of both norms; norms in 16 bits, and their time; tables of positions; a fair race.
#
# **You will be able to** derive the gradients of RMSNorm and LayerNorm. You can explain why
# statistics need float32, time two norms and explain the result, and separate the size of a table
# from its structure. You run a race between activations, with limits that show what it decides, and
# compute a loss that no model of single tokens can beat. **Builds on** LLM05a. **Takes** two
# sittings, each 45 minutes to read and 90 with the exercises: sections 1 to 4 on norms, and
# 5 to 8 on positions and races. It runs for two minutes at `tiny` on 2 cores. `small` needs a GPU.

# %% Imports
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import mean, median, quantiles, stdev
from typing import Any

from labs.kit import Lab, Results, Run, seconds_paired, tolerance
from labs.llm05a_normalization import deeper_figures, figures
from labs.llm05a_normalization.autograd import with_backward
from labs.llm05a_normalization.lesson import (
    PreNormBlock,
    RMSNorm,
    Sinusoid,
    SwiGLU,
    gelu,
    layer_norm,
    rms_norm,
    sinusoid,
)
from labs.llm05a_normalization.operations import count_operations, reuse_freed_memory, run_norm
from labs.llm05a_normalization.race import RATES, limits, minus, race, race_sizes
from labs.llm05a_normalization.training import (
    Decoder,
    Sizes,
    validation_losses,
    validation_windows,
)
from labs.shared import small_gpt
from labs.shared.small_gpt import Config, FeedForward, Position

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM05a+")
DOUBLE = torch.float64
Norm = Callable[..., Tensor]

# %% [markdown]
# ## 1. The gradient of a norm
# Given $dy = \partial L/\partial y$, the gradient of the loss $L$, a layer must return
# $dx = \partial L/\partial x$ and the gradients of its parameters. We derive them for RMSNorm. Let
# $r = \sqrt{m + \varepsilon}$, so that $\hat x = x/r$ and $y = \gamma\hat x$.
#
# **The gain.** Each $\gamma_i$ multiplies $\hat x_i$ in every token, so $d\gamma$ is the sum of
# $dy\,\hat x$ over all tokens. `sum_to_size(gain.shape)` sums over all axes that the gain lacks.
#
# **The input.** The gradient that arrives at $\hat x$ is $g = \gamma\,dy$. Each $\hat x_j$ depends
# on $x_i$ in two ways. The first is direct, but only if $j = i$, with the slope $1/r$. The second
# is through $r$, because $r$ contains all entries:
#
# $$
# \frac{\partial r}{\partial x_i} = \frac{x_i}{d\,r} = \frac{\hat x_i}{d}
# \qquad
# \frac{\partial \hat x_j}{\partial r} = -\frac{x_j}{r^2} = -\frac{\hat x_j}{r}
# $$
#
# The second way has the slope
# $\frac{\partial \hat x_j}{\partial r} \cdot \frac{\partial r}{\partial x_i}$. Add both ways,
# multiply by $g_j$ and sum over $j$: this is $dx_i$. Do it on paper. Hint 3 has the formula.
#
# **To check it**: take $x = (3, 5)$ and $g = (1, 0)$ with $\varepsilon = 0$, so
# $r = 4.123$ and $\hat x = (0.728, 1.213)$. The result is $dx = (0.178, -0.107)$.
#
# **Finite differences** test a gradient without a formula. Change one input by $10^{-6}$. Compare
# the change of the output with the gradient's prediction. `gradcheck` does this for every input.


# %% RMSNorm's gradient
@lab.exercise(
    level=3,
    hints=(
        "Compute r, x̂ = x / r and g = γ·dy first; dgain is dy · x̂, summed by sum_to_size(…).",
        "The direct way gives gᵢ / r. In the other, the sum over j contains mean(g · x̂).",
        "dx is g minus x̂ · mean(g · x̂), divided by r; the mean is over the last axis.",
    ),
)
def rms_norm_backward(
    dy: Tensor, x: Tensor, gain: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, (..., d), and of gain, (d,); dy has the shape of x."""
    r = (x.square().mean(-1, keepdim=True) + eps).sqrt()  # (..., 1)
    x_hat = x / r
    g = dy * gain
    along = x_hat * (g * x_hat).mean(-1, keepdim=True)
    return (g - along) / r, (dy * x_hat).sum_to_size(gain.shape)


@lab.experiment
def the_gradient_passes_finite_differences(run: Run):
    """RMSNorm's derived gradient agrees with finite differences. For ε = 0 it has no part along x.

    Predict: x becomes ten times larger, with ε = 0. What happens to its gradient?
    """
    x, dy = torch.randn(2, 3, 5, 16, dtype=DOUBLE)  # (B, T, d) each
    gain = torch.randn(16, dtype=DOUBLE)
    inputs = [x.clone().requires_grad_(), gain.clone().requires_grad_()]

    def constant_root(dy: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
        r = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return dy * gain / r, rms_norm_backward(dy, x, gain)[1]

    check = partial(torch.autograd.gradcheck, inputs=inputs, raise_exception=False)
    passes = check(with_backward(rms_norm, rms_norm_backward))
    run.check("passes gradcheck", passes, equals=True, decides=True)
    passes = check(with_backward(rms_norm, constant_root))
    run.check("passes gradcheck, r as a constant", passes, equals=False)
    dx = rms_norm_backward(dy, x, gain, 0)[0]
    product = (x * dx).sum(-1)
    run.agree("ε = 0: x · dx", product, decides=True)
    ten = rms_norm_backward(dy, 10 * x, gain, 0)[0]
    run.agree("ε = 0: 10 times dx at 10x − dx at x", 10 * ten - dx)
    because = "15 sums of 16 terms of size 1: x · g itself is not 0"
    before = (x * dy * gain).sum(-1).abs().max()
    run.check("largest x · g, before the norm", before, at_least=0.1, because=because)
    point = torch.tensor([3.0, 5.0], dtype=DOUBLE)
    g = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    ones = torch.ones(2, dtype=DOUBLE)
    remains = 17**0.5 * rms_norm_backward(g, point, ones, 0)[0]
    drawn = deeper_figures.tangent(rms_norm(point, ones, 0), g, remains)
    figures.show(run, "tangent", drawn)
    return f"It is ten times smaller. x · dx is at most {product.abs().max():.0e}: rounding."


# %% [markdown]
# The sum of both ways is
#
# $$dx_i = \frac{g_i - \hat x_i\,\text{mean}(g \hat x)}{r}$$
#
# For $\varepsilon = 0$ it removes the component of $g$ along $\hat x$. RMSNorm forgets the length
# of $x$, so the gradient that comes back through it has no part along $x$. In a Pre-LN block, $x$
# gets another gradient, from the stream. With a small $\varepsilon$, a share
# $\varepsilon/(m + \varepsilon)$ of the component stays. Because of the division by $r$, an $x$
# that is ten times larger gets a gradient ten times smaller.
#
# **LayerNorm.** Here each $\hat x_j$ depends on $x_i$ in a third way, through the mean:
# $\partial\mu/\partial x_i = 1/d$. The root $r = \sqrt{\sigma^2 + \varepsilon}$ depends on $\mu$,
# too. But to first order a change of $\mu$ doesn't change $\sigma^2$, because the entries of
# $x - \mu$ sum to 0:
#
# $$\frac{\partial \sigma^2}{\partial \mu} = -\frac{2}{d} \sum_j (x_j - \mu) = 0$$
#
# So $\mu$ acts on the numerator of $\hat x_j = (x_j - \mu)/r$ only, with the slope
# $-\frac{1}{d\,r}$ for every $j$. Times $g_j$ and summed over $j$, this is $-\text{mean}(g)/r$. The
# first two ways are those of RMSNorm, with $x - \mu$ in place of $x$. The sum of all three is
#
# $$dx_i = \frac{g_i - \text{mean}(g) - \hat x_i\,\text{mean}(g \hat x)}{r}$$
#
# The new term removes the component of $g$ along $(1, \ldots, 1)$. With $\varepsilon = 0$,
# LayerNorm forgets a shift of $x$ and its scale, so the gradient through it points in neither
# direction. Vectors of two numbers have no other. So the gradient of LayerNorm of $(3, 5)$ is zero,
# whatever $dy$ is. $\beta$ is added to every token, so $d\beta$ is the sum of $dy$.


# %% LayerNorm's gradient
@lab.exercise(
    level=2,
    hints=(
        "Start from rms_norm_backward; x̂ is now (x − μ) / r, and r has the variance in it.",
        "dx has one more term: subtract mean(g) over the last axis before dividing by r.",
        "dbias is dy summed over all axes but the last: sum_to_size(gain.shape).",
    ),
)
def layer_norm_backward(
    dy: Tensor, x: Tensor, gain: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, (..., d), of gain and of bias, (d,); dy has the shape of x."""
    centred = x - x.mean(-1, keepdim=True)
    r = (centred.square().mean(-1, keepdim=True) + eps).sqrt()  # (..., 1)
    x_hat = centred / r
    g = dy * gain
    along = x_hat * (g * x_hat).mean(-1, keepdim=True)
    dx = (g - g.mean(-1, keepdim=True) - along) / r
    return dx, (dy * x_hat).sum_to_size(gain.shape), dy.sum_to_size(gain.shape)


@lab.experiment
def layer_norms_gradient_avoids_two_directions(run: Run):
    """LayerNorm's derived gradient passes gradcheck. For ε = 0 it has no part along shift or x.

    Predict: for d numbers and ε = 0, in how many independent directions can the gradient point?
    """
    x, dy = torch.randn(2, 3, 5, 16, dtype=DOUBLE)  # (B, T, d) each
    gain, bias = torch.randn(2, 16, dtype=DOUBLE)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, gain, bias)]

    def backward(dy: Tensor, x: Tensor, gain: Tensor, _bias: Tensor) -> tuple[Tensor, ...]:
        return layer_norm_backward(dy, x, gain)

    def of_rms_norm(dy: Tensor, x: Tensor, gain: Tensor, _bias: Tensor) -> tuple[Tensor, ...]:
        return *rms_norm_backward(dy, x, gain), dy.sum_to_size(gain.shape)

    check = partial(torch.autograd.gradcheck, inputs=inputs, raise_exception=False)
    passes = check(with_backward(layer_norm, backward))
    run.check("passes gradcheck", passes, equals=True, decides=True)
    passes = check(with_backward(layer_norm, of_rms_norm))
    run.check("passes gradcheck with RMSNorm's gradient", passes, equals=False)
    y = F.layer_norm(inputs[0], (16,), inputs[1], inputs[2], 1e-5)
    theirs = torch.autograd.grad(y, inputs, dy)
    ours = layer_norm_backward(dy, x, gain)
    for name, a, b in zip(("dx", "dγ", "dβ"), ours, theirs, strict=True):
        run.agree(f"{name} − autograd's", a - b)
    layer = layer_norm_backward(dy, x, gain, 0)[0]
    rms = rms_norm_backward(dy, x, gain, 0)[0]
    run.agree("ε = 0: sum of dx", layer.sum(-1), decides=True)
    run.agree("ε = 0: x · dx", (x * layer).sum(-1), decides=True)
    because = "15 sums of 16 terms of size 1: RMSNorm's gradient keeps that part"
    largest = rms.sum(-1).abs().max()
    run.check("RMSNorm: largest sum of dx", largest, at_least=0.1, because=because)
    two = layer_norm_backward(dy[..., :2], x[..., :2], gain[:2], 0)[0]
    distance = (x[..., :1] - x[..., 1:2]).abs()  # r is half of it, and may be near 0
    run.agree("LayerNorm of two numbers, ε = 0: dx times their distance", two * distance)
    return "In d − 2 at most: not along the shift or the scale. For two numbers, none remains."


# %% [markdown]
# ## 2. What ε does to the invariance
# With $\varepsilon > 0$, the output of a norm depends on the scale of $x$: a little, if
# $m \gg \varepsilon$. If $x$ is multiplied by $s$, then $m$ becomes $s^2 m$, and RMSNorm's output
# changes by the factor below. The approximation needs $m$ and $s^2 m$ far above $\varepsilon$.
#
# $$
# \sqrt{\frac{1 + \varepsilon/m}{1 + \varepsilon/(s^2 m)}} \approx
# 1 + \frac{\varepsilon}{2m}\left(1 - \frac{1}{s^2}\right)
# $$
#
# For $m = 1$, $\varepsilon = 10^{-5}$ and $s = 10$ this is $1 + 5 \cdot 10^{-6}$. For
# $m = 10^{-6}$, below $\varepsilon$, the factor is 3.2: there the choice of $\varepsilon$ decides.
#
# So look up a library's default. PyTorch's LayerNorm has $\varepsilon = 10^{-5}$. Its RMSNorm takes
# the precision of the dtype, which is $1.2 \cdot 10^{-7}$ in float32.


# %% ε and the scale
@lab.experiment
def epsilon_lets_a_little_scale_through(run: Run):
    """With ε = 1e-5, RMSNorm of 10x differs from that of x by the derived factor.

    Predict: by what fraction does an entry change? In float32, could you see it?
    """
    x = torch.randn(64, 256, dtype=DOUBLE)
    ones = torch.ones(256, dtype=DOUBLE)
    eps = 1e-5
    m = x.square().mean(-1, keepdim=True)  # (64, 1)
    factor = ((1 + eps / m) / (1 + eps / (100 * m))).sqrt()
    first = eps / (2 * m) * (1 - 1 / 100)
    scaled = rms_norm(10 * x, ones, eps)
    plain = rms_norm(x, ones, eps)
    run.agree("RMSNorm of 10x − factor · RMSNorm of x", scaled - factor * plain, decides=True)
    off = ((scaled / plain - 1) / first - 1).abs().max()
    because = "the next term of the expansion is smaller by ε/m"
    bound = (eps / m.min()).item()
    run.check("relative error of the approximation", off, at_most=bound, because=because)
    small = torch.randn(64, 256) / 1000  # far below √ε = 0.003
    theirs = F.rms_norm(small, (256,))
    off = rms_norm(small, torch.ones(256), torch.finfo().eps) - theirs
    run.agree("small x: RMSNorm with ε = 1.2e-7 − PyTorch's", off, tolerance(torch.float32))
    off = (rms_norm(small, torch.ones(256), 1e-5) - theirs).abs().max()
    because = "for m = 1e-6, the two ε give outputs that differ by a factor of 3"
    run.check("small x: RMSNorm with ε = 1e-5 − PyTorch's", off, at_least=0.1, because=because)
    change = (scaled / plain - 1).abs().min()
    because = "0.99 · ε/2m, and a mean square of 256 normal numbers stays below 2"
    run.check("smallest change", change, at_least=2e-6, because=because)
    times = first.mean() / torch.finfo().eps
    return f"By {first.mean():.1e}, {times:.0f} times the distance between float32 numbers near 1."


# %% [markdown]
# ## 3. Statistics in float32
# **Mixed precision** multiplies matrices in a 16-bit format. **bfloat16** has 8 significant bits.
# Between 64 and 128 its numbers lie 0.5 apart. That can be too coarse for the statistics of a norm
# if the mean is far larger than $\sigma$. Let $x$ have the mean 100.25 and $\sigma = 1$. A mean in
# bfloat16 is 100 or 100.5, so every entry is off by about 0.25 before the division by $\sigma$. The
# entries, too, were rounded by up to 0.25 when they became bfloat16. No norm can undo their
# rounding. In this example, the wrong mean nearly doubles the error.
#
# It is the worst case, because 100.25 lies halfway between two numbers of bfloat16. The rows also
# show the mean 100, which bfloat16 has: rounding it costs little. At the mean 0, errors are small.
#
# **float16** has 11 significant bits, but its largest number is 65,504. The square of 300 is
# infinite, and the output of the norm is 0. An $\varepsilon$ of $10^{-8}$ is rounded to 0, so a
# vector of zeros gives NaN.
#
# So compute the statistics in float32, and round only the result. Then the norm itself adds an
# error of half a unit in the last place: at most $2^{-8}$ of the largest output in bfloat16.
# PyTorch's kernels do this, and `wide` does it for us.
#
# float32 has a trap, too. Many textbooks give the variance as
#
# $$\sigma^2 = \text{mean}(x^2) - \mu^2$$
#
# It is tempting, because both means can be computed in one pass over $x$. But let $\mu = 2^{13}$
# and $\sigma = 1$. The mean square is near $2^{26}$, where float32 numbers lie 4 or 8 apart. The
# difference is a multiple of 4 and can't be 1. So subtract first, then square.


# %% Statistics in float32
def relative_error(norm: Norm, x: Tensor, exact: Norm) -> Tensor:
    """Return the largest error of a norm of x, relative to the largest output."""
    want = exact(x.double())
    return (norm(x).double() - want).abs().max() / want.abs().max()


GAIN = torch.ones(1024, dtype=DOUBLE)
LAYER: Norm = partial(layer_norm, gain=GAIN, bias=0 * GAIN)
RMS: Norm = partial(rms_norm, gain=GAIN)


@lab.experiment
def a_mean_in_bfloat16_spoils_layer_norm(run: Run):
    """With a mean of 100.25, a bfloat16 mean spoils LayerNorm; a float32 mean adds one rounding.

    Predict: entries 100.25 ± 1 in bfloat16. How far off is their mean, in bfloat16?
    """
    centred = torch.randn(64, 1024, dtype=DOUBLE)
    x = (centred + 100.25).bfloat16()
    means_off = (x.mean(-1).double() - x.double().mean(-1)).abs()
    because = "0.25 minus six standard deviations of a mean of 1,024, 1/32 each"
    what = "error of the mean in bfloat16"
    run.check(what, means_off.min(), at_least=0.0625, because=because, decides=True)
    because = "half a unit in the last place is 2⁻⁸; float32's part is 1e-4 of it"
    norms = {"ours": LAYER, "PyTorch's": partial(F.layer_norm, normalized_shape=(1024,))}
    for name, norm in norms.items():
        off = relative_error(norm, x, LAYER)
        run.check(f"LayerNorm, {name}", off, at_most=2**-8 * 1.001, because=because, decides=True)

    def narrow(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    off = relative_error(narrow, x, LAYER)
    because = "the mean is off by 0.0625 or more, and outputs are about 4 at most"
    what = "LayerNorm with bfloat16 statistics"
    run.check(what, off, at_least=0.0625 / 5, because=because, decides=True)
    exact = LAYER(centred)  # no number is rounded, and the mean doesn't change it
    for at in (100.25, 100, 0):
        rounded = (centred + at).bfloat16()
        for name, norm in (("float32", LAYER), ("bfloat16", narrow)):
            off = (norm(rounded).double() - exact).square().mean().sqrt()
            run.measure(f"mean {at:g}, {name} statistics: error against exact x (RMS)", off)
    figures.show(run, "bfloat16", deeper_figures.bfloat16_numbers(x[0].float(), 100.25))
    return f"The means are off by {means_off.min():.2f} to {means_off.max():.2f}."


@lab.experiment
def squares_overflow_in_float16(run: Run):
    """In float16, the squares of 300 overflow and RMSNorm returns 0; with float32 it is right.

    Predict: how large may a number be, for float16 to square it?
    """
    x = (300 * torch.randn(64, 1024)).half()
    mean_square = x.square().mean(-1, keepdim=True)
    infinite = bool(mean_square.isinf().all())
    run.check("mean square of 300 infinite?", infinite, equals=True, decides=True)
    lost = bool((x / mean_square.sqrt() == 0).all())
    run.check("RMSNorm with float16 statistics: all 0?", lost, equals=True, decides=True)
    because = "half a unit in the last place is 2⁻¹¹"
    off = relative_error(RMS, x, RMS)
    run.check("RMSNorm, ours", off, at_most=2**-11 * 1.01, because=because, decides=True)
    zero = torch.zeros(8).half()
    undefined = bool((zero / (zero.square().mean() + 1e-8).sqrt()).isnan().all())
    run.check("ε = 1e-8: zeros give NaN?", undefined, equals=True)
    return "Below 256: 256² = 65,536 is infinite. Divided by infinity, all outputs are 0."


@lab.experiment
def a_variance_in_one_pass_cancels(run: Run):
    """In float32, mean(x²) − μ² is wrong for μ = 2¹³; subtracting the mean first is accurate.

    Predict: the variance is 1. Which values does mean(x²) − μ² give?
    """
    x = torch.randn(64, 1024) + 2**13
    one_pass = x.square().mean(-1) - x.mean(-1).square()
    off = (one_pass.double() - x.double().var(-1, correction=0)).abs()
    because = "only multiples of 4 are possible, and the variance is near 1"
    run.check("error of mean(x²) − μ²", off.min(), at_least=0.5, because=because, decides=True)
    because = "relative to an output of about 4: the mean may be off by 4 units of 2⁻¹⁰"
    off = relative_error(LAYER, x, LAYER)
    run.check("LayerNorm, ours", off, at_most=2**-10, because=because, decides=True)
    return f"From {one_pass.min():g} to {one_pass.max():g}, in steps of 4."


# %% [markdown]
# ## 4. Is RMSNorm faster?
# RMSNorm computes less than LayerNorm: no mean, no subtraction, no bias. Zhang & Sennrich (2019)
# report 7 to 64 % less running time of models. But a norm does little arithmetic for each number,
# so reading and writing the numbers often takes most of the time. In a formula, each operation
# reads and writes again. A **fused** kernel computes the entire norm in one operation.
#
# So we time four pairs: both norms by hand and from PyTorch, forward alone and with backward. The
# two calls of a pair alternate, so that other programs slow both. New memory for a result can take
# longer than the operation; on Linux, `reuse_freed_memory` avoids it for results of up to 31 MB. We
# also count the operations that write new numbers. Only the pairs by hand decide the claim: there
# RMSNorm leaves out operations of LayerNorm and adds none. For PyTorch's pairs we expect nothing.


# %% Time
NORMS: dict[str, tuple[Norm, Norm]] = {
    "by hand": (layer_norm, rms_norm),  # of (x, gain, bias) and of (x, gain)
    "PyTorch's": (
        lambda x, gain, bias: F.layer_norm(x, gain.shape, gain, bias, 1e-5),
        lambda x, gain: F.rms_norm(x, gain.shape, gain, 1e-5),
    ),
}
PASSES = ("forward", "with backward")
PAIRS = {f"{source}, {way}": (source, way) for source in NORMS for way in PASSES}


def ratio_of(pair: str) -> str:
    """Return the name of the median ratios of a pair."""
    return f"LayerNorm ÷ RMSNorm, {pair}: median, by width"


def norm_calls(run: Run, source: str, direction: str, numbers: int, width: int) -> list[Any]:
    """Return a call of LayerNorm and one of RMSNorm, for vectors of `width` numbers."""
    x, dy = torch.randn(2, numbers // width, width, device=run.device)
    gain, bias = torch.ones(2, width, device=run.device)
    back = dy if direction == "with backward" else None
    layer, rms = NORMS[source]
    calls = ((layer, [x, gain, bias]), (rms, [x, gain]))
    return [partial(run_norm, norm, inputs, back) for norm, inputs in calls]


@lab.experiment
def rms_norm_is_faster_by_hand(run: Run):
    """At three widths, RMSNorm by hand takes less time than LayerNorm by hand on this machine.

    Predict: is it true by hand, forward and with backward? And of PyTorch's norms?
    """
    widths = run.pick(tiny=[64, 256, 1024], small=[256, 1024, 4096], full=[1024, 4096, 16384])
    numbers = run.pick(tiny=2**16, small=2**20, full=2**26)
    reuse_freed_memory()
    ratios: dict[str, list[list[float]]] = {}
    rows: list[list[Any]] = []
    for pair, (source, direction) in PAIRS.items():
        calls = [norm_calls(run, source, direction, numbers, width) for width in widths]
        times = [seconds_paired(layer, rms, 31) for layer, rms in calls]  # by width
        ratios[pair] = [[a / b for a, b in zip(layer, rms, strict=True)] for layer, rms in times]
        for i, norm in enumerate(("LayerNorm", "RMSNorm")):
            milliseconds = [f"{1000 * median(both[i]):.2f}" for both in times]
            count = count_operations(calls[-1][i])  # the width doesn't change it
            rows.append([f"{norm}, {pair}", count, *milliseconds])
        run.measure(ratio_of(pair), [median(row) for row in ratios[pair]], timed=True)
        if source == "by hand":
            name = f"LayerNorm ÷ RMSNorm, {pair}: lower quartile, by width"
            lower = [quantiles(row, n=4)[0] for row in ratios[pair]]
            because = "RMSNorm leaves out operations of LayerNorm and adds none"
            bound: dict[str, Any] = {"expect_at_least": 1, "because": because}
            run.measure(name, lower, timed=True, decides=True, **bound)
    columns = ["", "operations", *(f"ms, d = {width:,}" for width in widths)]
    run.table(f"Median time of {numbers:,} numbers", columns, rows)
    figures.show(run, "norm_time", deeper_figures.norm_times(widths, ratios, numbers))
    faster = [name for name, each in ratios.items() if min(map(median, each)) > 1]
    return f"RMSNorm's median is lower at all three widths in: {'; '.join(faster) or 'none'}."


# %% [markdown]
# **Why?** Compare the counts with the times. By hand, RMSNorm has fewer operations. If PyTorch's
# RMSNorm has as many as ours by hand, PyTorch runs the formula on this device. If its LayerNorm
# counts 1, that norm is fused, and it may win although it computes more. On two cores of a Xeon, at
# $d$ = 1,024, LayerNorm's forward pass took 0.12 ms by hand and 0.04 ms fused; RMSNorm's took 0.08
# and 0.07 ms, with six operations each. For LayerNorm, how it is computed mattered more there
# than which norm it is. Is it so on your machine, and at each width?
#
# ## 5. Size and structure of a table of positions
# A learned table of positions can hold the sinusoids, or anything else. Does it matter how it
# starts? Between a table of small random numbers and the sinusoids two things differ:
#
# - **Size**, relative to the embeddings. Random tables often start at 0.02, in models whose
#   embeddings start at 0.02, too. Here the embeddings have the size 1, so such a table has a
#   fiftieth of it. The sinusoids have $1/\sqrt 2 = 0.71$, since $\sin^2 + \cos^2 = 1$.
# - **Structure.** Rows of the sinusoids at near positions are alike. Random rows are not.
#
# How alike are two rows of the sinusoids? Since $\sin a \sin b + \cos a \cos b = \cos(a - b)$,
# their dot product depends only on their distance:
#
# $$p_t \cdot p_s = \sum_i \cos\left(\omega_i (t - s)\right)$$
#
# Its trend falls with the distance, and the fast hands add ripples. Attention compares two vectors
# only after learned matrices have multiplied them. Then the products need no longer depend on the
# distance alone.
#
# So we vary both: two kinds in two sizes are four tables. Does the structure have to be that of
# sinusoids? A fifth table is **smooth**: each row is the mean of eight neighbouring rows of random
# numbers. Its near rows are alike, but they aren't sinusoids. All tables are trained.
#
# The models have two Pre-LN blocks. Models of the same seed start with the same weights, apart from
# the table. The loss is measured on validation text. The learning rate rises to 0.02 in the first
# tenth of the steps and then falls to 0. It wasn't tuned, so the claim is about this rate only. A
# step of Adam moves each entry by about the rate at most. At the peak, one step can change an entry
# of 0.02 completely; one of 0.71 needs 35. So a few steps may overwrite a small table only.
#
# **When does a lead count?** As in LLM05a, we subtract losses seed by seed. A lead counts if both
# 95 % limits of the mean difference are on the expected side of 0. For three seeds they lie 2.5
# standard deviations from the mean, if differences are about normal, which three can't show.


# %% Size and structure
class Table(Position):
    """Learned positions that start as random numbers, smooth ones or sinusoids of a given size."""

    def __init__(self, length: int, d_model: int, kind: str, rms: float):
        super().__init__()
        # a separate stream of numbers, so that the matrices of a seed don't depend on the table
        generator = torch.Generator().manual_seed(torch.initial_seed() + 1000)
        rows = torch.randn(length + 7, d_model, generator=generator)
        starts = {
            "random": rows[:length],
            "smooth": rows.unfold(0, 8, 1).mean(-1),  # (T, d, 8) -> (T, d)
            "sinusoids": sinusoid(length, d_model).float(),
        }
        start = starts[kind]
        self.table = nn.Parameter(start * rms / start.square().mean().sqrt())  # (T, d)

    def embed(self, x: Tensor) -> Tensor:
        """Add each token's position, (B, T, d) -> (B, T, d)."""
        return x + self.table[: x.shape[1]]


def range_at_one_distance(products: Tensor) -> float:
    """Return the largest difference between two entries of a diagonal, (T, T)."""
    diagonals = (products.diagonal(offset) for offset in range(-400, 401, 16))
    return max((entries.max() - entries.min()).item() for entries in diagonals)


@lab.experiment
def products_depend_on_the_distance(run: Run):
    """The dot product of sinusoids depends on distance alone, unless a random matrix is between.

    Predict: the first hand is back after 6.3 positions. Is p₀ · p₆ as large as p₀ · p₀?
    """
    d = 64
    table = sinusoid(512, d)
    products = table @ table.T  # (T, T)
    because = "64 products of sines and cosines, whose angles of up to 512 are off by 6e-14"
    spread = range_at_one_distance(products)
    what = "range of the products at one distance"
    run.check(what, spread, at_most=1e-10, because=because, decides=True)
    matrix = torch.randn(d, d, dtype=DOUBLE) / math.sqrt(d)
    spread = range_at_one_distance(table @ matrix @ table.T)
    because = "products at one distance now vary, with the standard deviation √d/2 = 4"
    what = "the same with a random matrix between"
    run.check(what, spread, at_least=1, because=because, decides=True)
    figures.show(run, "products", deeper_figures.dot_products(table))
    same, six = products[0, 0], products[0, 6]
    return f"No: p₀ · p₀ is {same:.0f} and p₀ · p₆ is {six:.1f}. The slower hands have moved on."


KINDS = ("random", "sinusoids")
TABLE_SIZES = (0.02, 0.71)
TABLES = {f"{kind}, {start:g}": (kind, start) for kind in KINDS for start in TABLE_SIZES}
SMOOTH = "smooth, 0.71"
TABLES[SMOOTH] = ("smooth", 0.71)
NO_TABLE = "no positions"
FULL = "sinusoids, 0.71"  # the size that the formula gives


def with_table(name: str, sizes: Sizes) -> Decoder:
    """Return an untrained model of two blocks with a table of positions, or without one."""
    d = sizes.d_model
    position = Table(sizes.length, d, *TABLES[name]) if name in TABLES else Position()
    blocks = [PreNormBlock(d, nn.LayerNorm, FeedForward) for _ in range(2)]
    return Decoder(blocks, d, nn.LayerNorm(d), position)


@lab.experiment
def a_table_needs_size_and_structure(run: Run):
    """At the rate 0.02, full-size sinusoids lead small ones and random tables; smooth leads random.

    Predict: how much of the gain of both together does size alone reach? And structure alone?
    """
    sizes = run.pick(
        tiny=Sizes(48, 32, 16, 200), small=Sizes(72, 48, 16, 500), full=Sizes(192, 128, 64, 4000)
    )
    losses = validation_losses(run, with_table, [*TABLES, NO_TABLE], 0.02, sizes, seeds=3)
    because = "a guess: small tables are hidden or overwritten, and near rows should be alike"
    expected: dict[str, Any] = {"unit": "nats", "expect_at_least": 0, "because": because}
    for other in ("random, 0.02", "random, 0.71", "sinusoids, 0.02"):
        both = limits(minus(losses, other, FULL))
        run.measure(f"{other} − {FULL}, 95 % limits", both, decides=True, **expected)
    both = limits(minus(losses, "random, 0.71", SMOOTH))
    expected["because"] = "a guess: the sizes are equal, and near rows should be alike"
    run.measure(f"random, 0.71 − {SMOOTH}, 95 % limits", both, decides=True, **expected)
    for other, table in ((SMOOTH, FULL), ("sinusoids, 0.02", "random, 0.71")):
        both = limits(minus(losses, other, table))
        run.measure(f"{other} − {table}, 95 % limits", both, unit="nats")
    gains = {name: minus(losses, NO_TABLE, name) for name in TABLES}
    for name, gain in gains.items():
        run.measure(f"{NO_TABLE} − {name}", gain, unit="nats")
    curves = {kind: [losses[f"{kind}, {rms:g}"] for rms in TABLE_SIZES] for kind in KINDS}
    best = min(TABLES, key=lambda name: mean(losses[name]))
    title = f"Lowest mean of five tables: {best}"
    without = mean(losses[NO_TABLE])
    drawn = deeper_figures.tables(TABLE_SIZES, curves, losses[SMOOTH], without, title, sizes.steps)
    figures.show(run, "tables", drawn)
    listed = "; ".join(f"{name}: {mean(gain):+.3f}" for name, gain in gains.items())
    return f"Mean gains over no positions, in nats: {listed}."


# %% [markdown]
# **What did it show?** Compare the gains over no positions. Which share of the gain of full-size
# sinusoids does size alone reach (random, 0.71)? And structure alone (sinusoids, 0.02)? If the two
# shares add up to less than 1, size and structure help more together than one by one. We didn't
# test why a small table gains little: the steps may overwrite it, or embeddings of size 1 may hide
# it. If smooth rows gain as much as sinusoids, the sine isn't needed; a possible reason, not
# tested: at `tiny`, half the hands turn by less than half a radian over 32 positions.
#
# ## 6. One family of activations
# The family $x\,\sigma(kx)$, called **Swish** (Ramachandran et al. 2017), contains SiLU and comes
# near the other activations of LLM05a. It is SiLU at $k = 1$, nearly GELU at $k = 1.7$, and ReLU as
# $k \to \infty$. At $k = 0$ it is the straight line $x/2$; the matrices can supply the factor 2
# that makes it the identity. A larger $k$ makes the bend at 0 sharper.
#
# And $x\,\sigma(kx) = \text{SiLU}(kx)/k$. Between two matrices, the factor $k$ can move into the
# first one, and $1/k$ into the second. So SiLU and Swish of any $k > 0$ can express the same
# functions. They differ in where training starts and in how far a step goes.
#
# Hendrycks & Gimpel give two approximations of GELU, one with tanh, and $x\,\sigma(1.702x)$. A
# model that was trained with one of them should be run with the same one.


# %% Activations
def swish(x: Tensor, k: float = 4.0) -> Tensor:
    """Return x times the logistic function of kx."""
    return x * (k * x).sigmoid()


@lab.experiment
def approximations_of_gelu_are_other_functions(run: Run):
    """GELU's approximations by tanh and by x·σ(1.702x) differ from it by more than rounding.

    Predict: by how much does each approximation differ from GELU at most?
    """
    x = torch.linspace(-6, 6, 12_001, dtype=DOUBLE)
    run.agree("x·σ(4x) − SiLU(4x)/4", swish(x) - F.silu(4 * x) / 4)
    run.agree("GELU − PyTorch's", gelu(x) - F.gelu(x))
    by_tanh = (F.gelu(x, approximate="tanh") - gelu(x)).abs().max()
    by_swish = (swish(x, 1.702) - gelu(x)).abs().max()
    because = "20 times the distance of float32 numbers near 6, 5e-7"
    run.check("by tanh: largest error", by_tanh, at_least=1e-5, because=because, decides=True)
    run.check("by x·σ(1.702x)", by_swish, at_least=1e-5, because=because, decides=True)
    functions = {"SiLU": F.silu, "GELU": gelu, "Swish, k = 4": swish, "ReLU": F.relu}
    titles = ("A larger k bends sharper", "The slope rises faster, too")
    caption = "SiLU and Swish are x·σ(kx), k = 1 and 4. GELU lies near k = 1.7; ReLU is the limit."
    figures.show(run, "family", figures.activations(functions, titles, caption))
    return f"By tanh: {by_tanh:.4f} at most. By x·σ(1.702x): {by_swish:.3f}."


# %% [markdown]
# ## 7. A fair race
# Which activation is best? The differences are small, so everything else must be equal, and chance
# must be visible. We train a decoder of two blocks on Shakespeare's plays, character by character.
# The blocks are the library's; RMSNorm, SwiGLU and the sinusoids are yours. The contestants are
# called **arms**. One of them is the **base**: LayerNorm, Pre-LN, sinusoids and GELU. In the
# tables, its row is "GELU". Every other arm changes one part of the base. The arm without attention
# also has no positions, as section 8 explains.
#
# - **Parameters.** All arms with another activation have exactly the same number. The arms with
#   RMSNorm and without attention don't; the tables show it.
# - **Start and batches.** The same seed gives all arms the same batches and the same embedding.
#   Most arms also start with the same matrices; SwiGLU and the arm without attention can't. We
#   subtract losses of the same seed, so luck that two arms share cancels.
# - **Learning rate.** Each arm has the best rate of a grid with factors of 2, found with one seed
#   on the text of the race. At `tiny` the rates are fixed; race.py lists the losses of their
#   search. One seed can't separate nearly equal rates, so every claim is about these rates.
# - **Chance.** Each arm has five seeds; the table shows their standard deviation. A difference
#   counts only if both of its 95 % limits are on the expected side of 0. For five seeds they lie
#   1.24 standard deviations from the mean difference. They say nothing about another text.
#
# What should we expect? At the start, an entry of the first matrix has the variance $2/(d + 4d)$,
# by Glorot & Bengio 2010. Its input has the size 1. A number in front of the activation is a sum of
# $d$ products, so its variance is $d \cdot 2/(5d) = 0.4$ and its size 0.63. At 0.63 and −0.63, SiLU
# differs from the straight line $x/2$ by 0.10, GELU by 0.15 and ReLU by 0.32. With a straight line,
# one matrix could replace the two. This argues for a sharp bend, with ReLU best. But Hendrycks &
# Gimpel report that GELU beats ReLU, on other tasks. So we claim only that the straight line comes
# last, and that a gate helps.

# %% The arms
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "identity": partial(FeedForward, activation=nn.Identity()),
    "SiLU": partial(FeedForward, activation=F.silu),
    "GELU": FeedForward,
    "ReLU": partial(FeedForward, activation=F.relu),
    "SwiGLU": SwiGLU,
}


def arm(run: Run, name: str) -> Config:
    """Return the base (GELU, LayerNorm, Pre-LN, sinusoids) with the change of this arm."""
    sizes = race_sizes(run)
    changes: dict[str, Any] = {
        "RMSNorm": {"norm": RMSNorm},
        "no attention": {"heads": 0, "position": Position},
        **{name: {"ffn": ffn} for name, ffn in ACTIVATIONS.items()},
    }
    base: dict[str, Any] = {
        "vocabulary": len(small_gpt.shakespeare().characters),
        "d_model": sizes.d_model,
        "position": partial(Sinusoid, sizes.length, sizes.d_model),
    }
    return Config(**{**base, **changes[name]})


def raced(run: Run, names: list[str]) -> dict[str, list[float]]:
    """Return the losses of the seeds for each arm, and print them."""
    return race(run, arm, RATES, names)


# %% The race
@lab.experiment
def a_gate_lowers_the_loss(run: Run):
    """At equal parameters and the learning rates of the table, SwiGLU ends below a plain SiLU.

    Predict: in which order do identity, SiLU, GELU, ReLU and SwiGLU finish?
    """
    losses = raced(run, list(ACTIVATIONS))
    counts = {small_gpt.parameters(ffn(race_sizes(run).d_model)) for ffn in ACTIVATIONS.values()}
    run.check("distinct numbers of FFN parameters among five arms", len(counts), equals=1)
    both = limits(minus(losses, "SwiGLU", "SiLU"))
    because = "as in Shazeer 2020, at 220 M parameters"
    expected: dict[str, Any] = {"unit": "nats", "expect_at_most": 0, "because": because}
    run.measure("SwiGLU − SiLU, 95 % limits", both, decides=True, **expected)
    order = sorted(ACTIVATIONS, key=lambda name: mean(losses[name]))
    differences = {name: minus(losses, name, "SiLU") for name in order if name != "SiLU"}
    figures.show(run, "race", deeper_figures.differences(differences, "SiLU", limits))
    listed = ", ".join(f"{name} {mean(losses[name]):.3f}" for name in order)
    spread = max(stdev(row) for row in losses.values())
    return f"From the lowest mean: {listed}. Largest standard deviation: {spread:.3f}."


FAMILY = ["identity", "SiLU", "GELU", "ReLU"]


@lab.experiment
def three_bends_beat_the_straight_line(run: Run):
    """SiLU, GELU and ReLU, at the rate of the table, each end below the straight line.

    Predict: is the sharpest bend, ReLU, also the best?
    """
    losses = raced(run, FAMILY)
    because = "with a straight line, the FFN's two matrices are one"
    expected: dict[str, Any] = {"unit": "nats", "expect_at_least": 0, "because": because}
    for name in FAMILY[1:]:
        both = limits(minus(losses, "identity", name))
        run.measure(f"identity − {name}, 95 % limits", both, decides=True, **expected)
    for a, b in pairwise(FAMILY):
        run.measure(f"{a} − {b}", minus(losses, a, b), unit="nats")
    low, high = limits(minus(losses, "ReLU", "GELU"))
    because = "above 0 in Hendrycks & Gimpel 2016, on other tasks; below 0 if a larger k helps"
    run.measure("ReLU − GELU, 95 % limits", [low, high], unit="nats", because=because)
    best = min(FAMILY, key=lambda name: mean(losses[name]))
    return f"{best} has the lowest mean. ReLU − GELU: {low:+.3f} to {high:+.3f} (95 % limits)."


@lab.experiment
def rms_norm_stays_within_the_margin(run: Run):
    """At two blocks and the rates of the table, RMSNorm ends within 0.02 nats of LayerNorm.

    Predict: can five seeds decide this claim? How wide are the limits?
    """
    losses = raced(run, ["GELU", "RMSNorm"])  # GELU is the base, with LayerNorm
    difference = minus(losses, "RMSNorm", "GELU")
    low, high = limits(difference)
    because = "0.02 nats are 2 % of the perplexity; Zhang & Sennrich 2019 found it as good"
    expected: dict[str, Any] = {"unit": "nats", "because": because, "decides": True}
    what = "RMSNorm − base, 95 % limits"
    run.measure(f"{what}: not too high", [low, high], expect_at_most=0.02, **expected)
    run.measure(f"{what}: not too low", [low, high], expect_at_least=-0.02, **expected)
    run.measure("RMSNorm − base", difference, unit="nats")
    reach = (high - low) / 2
    return f"RMSNorm − base is {mean(difference):+.3f} ± {reach:.3f} nats; the margin is ± 0.02."


# %% [markdown]
# If both limits of ReLU − GELU are above 0, the argument for the sharpest bend failed here. How do
# you read "inconclusive"? If the limits lie on both sides of 0, five seeds can't say which arm is
# better. If a difference as large as either limit wouldn't matter to you, take the cheaper arm. If
# not, add seeds: if $n$ is large, the limits lie about $2/\sqrt n$ standard deviations from the
# mean. If 20 differences are really 0, one has both limits on one side, on average.
#
# The claim about RMSNorm holds if both limits lie within ± 0.02. It fails if both lie beyond the
# margin on the same side. Otherwise it is inconclusive. With a standard deviation of 0.015 the
# limits reach 0.019 to each side. Then the claim holds only if the measured mean lies within 0.001
# of 0. Most runs would be inconclusive, even if both norms were equally good.
#
# ## 8. What single tokens can't know
# Take attention out of the model. Then each token is transformed alone, and the prediction of the
# next character $b$ depends only on the last one, $a$. Such a model is a table with a row of
# probabilities for each $a$, whatever its layers are.
#
# How good can a table be? Count in the validation text itself how often $b$ follows $a$. No table
# has a lower loss on this text than these frequencies. This is Gibbs' inequality: if a row has the
# frequencies $p$ and the table gives $q$, the table's loss exceeds theirs by $\sum p \ln(p/q)$.
# This isn't negative: by $\ln z \le z - 1$ with $z = q/p$, each term is at least $p - q$, and these
# differences sum to 0 or more. The loss of the frequencies is the **conditional entropy**:
#
# $$H(\text{next} \mid \text{last}) = -\sum_{a,b} p(a, b) \ln p(b \mid a)$$
#
# **By hand.** Take the text "momo mo". After m always comes o, which costs nothing. After o comes m
# once and the space once: $-\ln(1/2) = 0.69$ nats each. After the space comes m. The six pairs cost
# $2 \cdot 0.69/6 = 0.23$ nats on average.
#
# The bound holds only if the counts come from the text on which the model is tested. We also show
# the loss of counts from the training text, each plus 1, so that no pair has $p = 0$. It is no
# bound. A model with positions could use another table for each position, so this model has none.


# %% A bound
@lab.exercise(
    level=2,
    hints=(
        "Divide each row by its sum to get p(b | a); clamp the sum, since some rows are 0.",
        "Each pair costs −ln p(b | a), and a pair that was seen n times counts n times.",
        "Where the count is 0 the term is 0: torch.xlogy(counts, p) gives 0 · ln 0 = 0.",
    ),
)
def conditional_entropy(counts: Tensor) -> float:
    """Return H(next | last) in nats; counts[a, b], (V, V) in float64, is how often b follows a."""
    rows = counts.sum(-1, keepdim=True)  # (V, 1)
    p = counts / rows.clamp(min=1e-300)
    return -(torch.xlogy(counts, p).sum() / counts.sum()).item()


def pair_counts(last: Tensor, following: Tensor, vocabulary: int) -> Tensor:
    """Return how often each token follows each other one, (V, V) in float64."""
    pairs = (last * vocabulary + following).flatten().bincount(minlength=vocabulary**2)
    return pairs.view(vocabulary, vocabulary).double()


@lab.experiment
def single_tokens_cannot_beat_the_pairs(run: Run):
    """Without attention no loss is below the text's own H(next | last); with attention it is.

    Predict: how close to the bound does a model without attention come?
    """
    corpus = small_gpt.shakespeare()
    vocabulary = len(corpus.characters)
    windows = validation_windows(race_sizes(run).length)
    last, following = windows[:, :-1], windows[:, 1:]
    bound = conditional_entropy(pair_counts(last, following, vocabulary))
    losses = raced(run, ["no attention", "GELU"])
    because = f"Gibbs: below {bound:.4f}, a count or the model is wrong; 1e-5 for float32"
    alone = losses["no attention"]
    run.check("without attention", alone, at_least=bound - 1e-5, because=because, decides=True)
    together = losses["GELU"]
    expected: dict[str, Any] = {"expect_at_most": bound, "because": "it reads more than one token"}
    run.measure("with attention", together, unit="nats", decides=True, **expected)
    seen = 1 + pair_counts(corpus.train[:-1], corpus.train[1:], vocabulary)
    p = seen / seen.sum(-1, keepdim=True)
    counted = -p[last, following].log().mean().item()
    rungs = {
        "uniform, ln V": math.log(vocabulary),
        "frequencies of the validation text": small_gpt.unigram(windows),
        "pairs counted in the training text": counted,
        "trained without attention": mean(alone),
        "the bound: pairs of the validation text": bound,
        "trained with attention": mean(together),
    }
    figures.show(run, "rungs", deeper_figures.rungs(rungs))
    return (
        f"Above the bound: trained without attention {mean(alone) - bound:.3f} nats, pairs counted "
        f"in the training text {counted - bound:.3f}."
    )


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's times and races."""
    family = partial(results.values, "three_bends_beat_the_straight_line")
    bends = "; ".join(f"{a} to {b} {-mean(family(f'{a} − {b}')):+.3f}" for a, b in pairwise(FAMILY))
    cost = mean(results.values("rms_norm_stays_within_the_margin", "RMSNorm − base"))
    times = partial(results.values, "rms_norm_is_faster_by_hand")
    ratios = "; ".join(f"{pair}: {median(times(ratio_of(pair))):.2f}" for pair in PAIRS)
    return (
        f"## In this run\nLayerNorm's time relative to RMSNorm's: {ratios}. Losses are means of "
        "five seeds, in nats; the rows above show medians. Change with each sharper bend: "
        f"{bends}. RMSNorm − base: {cost:+.3f}."
    )


# %% [markdown]
# ## 9. What to remember
# - **The gradient through a norm with $\varepsilon = 0$ has no part along what the norm forgets.**
# - **A library's function may be several operations.** Count them before you explain a time.
# - **Change one thing at a time, and then both.** A random table and the sinusoids differ in size
#   and structure. Section 5 varies each alone and both together, at one rate, after 200 steps at
#   `tiny`. After 100,000 steps, Vaswani et al. found learned positions and sinusoids equally good.
# - **A race shows who leads at its size, length and learning rates.** Count the seeds and look at
#   the limits before you believe a rank.
# - **A bound belongs to its text.** That of one text doesn't limit the loss on another.
#
# **Try it**: set each rate in race.py's `RATES` to 0.005, and run with
# `--only a_gate_lowers_the_loss`. Which ranks change, and which limits cross 0?
#
# **Read on**: Zhang & Sennrich 2019, *Root Mean Square Layer Normalization* · Shazeer 2020, *GLU
# Variants Improve Transformer* · Narang et al. 2021, *Do Transformer Modifications Transfer Across
# Implementations and Applications?* Next is LLM05b.

# %%
if __name__ == "__main__":
    lab.main()
