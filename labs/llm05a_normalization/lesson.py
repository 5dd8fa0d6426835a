# %% [markdown]
# # LLM05a · Normalization techniques
# The parts of a transformer block: norms and their gradients, feed-forward layers, positions.
#
# **You will be able to** write LayerNorm and RMSNorm, and derive RMSNorm's gradient. You can say
# what each norm forgets and where ε belongs, choose the width of a SwiGLU layer, and compute
# positions. At the end you write a Pre-LN and a Post-LN block and compare how they train. **Builds
# on** gradients (LLM02), matrix products (LLM03) and tokens (LLM04). Attention is a black box here;
# LLM06 opens it. **Takes** three quarters of an hour to read and a minute to run (`tiny`, 2 cores).
# Its deeper part, LLM05a+, times the norms, computes them in bfloat16, compares tables of positions
# and races activations.

# %% Imports
import math
from functools import partial
from statistics import mean
from typing import Any

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import figures, view_data
from labs.llm05a_normalization.autograd import with_backward
from labs.llm05a_normalization.black_box import Attention
from labs.llm05a_normalization.training import Sizes, by_rate
from labs.shared import small_gpt
from labs.shared.small_gpt import FeedForward, Position

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

lab = Lab("LLM05a")
DOUBLE = torch.float64

# %% [markdown]
# ## 1. A block, and what attention is for
# A language model reads tokens and gives each possible next token a score. Inside the model, each
# token is a vector of $d$ numbers. The model looks up this vector in a table, the **embedding**. It
# adds a vector for the token's position and sends the result through a stack of **blocks**. At the
# end, another table has a row for each token of the vocabulary, the **unembedding**. The dot
# product of the vector with a row is the score of that token. Such a model is called a **decoder**.
#
# A block has two **branches**, attention and a feed-forward layer. A branch computes something from
# the vectors, and the result is *added* to them. This addition is a **residual connection** (He et
# al. 2016). The vectors that run through the model and collect the results are the **residual
# stream**.
#
# **What is attention for?** Take the text "The cat that chased the mice was tired". To predict
# "was" and not "were", a model must know that the subject is "cat", five words back. A layer that
# works on each token alone can't know this. Attention lets a token read from others: for every
# token, it computes a weighted mean of vectors made from that token and from the tokens before it.
# The weights depend on what the tokens contain, so the model learns what to look for. How the
# weights are computed is the topic of LLM06. Until then three properties are enough:
#
# - It takes vectors of the shape $(B, T, d)$, for $B$ texts of $T$ tokens each, and returns the
#   same shape.
# - It is **causal**: token $t$ reads tokens $0$ to $t$ and no later ones. Otherwise a model could
#   copy the token that it should predict.
# - One layer of it doesn't know the order of the tokens that it reads. Section 6 shows this and
#   adds positions.
#
# The **feed-forward layer** (FFN) then transforms each token alone, with the same weights for every
# token. It holds most of a block's parameters.
#
# A **norm** in front of each branch scales every vector to the same **size**. In this lab, the size
# of a vector is the root of the mean of its squared entries, RMS for short. The vector $(3, 5)$ has
# the size $\sqrt{(9 + 25)/2} = 4.12$. The next sections build these parts one by one.


# %% Attention, a black box
@lab.experiment
def only_attention_reads_other_tokens(run: Run):
    """A change of one token reaches later tokens through attention, but not through the FFN.

    Predict: token 4 of 0 to 7 changes. Which of attention's eight outputs change?
    """
    x = torch.randn(1, 8, 32, dtype=DOUBLE)  # (B, T, d)
    changed = x.clone()
    changed[0, 4] = torch.randn(32, dtype=DOUBLE)
    changes: dict[str, Tensor] = {}
    for part in (nn.LayerNorm(32), FeedForward(32), Attention(32)):
        difference = part.double()(changed) - part(x)
        changes[type(part).__name__] = difference[0].square().mean(-1).sqrt().detach()  # (T,)
    rows = [[name, *(f"{size:.2f}" for size in row.tolist())] for name, row in changes.items()]
    run.table("Change of each token's output (RMS)", ["", *map(str, range(8))], rows)
    ffn, attention = changes["FeedForward"], changes["Attention"]
    run.agree("feed-forward layer, other tokens", ffn[torch.arange(8) != 4], decides=True)
    run.agree("attention, earlier tokens", attention[:4], decides=True)
    because = "with random weights no weight of the mean is 0"
    what = "attention, smallest change from token 4 on"
    run.check(what, attention[4:].min(), at_least=1e-4, because=because, decides=True)
    run.check(
        "feed-forward layer, token 4",
        ffn[4],
        at_least=1e-2,
        because="else the zeros above would mean nothing",
    )
    run.figure(
        figures.model_and_block(),
        "block",
        "For one token, read from below. Left: a decoder. Right: one of its blocks.",
        alt="Left: tokens, embedding, position, two blocks, norm, unembedding, scores. Right: a "
        "vertical line, the residual stream; twice an arrow leaves it, passes a norm and a branch, "
        "and is added to it again.",
    )
    run.figure(
        figures.who_reads_whom(("The", "cat", "was", "tired")),
        "reading",
        "An arrow leads from what is read to the result. In a block, only attention has arrows "
        "between tokens.",
        alt="Two panels with four tokens. Attention: arrows from each token to itself and to every "
        "later one. Feed-forward layer: arrows straight up.",
    )
    return (
        f"{int((attention > 1e-9).sum())} of 8 change: those of token 4 and of the tokens after it."
    )


# %% [markdown]
# ## 2. Two norms
# Without a norm, a branch returns more if it gets more. So each block multiplies the size of the
# stream by a factor, and many factors are multiplied: 1.1 to the power of 100 is 14,000, and 0.9 to
# the power of 100 is 0.00003. With a norm in front, a branch returns the same for a small and for a
# large stream.
#
# **LayerNorm** (Ba et al. 2016) takes the vector $x$ of one token. It subtracts the mean $\mu$ of
# the $d$ entries and divides by their standard deviation. Two learned vectors then multiply and
# shift each entry: the **gain** $\gamma$ and the **bias** $\beta$.
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
# **RMSNorm** (Zhang & Sennrich 2019) is simpler. It has no mean and no bias, and divides by the
# root of the mean square:
#
# $$
# \begin{aligned}
# m &= \text{mean}(x^2) \\
# \hat x &= \frac{x}{\sqrt{m + \varepsilon}} \\
# y &= \gamma \hat x
# \end{aligned}
# $$
#
# The small number $\varepsilon$ avoids a division by zero. Section 3 looks at its place.
#
# **By hand.** Take $x = (3, 5)$ with $\gamma = 1$, $\beta = 0$ and $\varepsilon = 0$. The mean is 4
# and the standard deviation 1, so LayerNorm returns $(-1, 1)$. The mean square is
# $(9 + 25)/2 = 17$ with the root 4.12, so RMSNorm returns $(0.73, 1.21)$.
#
# Two details matter when you write them. All means run over the last axis only: each token is
# normed alone, whatever the other tokens are. And $\sigma^2$ is a mean over $d$ entries. It isn't
# divided by $d - 1$, as `Tensor.std` does by default.
#
# Training often uses 16-bit numbers, which are too coarse for these means. So both norms compute in
# float32 at least, with `wide`, and convert only the result. LLM05a+ shows what happens otherwise.


# %% Forward
def wide(x: Tensor) -> Tensor:
    """Return x in float32, or in its own dtype if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@lab.exercise(
    level=1,
    hints=(
        "Each token is normed alone: use mean(-1, keepdim=True) on what `wide` returns.",
        "Subtract the mean first. The variance is the mean square of the result.",
        "Add ε to the variance and take the root; then gain, bias, and the dtype of x.",
    ),
)
def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Return LayerNorm of x, (..., d), in x's dtype; gain and bias are (d,).

    It computes in float32 at least.
    """
    centred = wide(x) - wide(x).mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)  # (..., 1)
    x_hat = centred / (variance + eps).sqrt()
    return (x_hat * gain + bias).to(x.dtype)


@lab.exercise(
    level=1,
    hints=(
        "It is LayerNorm without the subtraction: which mean is left?",
        "Add ε to the mean square, before the root.",
        "Square what `wide` returns: in float16 the square of 300 is infinite.",
    ),
)
def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    """Return RMSNorm of x, (..., d), in x's dtype; gain is (d,).

    It computes in float32 at least.
    """
    mean_square = wide(x).square().mean(-1, keepdim=True)  # (..., 1)
    x_hat = wide(x) / (mean_square + eps).sqrt()
    return (x_hat * gain).to(x.dtype)


class LayerNorm(nn.Module):
    """LayerNorm as a layer for vectors of `d_model` numbers."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Norm each token, (..., d) -> (..., d)."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """RMSNorm as a layer for vectors of `d_model` numbers, named as in Llama."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Norm each token, (..., d) -> (..., d)."""
        return rms_norm(x, self.weight, self.eps)


# %% [markdown]
# ## 3. What a norm forgets, and what ε does
# Multiply $x$ by 10. Its mean, its standard deviation and its size grow by the same factor, so
# $\hat x$ doesn't change in either norm. Add 3 to every entry. LayerNorm subtracts it again with
# the mean, RMSNorm doesn't. So with $\varepsilon = 0$
#
# - LayerNorm forgets the **scale** and the **shift** of $x$;
# - RMSNorm forgets the scale only.
#
# The figure shows it for vectors of two numbers. RMSNorm moves each vector along its ray to the
# circle of radius $\sqrt 2$, where the mean square is 1. LayerNorm leaves only two results,
# $(-1, 1)$ and $(1, -1)$: of two unequal numbers, it keeps which one is larger.
#
# In a block this is useful. A branch with a norm in front gets vectors of the same size, however
# large the residual stream has become.


# %% What each norm forgets
@lab.experiment
def what_each_norm_forgets(run: Run):
    """With ε = 0 both norms forget the scale of x, and LayerNorm alone forgets a shift.

    Predict: 3 is added to entries of size 1. By how much do RMSNorm's outputs change (RMS)?
    """
    x = torch.randn(64, 256, dtype=DOUBLE)
    ones = torch.ones(256, dtype=DOUBLE)
    layer = partial(layer_norm, gain=ones, bias=0 * ones, eps=0)
    rms = partial(rms_norm, gain=ones, eps=0)
    run.agree("LayerNorm of 10x − of x", layer(10 * x) - layer(x), decides=True)
    run.agree("LayerNorm of x + 3 − of x", layer(x + 3) - layer(x), decides=True)
    run.agree("RMSNorm of 10x − of x", rms(10 * x) - rms(x), decides=True)
    change = (rms(x + 3) - rms(x)).square().mean().sqrt()
    because = "√((1 − 1/√10)² + 9/10) = 1.17, as the mean square becomes 10; chance moves it by 1 %"
    bounds = {"at_least": 0.95 * 1.17, "at_most": 1.05 * 1.17}
    run.check("RMSNorm of x + 3 − of x (RMS)", change, **bounds, because=because, decides=True)
    gain, bias = torch.randn(2, 256, dtype=DOUBLE)
    error = layer_norm(x + 3, gain, bias) - F.layer_norm(x + 3, (256,), gain, bias, 1e-5)
    run.agree("LayerNorm − PyTorch's", error)
    error = rms_norm(x + 3, gain) - F.rms_norm(x + 3, (256,), gain, 1e-5)
    run.agree("RMSNorm − PyTorch's", error)
    run.figure(
        figures.norms_in_two_dimensions(layer_norm, rms_norm),
        "two_dimensions",
        "Vectors of two numbers before a norm (open) and after it (filled).",
        alt="Two panels with five vectors and a circle. With RMSNorm each vector moves along its "
        "ray to the circle; with LayerNorm all vectors land on one of two opposite points.",
    )
    return f"RMSNorm's outputs change by {change:.2f}; their size was 1."


# %% [markdown]
# **Where ε belongs.** A vector whose entries have the size $s$ leaves RMSNorm with the size
#
# $$\frac{s}{\sqrt{s^2 + \varepsilon}}$$
#
# So $\sqrt\varepsilon$ is a threshold. With $\varepsilon = 10^{-5}$ it lies at 0.003: entries far
# above it leave with the size 1, and entries far below are multiplied by $1/\sqrt\varepsilon = 316$
# at most.
#
# What if $\varepsilon$ stands outside the root, as in $x/(\sqrt m + \varepsilon)$? Then a vector is
# multiplied by up to $1/\varepsilon$ = 100,000, so tiny noise becomes a full-sized signal. Worse,
# $\sqrt m$ has an infinite slope at $m = 0$. The slope of the norm is finite there,
# $1/\varepsilon$. But autograd applies the chain rule step by step. It multiplies infinity by 0 and
# returns NaN. One vector of zeros, for example of a token that only fills up a short text, is
# enough to destroy a training step.


# %% Where ε belongs
def rms_norm_outside(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return x / (√m + ε), with ε at the wrong place."""
    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps)


@lab.experiment
def epsilon_belongs_inside_the_root(run: Run):
    """Inside the root ε limits RMSNorm's factor to 1/√ε; outside, autograd returns NaN at zero.

    Predict: entries of size 0.0001 and ε = 0.00001. Which size do they have after RMSNorm?
    """
    signs = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    sizes = torch.logspace(-8, 2, 41, dtype=DOUBLE)
    x = sizes[:, None] * signs  # (41, 2)
    inside = rms_norm(x, signs.abs())[:, 0]
    outside = rms_norm_outside(x)[:, 0]
    run.agree("size after − s / √(s² + ε), 41 sizes", inside - sizes / (sizes**2 + 1e-5).sqrt())
    because = "1/√ε = 316.2"
    factor = (inside / sizes).max()
    run.check("largest factor", factor, at_most=316.3, because=because, decides=True)
    because = "almost 1/ε = 100,000"
    run.check("ε outside: largest factor", (outside / sizes).max(), at_least=9e4, because=because)
    zero = torch.zeros(2, dtype=DOUBLE)
    slopes = torch.func.jacrev(partial(rms_norm, gain=signs.abs()))(zero).diagonal()
    run.agree("slope at 0 − 1/√ε", slopes - 1e-5**-0.5, 1e-9, decides=True)
    broken = torch.func.grad(lambda x: rms_norm_outside(x).sum())(zero)
    run.check("ε outside: NaN at 0?", bool(broken.isnan().all()), equals=True, decides=True)
    run.figure(
        figures.epsilon(sizes, {"ε inside the root": inside, "ε outside": outside}, 1e-5),
        "epsilon",
        "The size of a vector's entries after RMSNorm, with ε = 0.00001 at either place.",
        alt="A line plot on log scales of the size after RMSNorm over the size before. Both curves "
        "reach 1 on the right. To the left, one falls from 0.003 on, the other from 0.00001 on.",
    )
    run.view("norms", "norms", *view_data.norms(layer_norm, rms_norm))
    after = rms_norm(1e-4 * signs, signs.abs()).abs().mean()
    return f"They have the size {after:.3f}, not 1: they lie below √ε = 0.0032."


# %% [markdown]
# ## 4. The gradient of a norm
# Training sends the gradient of the loss $L$ backwards through each layer. Given
# $dy = \partial L/\partial y$, a layer must return $dx = \partial L/\partial x$ and the gradients
# of its parameters. We derive them for RMSNorm. Let $r = \sqrt{m + \varepsilon}$, so that
# $\hat x = x/r$ and $y = \gamma\hat x$.
#
# **The gain.** Each $\gamma_i$ multiplies $\hat x_i$ in every token, so $d\gamma$ is the sum of
# $dy\,\hat x$ over all tokens.
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
# Now multiply: $dx_i$ is the sum of $g_j\,\partial\hat x_j/\partial x_i$ over all $j$. Do it on
# paper, and look for $\text{mean}(g \hat x)$ in the result. The third hint has the formula.
#
# **To check your formula.** Take $x = (3, 5)$ and $g = (1, 0)$ with $\varepsilon = 0$, so
# $r = 4.123$ and $\hat x = (0.728, 1.213)$. The result is $dx = (0.178, -0.107)$.
#
# How could one test a gradient without a formula? With **finite differences**: change one input by
# $10^{-6}$ and compare the change of the output with what the gradient predicts. PyTorch's
# `gradcheck` does this for every input.


# %% Backward
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
    """RMSNorm's derived gradient agrees with finite differences; for ε = 0 no part is along x.

    Predict: with ε = 0, what is the dot product of x and its gradient?
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
    theirs = torch.autograd.grad(F.rms_norm(inputs[0], (16,), inputs[1], 1e-5), inputs, dy)
    ours = rms_norm_backward(dy, x, gain)
    for name, a, b in zip(("dx", "dγ"), ours, theirs, strict=True):
        run.agree(f"{name} − autograd's", a - b)
    dx = rms_norm_backward(dy, x, gain, 0)[0]
    product = (x * dx).sum(-1)
    run.agree("ε = 0: x · dx", product, decides=True)
    ten = rms_norm_backward(dy, 10 * x, gain, 0)[0]
    run.agree("ε = 0: 10 times dx at 10x − dx at x", 10 * ten - dx)
    because = "15 sums of 16 terms of size 1: before the norm it is no zero"
    before = (x * dy * gain).sum(-1).abs().max()
    run.check("largest x · g, before the norm", before, at_least=0.1, because=because)
    point = torch.tensor([3.0, 5.0], dtype=DOUBLE)
    g = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    ones = torch.ones(2, dtype=DOUBLE)
    remains = 17**0.5 * rms_norm_backward(g, point, ones, 0)[0]
    run.figure(
        figures.tangent(rms_norm(point, ones, 0), g, remains),
        "tangent",
        "x = (3, 5) and g = (1, 0), as in the text, before the division by r.",
        alt="An arc with the vector x̂ from the origin to it. At its tip an arrow points right, the "
        "gradient g; a second one, what remains of it, is tangent to the arc.",
    )
    return f"At most {product.abs().max():.0e}, which is rounding: the gradient is orthogonal to x."


# %% [markdown]
# The sum is
#
# $$dx_i = \frac{g_i - \hat x_i\,\text{mean}(g \hat x)}{r}$$
#
# For $\varepsilon = 0$ it removes the component of $g$ along $\hat x$. RMSNorm forgets the length
# of $x$, so a longer $x$ can't change the loss, and no gradient may point along $x$. With a small
# $\varepsilon$, a share $\varepsilon/(m + \varepsilon)$ of that component stays. The division by
# $r$ says that an $x$ which is ten times larger gets a gradient ten times smaller. LLM05a+ does the
# same for LayerNorm.

# %% [markdown]
# ## 5. The feed-forward layer and its activation
# After attention has mixed the tokens, the **feed-forward layer** transforms each of them alone. A
# matrix $W_1$ takes its vector up to $d_\text{ff}$ numbers, usually $4d$. A nonlinear function $f$
# acts on each of these numbers, and a second matrix brings them down to $d$ again:
#
# $$\text{FFN}(x) = W_2\,f(W_1 x)$$
#
# $f$ is the **activation**. Without it the two matrices would be one, since
# $W_2(W_1 x) = (W_2 W_1)x$. Three are common:
#
# $$
# \begin{aligned}
# \text{ReLU}(x) &= \max(0, x) \\
# \text{GELU}(x) &= x\,\Phi(x) \\
# \text{SiLU}(x) &= x\,\sigma(x)
# \end{aligned}
# $$
#
# In **GELU** (Hendrycks & Gimpel 2016), $\Phi(x)$ is the probability that a standard normal number
# lies below $x$. In **SiLU** (Elfwing et al. 2017), also called Swish, $\sigma(x) = 1/(1 + e^{-x})$
# is the logistic function. Both multiply $x$ by a factor between 0 and 1: large numbers pass,
# negative ones are nearly closed off. ReLU's slope jumps from 0 to 1; the slopes of GELU and SiLU
# change gradually, and negative inputs still get a small gradient.
#
# **A gate.** A gated FFN (Shazeer 2020) has two matrices in parallel. One result goes through the
# activation and becomes the **gate**; the two are multiplied entry by entry, written $\odot$:
#
# $$
# \text{SwiGLU}(x) =
# W_\text{down} \left(\text{SiLU}(W_\text{gate}\,x) \odot W_\text{up}\,x\right)
# $$
#
# So each of the $d_\text{ff}$ numbers is multiplied by a second one, which also depends on $x$. The
# second one is near 0 where the gate's input is negative, and nearly that input where it is large.
# With SiLU this is **SwiGLU**, the FFN of Llama and of many models after it. Shazeer found lower
# losses than without a gate and offers no explanation. LLM05a+ races it.
#
# **Its width.** A gate costs a third matrix. For a fair comparison, the number of parameters should
# stay the same as with two matrices of $d \times 4d$:
#
# $$
# 3 \cdot d \cdot d_\text{ff} = 2 \cdot d \cdot 4d
# \quad\text{gives}\quad d_\text{ff} = 8d/3
# $$
#
# This is rounded up to a multiple of 8 or 256, since hardware computes in tiles of such sizes. With
# $d$ = 4,096, $8d/3$ is 10,922.7. The next multiple of 256 is the 11,008 of Llama-2-7B.


# %% Activations and SwiGLU
def gelu(x: Tensor) -> Tensor:
    """Return x times the normal distribution function."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x: Tensor) -> Tensor:
    """Return x times the logistic function."""
    return x * x.sigmoid()  # x / (1 + e⁻ˣ) has the slope NaN where e⁻ˣ is infinite


@lab.exercise(
    level=1,
    hints=(
        "Three matrices of d × d_ff should count as much as two of d × 4d.",
        "That is 8d/3, which isn't a whole number for most d.",
        "Round up with whole numbers only: // rounds down, and two minus signs turn that around.",
    ),
)
def gated_width(d_model: int, multiple: int = 8) -> int:
    """Return the inner width of a gated FFN: 8/3 of d, rounded up to a multiple of `multiple`."""
    return -(-8 * d_model // (3 * multiple)) * multiple


class SwiGLU(nn.Module):
    """A gated feed-forward layer without biases, its matrices named as in Llama."""

    def __init__(self, d_model: int, d_ff: int | None = None):
        super().__init__()
        d_ff = d_ff or gated_width(d_model)
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    @lab.exercise(
        level=1,
        hints=(
            "Two projections of x, each of width d_ff, are multiplied entry by entry.",
            "Only one of them goes through `silu`: the gate.",
            "down_proj takes the product back to width d.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself, (..., d) -> (..., d)."""
        gate = silu(self.gate_proj(x))  # (..., d_ff)
        return self.down_proj(gate * self.up_proj(x))


@lab.experiment
def swiglu_fits_the_same_budget(run: Run):
    """At d = 48, SwiGLU of width 8d/3 has as many parameters as an FFN of 4d; it equals Llama's.

    Predict: gate and up are two matrices of the same shape. May a trained model swap them?
    """
    ours = SwiGLU(48).double()
    config = LlamaConfig(hidden_size=48, intermediate_size=gated_width(48), num_attention_heads=4)
    theirs = LlamaMLP(config).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(64, 48, dtype=DOUBLE)
    run.agree("SwiGLU − transformers' LlamaMLP", ours(x) - theirs(x), decides=True)
    theirs.gate_proj, theirs.up_proj = theirs.up_proj, theirs.gate_proj
    change = ((ours(x) - theirs(x)).square().mean() / ours(x).square().mean()).sqrt()
    because = "silu(a)·b isn't silu(b)·a"
    run.check("gate and up swapped: relative change", change, at_least=0.1, because=because)
    counts = [small_gpt.parameters(ffn) for ffn in (ours, FeedForward(48), SwiGLU(48, 4 * 48))]
    difference = counts[0] - counts[1]
    run.check("d = 48: parameters − those at 4d", difference, equals=0, decides=True)
    for d, width, model in ((4096, 11_008, "Llama-2-7B"), (5120, 13_824, "Llama-2-13B")):
        run.check(f"width of {model}, d = {d:,}", gated_width(d, 256), equals=width)
    grid = torch.linspace(-6, 6, 1201, dtype=DOUBLE)
    run.agree("GELU − PyTorch's", gelu(grid) - F.gelu(grid))
    run.agree("SiLU − PyTorch's", silu(grid) - F.silu(grid))
    run.figure(
        figures.activations(
            {"ReLU": F.relu, "GELU": gelu, "SiLU": silu},
            ("GELU and SiLU dip below zero", "Only ReLU's slope jumps"),
        ),
        "activations",
        "Three activations and their slopes.",
        alt="Two line plots of ReLU, GELU and SiLU: the functions on the left, their slopes on the "
        "right, where ReLU's jumps at 0.",
    )
    return (
        f"It may not: the output changes by {100 * change:.0f} % of its size. With a gate or "
        f"without, there are {counts[0]:,} parameters. A gated layer of width 4d would have "
        f"{counts[2]:,}."
    )


# %% [markdown]
# ## 6. Positions
# "The dog bites the man." and "The man bites the dog." have the same words. Attention takes a
# weighted mean of what it reads, and each weight depends on the contents of two tokens only. If
# the earlier tokens are shuffled, the terms of the mean are shuffled and the mean is the same. So
# at the full stop, one layer of attention can't tell the two texts apart. A stack of layers can do
# so in a roundabout way, since each word has read another beginning. The direct remedy: add to each
# token's vector another vector $p_t$ that depends on its position $t$.
#
# There are two classic ways to get $p_t$:
#
# - **Learned**: a table with a row for each position, trained like all other weights. GPT-2 has
#   1,024 rows. There is no vector for position 1,024.
# - **Sinusoids** (Vaswani et al. 2017): a formula, which needs no training and holds for any $t$.
#
# Think of a row of clock hands. The first turns quickly, every next one more slowly. The fast hand
# separates neighbouring positions, but it returns after 6.3 of them. The slow ones say which turn
# it is. With $d$ numbers we get $d/2$ hands, and a hand is given by its sine and its cosine. Hand
# $i$ has the frequency $\omega_i = 10000^{-2i/d}$, and
#
# $$p_{t,\,2i} = \sin(\omega_i t) \qquad p_{t,\,2i+1} = \cos(\omega_i t)$$
#
# **By hand.** For $d = 4$ the frequencies are $1$ and $10000^{-2/4} = 0.01$. So
# $p_0 = (0, 1, 0, 1)$, and $p_1$ contains sine and cosine of 1 and of 0.01: it is
# $(0.84, 0.54, 0.01, 1.00)$.
#
# The dot product of two such vectors depends only on their distance, since
# $\sin a \sin b + \cos a \cos b = \cos(a - b)$:
#
# $$p_t \cdot p_s = \sum_i \cos\left(\omega_i (t - s)\right)$$
#
# On the whole this falls with the distance, wherever in the text the two are; the fast hands add
# ripples. But attention multiplies both
# vectors by learned matrices before it compares them, and then this need no longer hold. LLM05b
# continues from here: RoPE builds the distance into attention itself.


# %% Positions
@lab.exercise(
    level=2,
    hints=(
        "You need an angle for each position and each hand: (T, 1) times (d/2,).",
        "The exponent is −2i/d, for i = 0 … d/2 − 1: the first hand has the frequency 1.",
        "Sine and cosine of a hand are neighbours: stack them on a new last axis, then flatten.",
    ),
)
def sinusoid(length: int, d_model: int) -> Tensor:
    """Return the vectors of positions 0 … length − 1, (T, d), in float64.

    Entries 2i and 2i + 1 of position t are sine and cosine of t · 10000^(−2i/d).
    """
    positions = torch.arange(length, dtype=DOUBLE)
    frequencies = 10000 ** (-torch.arange(0, d_model, 2, dtype=DOUBLE) / d_model)  # (d/2,)
    angles = positions[:, None] * frequencies  # (T, d/2)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)  # (T, d/2, 2) -> (T, d)


class Sinusoid(Position):
    """Sinusoidal positions, for texts of up to `length` tokens."""

    table: Tensor  # (T, d)

    def __init__(self, length: int, d_model: int):
        super().__init__()
        self.register_buffer("table", sinusoid(length, d_model).float())

    def embed(self, x: Tensor) -> Tensor:
        """Add each token's position, (B, T, d) -> (B, T, d)."""
        return x + self.table[: x.shape[1]]


def spread_at_one_distance(products: Tensor) -> float:
    """Return the largest difference between two entries of a diagonal, (T, T)."""
    diagonals = (products.diagonal(offset) for offset in range(-400, 401, 16))
    return max((entries.max() - entries.min()).item() for entries in diagonals)


@lab.experiment
def attention_needs_positions(run: Run):
    """One attention layer ignores the order of earlier tokens; with sinusoids it doesn't.

    Predict: the fastest hand is back after 6.3 positions. Is p₀ · p₆ as large as p₀ · p₀?
    """
    d = 64
    attention = Attention(d).double()
    x = torch.randn(1, 8, d, dtype=DOUBLE)  # (B, T, d)
    shuffled = x[:, [3, 0, 5, 1, 6, 2, 4, 7]]  # the last token stays the last
    difference = attention(x)[:, -1] - attention(shuffled)[:, -1]
    what = "earlier tokens shuffled: change at the last token"
    run.agree(what, difference, decides=True)
    table = sinusoid(512, d)
    difference = attention(x + table[:8])[:, -1] - attention(shuffled + table[:8])[:, -1]
    change = difference.square().mean().sqrt()
    because = "each token has another position: random weights show it"
    run.check("the same with sinusoids (RMS)", change, at_least=1e-3, because=because, decides=True)
    products = table @ table.T  # (T, T)
    because = "float64: sums of 32 cosines of up to 512"
    spread = spread_at_one_distance(products)
    run.check("dot products at one distance: spread", spread, at_most=1e-10, because=because)
    matrix = torch.randn(d, d, dtype=DOUBLE) / math.sqrt(d)
    spread = spread_at_one_distance(table @ matrix @ table.T)
    because = "the sums no longer depend on the distance alone; their spread is √d/2 = 4"
    run.check("the same with a random matrix between", spread, at_least=1, because=because)
    run.figure(
        figures.sinusoids(table),
        "sinusoid",
        "Sinusoids for d = 64. Left: the table. Right: the dot product with position 0, which is "
        "the same from any other position.",
        alt="Left, a heat map of positions by entries: quick stripes in the left columns, nearly "
        "constant ones on the right. Right, a line that falls from 32 with small waves.",
    )
    same, six = products[0, 0], products[0, 6]
    return f"No: p₀ · p₀ is {same:.0f} and p₀ · p₆ is {six:.1f}. The slower hands have moved on."


# %% [markdown]
# ## 7. Pre-LN and Post-LN
# Now the parts become a block. One question is left: where does the norm stand? The first
# transformer (Vaswani et al. 2017) has it *after* the sum, **Post-LN**. Since GPT-2, many models
# have it *in front of the branch*, **Pre-LN**:
#
# $$
# \begin{aligned}
# \text{Post-LN:}\quad x &\leftarrow \text{norm}(x + f(x)) \\
# \text{Pre-LN:}\quad x &\leftarrow x + f(\text{norm}(x))
# \end{aligned}
# $$
#
# Here $f$ is a branch, attention or FFN. Each branch has a separate norm with a separate gain, so a
# block has two of them.
#
# The difference looks small. Follow the residual stream upwards in the figure below. Under Pre-LN
# nothing stands on it: the input of the first block reaches the last block's output by additions
# only, and so does the gradient on its way back. Under Post-LN the stream passes two norms in every
# block. If a branch adds the variance $c$ to a stream of variance 1, the norm divides the sum by
# $\sqrt{1 + c}$, and everything from below with it. With $c = 0.23$ and 12 norms, a factor of
# $1.23^{-6} = 0.29$ remains of the embedding, and of the gradient on this path.
#
# The sizes differ, too. Under Post-LN the stream leaves each block with the size 1. Under Pre-LN
# every branch adds something, so the stream grows. A model with Pre-LN has one more norm at its
# end, so that the scores get vectors of a known size.
#
# Where does 0.23 come from? Our matrices start with the variance 2 / (inputs + outputs). A normed
# vector has $d$ entries of variance 1, so an entry of $W_1 x$ has the variance
# $d \cdot 2/(5d) = 0.4$. For such entries $\text{GELU}^2$ is 0.145 on average, and $W_2$ multiplies
# it by $4d \cdot 2/(5d) = 1.6$. So an FFN adds $1.6 \cdot 0.145 = 0.23$. Attention's matrices keep
# variances, and its mean lowers them: it adds between 0 and 1.


# %% The blocks
class Block(nn.Module):
    """The parts of a block; its two versions differ in `forward`."""

    def __init__(self, d_model: int):
        super().__init__()
        self.attention_norm = LayerNorm(d_model)
        self.attention = Attention(d_model)
        self.ffn_norm = LayerNorm(d_model)
        self.ffn = FeedForward(d_model)


class PreNormBlock(Block):
    """A block with a norm in front of each branch."""

    @lab.exercise(
        level=1,
        hints=(
            "There are two steps of the form x = x + branch(norm(x)).",
            "Attention comes first; the FFN gets the stream with attention's result in it.",
            "Add to x itself, not to the normed x: the stream passes no norm.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.ffn(self.ffn_norm(x))


class PostNormBlock(Block):
    """A block with a norm after each sum."""

    @lab.exercise(
        level=1,
        hints=(
            "There are two steps of the form x = norm(x + branch(x)).",
            "Attention comes first; the FFN gets the normed result.",
            "The norm acts on the sum, not on the branch alone.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = self.attention_norm(x + self.attention(x))
        return self.ffn_norm(x + self.ffn(x))


BLOCKS: dict[str, type[nn.Module]] = {"Pre-LN": PreNormBlock, "Post-LN": PostNormBlock}


class Decoder(nn.Module):
    """A small language model, (B, T) tokens -> (B, T, V) scores of each next token.

    The embedding's entries start with variance 1, the entries of each matrix with
    2 / (inputs + outputs), as Glorot & Bengio (2010) recommend.
    """

    def __init__(
        self,
        vocabulary: int,
        d_model: int,
        layers: int,
        placement: str,
        position: Position | None = None,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.position = position or Position()
        self.blocks = nn.Sequential(*(BLOCKS[placement](d_model) for _ in range(layers)))
        self.norm = LayerNorm(d_model) if placement == "Pre-LN" else nn.Identity()
        self.unembedding = nn.Linear(d_model, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores (logits) of each next token, (B, T) -> (B, T, V)."""
        x = self.position.embed(self.embedding(tokens))  # (B, T, d)
        return self.unembedding(self.norm(self.blocks(x)))


@lab.experiment
@torch.no_grad()
def post_norm_keeps_the_streams_size(run: Run):
    """Before training, eight Pre-LN blocks let the stream grow as derived; Post-LN's has size 1.

    Predict: the stream enters with size 1. How large is it after eight Pre-LN blocks?
    """
    corpus = small_gpt.shakespeare()
    tokens = corpus.windows(32, 64)[:, :-1]  # (B, T)
    sizes: dict[str, list[float]] = {}
    for name in BLOCKS:
        model = Decoder(len(corpus.characters), 64, 8, name)
        x = model.embedding(tokens)  # (B, T, d)
        sizes[name] = [x.square().mean().sqrt().item()]
        for block in model.blocks:
            x = block(x)
            sizes[name].append(x.square().mean().sqrt().item())
    off = [abs(size - 1) for size in sizes["Post-LN"][1:]]
    because = "the last step is a norm with γ = 1 and β = 0: its mean square is σ²/(σ² + ε)"
    run.check("Post-LN: distance from 1", off, at_most=1e-4, because=because)
    because = "√(1 + 8·0.23) with the FFNs alone; √(1 + 8·1.23) if attention adds its most, 1"
    growth = sizes["Pre-LN"][-1] / sizes["Pre-LN"][0]
    bounds = {"at_least": 1.69, "at_most": 3.3}
    run.check("Pre-LN: growth in 8 blocks", growth, **bounds, because=because, decides=True)
    run.figure(
        figures.placements(),
        "placements",
        "A block in both versions, read from below.",
        alt="Left, Pre-LN: norms stand in the branches, the stream's line is unbroken. "
        "Right, Post-LN: two norms stand on the vertical line.",
    )
    run.figure(
        figures.stream_sizes(sizes),
        "stream",
        "The size of the residual stream before training, for one random start.",
        alt="A line plot of the size over the number of blocks: Pre-LN rises, Post-LN stays at 1.",
    )
    block = Block(64)
    parts = {"attention": block.attention, "feed-forward layer": block.ffn}
    counts = {name: small_gpt.parameters(part) for name, part in parts.items()}
    counts["two norms"] = 2 * small_gpt.parameters(block.ffn_norm)
    total = sum(counts.values())
    rows = [[name, count, f"{count / total:.1%}"] for name, count in counts.items()]
    run.table("What a block costs, d = 64", ["", "parameters", "share"], rows)
    return f"It leaves them with the size {sizes['Pre-LN'][-1]:.2f}."


# %% [markdown]
# **Which one bears a higher learning rate?** We train both on Shakespeare's plays, character by
# character, with six blocks each. The **loss** is the mean of $-\ln p$, where $p$ is the
# probability that the model gave to the character that came next. Its unit is the **nat**. Two
# simple predictors serve as baselines. One gives all $V$ characters the same probability; its loss
# is $\ln V$. The other knows how often each character occurs, and nothing else.
#
# The optimizer is AdamW, which LLM08 explains. Its **learning rate** says how far each step moves
# the weights, and falls to 0 during the training. We use two rates: a comparison at a single rate
# may only show that this rate suits one side better. Each combination runs with three seeds. A seed
# decides the random start and the order of the training text. In the figure, a line is the mean of
# the seeds, and its band reaches from the lowest to the highest one. The losses of single batches
# jump, so each point is the mean of 20 steps.
#
# Two rates are more than one, but neither side gets its best rate here. And there is no
# **warm-up**, a slow rise of the rate at the start. Post-LN is used with warm-up. LLM05a+ compares
# both placements at two blocks with it, each at the best rate of a grid. LLM05b goes deeper.


# %% Placement in training
LOW = 0.001
HIGH = 0.01
LAST = 20  # steps at the end of a training, whose mean loss is compared


@lab.experiment
def pre_norm_bears_a_higher_rate(run: Run):
    """Six blocks, two rates: Post-LN ends above Pre-LN, and by more at the higher rate.

    Predict: the rate is raised from 0.001 to 0.01. Whose final loss falls?
    """
    sizes = run.pick(
        tiny=Sizes(32, 32, 8, 130), small=Sizes(96, 64, 32, 600), full=Sizes(192, 128, 64, 3000)
    )
    vocabulary = len(small_gpt.shakespeare().characters)
    position = Sinusoid(sizes.length, sizes.d_model)

    def make_model(name: str, sizes: Sizes) -> Decoder:
        return Decoder(vocabulary, sizes.d_model, 6, name, position)

    losses = by_rate(run, make_model, list(BLOCKS), (LOW, HIGH), sizes)
    ends = {  # (seeds,) each
        lr: {name: curve[:, -LAST:].mean(-1) for name, curve in arms.items()}
        for lr, arms in losses.items()
    }
    gaps = {lr: arms["Post-LN"] - arms["Pre-LN"] for lr, arms in ends.items()}
    because = "Xiong et al. 2020: at the start, Post-LN's gradients near the output are large"
    expected: dict[str, Any] = {"unit": "nats", "expect_at_least": 0, "because": because}
    for lr, gap in gaps.items():
        what = f"learning rate {lr:g}: Post-LN − Pre-LN"
        run.measure(what, gap.tolist(), decides=True, **expected)
    growth = (gaps[HIGH] - gaps[LOW]).tolist()
    run.measure("how much larger it is at the higher rate", growth, decides=True, **expected)
    known = small_gpt.unigram(small_gpt.shakespeare().train[None])
    gain = {name: (ends[LOW][name] - ends[HIGH][name]).mean().item() for name in BLOCKS}
    better = gain["Pre-LN"] > 0 > gain["Post-LN"]
    title = "Only Pre-LN gains from the higher rate" if better else "Two placements at two rates"
    run.figure(
        figures.training_curves(losses, LAST, known, title),
        "placement",
        f"Six blocks without warm-up; running means of {LAST} steps. Dotted: the loss of a model "
        "that knows only how often each character occurs.",
        alt="Two panels, one for each learning rate, with the training loss of both placements "
        "as curves with bands, and a dotted line.",
    )
    changes = [
        f"{name} ends {abs(x):.2f} nats {'lower' if x > 0 else 'higher'}"
        for name, x in gain.items()
    ]
    stuck = (ends[HIGH]["Post-LN"] - known).mean()
    return (
        f"At the higher rate {' and '.join(changes)} than at the lower one. There, Post-LN's loss "
        f"minus that of frequencies alone is {stuck:+.2f}."
    )


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    name = "pre_norm_bears_a_higher_rate"
    low = mean(results.values(name, f"learning rate {LOW:g}: Post-LN − Pre-LN"))
    high = mean(results.values(name, f"learning rate {HIGH:g}: Post-LN − Pre-LN"))
    return (
        "## In this run\nPost-LN's loss minus Pre-LN's, six blocks without warm-up, mean of three "
        f"seeds: {low:.2f} nats at the learning rate {LOW:g}, {high:.2f} at {HIGH:g}."
    )


# %% [markdown]
# ## 8. What to remember
# - **LayerNorm** subtracts the mean and divides by the standard deviation, for each token alone. It
#   forgets scale and shift. **RMSNorm** divides by the root mean square and forgets the scale.
# - ε stands inside the root: it limits the factor to $1/\sqrt\varepsilon$, and autograd's result
#   stays finite.
# - With $\varepsilon = 0$, the gradient of a norm has no part along the direction that it forgets.
# - **SwiGLU** has three matrices. Its width $8d/3$ keeps the number of parameters.
# - One layer of attention doesn't see the order of earlier tokens; **positions** supply it.
# - **Pre-LN** leaves the residual stream without norms, and the stream grows. **Post-LN** norms it
#   at every step. Which learning rates a model bears depends on this, as the numbers of this run
#   show.
# - Compare two designs at more than one learning rate and with several seeds, and change one thing
#   at a time.
#
# What holds here was measured on small models and short trainings. LLM05b stacks more blocks and
# looks at their gradients and at warm-up, the usual help for Post-LN. Norms have few parameters, as
# the table in section 7 shows. Time is another matter, since a norm waits for memory.
#
# **Read on**: Ba et al. 2016, *Layer Normalization* · Zhang & Sennrich 2019, *Root Mean Square
# Layer Normalization* · Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture*
# · Shazeer 2020, *GLU Variants Improve Transformer* · Vaswani et al. 2017, *Attention Is All You
# Need*.

# %%
if __name__ == "__main__":
    lab.main()
