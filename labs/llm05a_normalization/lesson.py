# %% [markdown]
# # LLM05a · Normalization techniques
# The parts of a transformer block, and where its norms stand.
#
# **You will be able to** write LayerNorm and RMSNorm and say what each forgets and where ε belongs.
# You choose the width of a SwiGLU layer and compute sinusoidal positions. From your parts you build
# a Pre-LN and a Post-LN block, and compare how they train, each at the best of four learning rates.
# **Builds on** LLM02's gradients, LLM03's matrix products and LLM04's tokens. **Takes** 40 minutes
# to read and a minute to run at `tiny` on 2 cores. LLM05a+ derives the gradients of both norms,
# times the norms, compares tables of positions and races activations.

# %% Imports
import math
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import figures, training, view_data
from labs.llm05a_normalization.black_box import Attention
from labs.llm05a_normalization.training import Decoder, Sizes
from labs.shared import small_gpt
from labs.shared.small_gpt import FeedForward, MakeLayer, Position

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

lab = Lab("LLM05a")
lab.argument("--steps", type=int, help="train this many steps in section 6")
DOUBLE = torch.float64

# %% [markdown]
# ## 1. A block, and what attention is for
# A language model reads tokens and gives each possible next token a score. Inside the model, each
# token is a vector of $d$ numbers. The model looks up this vector in a table, the **embedding**. It
# adds a vector for the token's position and sends the result through a stack of **blocks**. At the
# end stands another table, the **unembedding**, with a row for each token of the vocabulary. The
# dot product of the vector with a row is the score of that token. A model that predicts the next
# token from the earlier ones is called a **decoder**.
#
# A block has two **branches**, attention and a feed-forward layer. A branch computes something from
# the vectors, and the result is *added* to them. This addition is the **residual connection** of He
# et al. 2016. The vectors that run through the model and collect the results are the **residual
# stream**.
#
# **What is attention for?** Take the text "The cat that chased the mice was tired". To predict
# "was" and not "were", a model must know that the subject is "cat", five words back. A layer that
# works on each token alone can't know this. **Attention** lets a token read from others. For every
# token, it computes a weighted mean of vectors made from that token and from the tokens before it.
# The weights depend on what the tokens contain, so the model learns what to look for. LLM06 opens
# attention; here it is a black box with three properties:
#
# - It takes and returns vectors of the shape $(B, T, d)$, for $B$ texts of $T$ tokens.
# - It is **causal**: token $t$ reads tokens $0$ to $t$ and no later ones. Otherwise a model could
#   copy the token that it should predict.
# - One layer of it doesn't know the order of the tokens that it reads, as section 5 shows.
#
# The **feed-forward layer**, FFN for short, then transforms each token alone, with the same weights
# for every token. It holds most of a block's parameters.
#
# A **norm** in front of each branch scales every vector to the same **size**. In this lab, the size
# of a vector is the root of the mean of its squared entries, **RMS** for short.


# %% Attention, a black box
@lab.experiment
def only_attention_reads_other_tokens(run: Run):
    """A change of one token reaches later tokens through attention, but not through the FFN.

    Predict: token 4 of 0 to 7 changes. Which of attention's eight outputs change?
    """
    x = torch.randn(1, 8, 32, dtype=DOUBLE)  # (B, T, d)
    changed = x.clone()
    changed[0, 4] = torch.randn(32, dtype=DOUBLE)
    changes: list[Tensor] = []
    for part in (FeedForward(32), Attention(32)):
        difference = part.double()(changed) - part(x)
        changes.append(difference[0].square().mean(-1).sqrt().detach())  # (T,)
    ffn, attention = changes
    run.agree("feed-forward layer, other tokens", ffn[torch.arange(8) != 4], decides=True)
    run.check(
        "feed-forward layer, token 4", ffn[4], at_least=1e-2, because="new input; rounding is 1e-16"
    )
    run.agree("attention, earlier tokens", attention[:4], decides=True)
    because = "no random weight of the mean is 0; rounding is 1e-16"
    what = "attention, smallest change from token 4 on"
    run.check(what, attention[4:].min(), at_least=1e-4, because=because, decides=True)
    figures.show(run, "block", figures.model_and_block())
    drawn = figures.who_reads_whom(("The", "cat", "was", "tired"))
    figures.show(run, "reading", drawn)
    count = int((attention > 1e-9).sum())
    return f"{count} of 8 change: those of token 4 and of the tokens after it."


# %% [markdown]
# ## 2. Two norms
# Without a norm, the output of a branch grows with its input. So each block multiplies the size of
# the stream by a factor, and many factors are multiplied: 1.1 to the power of 100 is 14,000. A norm
# in front of the branch ends this: from $x$ and from $10x$, the branch gets the same input.
#
# **LayerNorm** (Ba et al. 2016) takes the vector $x$ of one token. It subtracts the mean $\mu$ of
# the $d$ entries and divides by their standard deviation. Two learned vectors then multiply and
# shift each entry: the **gain** $\gamma$ and the **bias** $\beta$.
#
# $$\mu = \frac{1}{d} \sum_i x_i \qquad \sigma^2 = \frac{1}{d} \sum_i (x_i - \mu)^2$$
#
# $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \qquad y = \gamma \hat x + \beta$$
#
# **RMSNorm** (Zhang & Sennrich 2019) is simpler. It subtracts nothing, has no bias, and divides by
# the root of the mean square $m$. The small number $\varepsilon$ avoids a division by zero.
#
# $$m = \frac{1}{d} \sum_i x_i^2 \qquad \hat x = \frac{x}{\sqrt{m + \varepsilon}} \qquad
# y = \gamma \hat x$$
#
# **By hand.** Take $x = (3, 5)$ with $\gamma = 1$, $\beta = 0$ and $\varepsilon = 0$. The mean is 4
# and the standard deviation 1, so LayerNorm returns $(-1, 1)$. The squares 9 and 25 have the mean
# 17 with the root 4.12, so RMSNorm returns $(0.73, 1.21)$.
#
# Two details matter when you write them. All means run over the last axis only: each token is
# normed alone. And $\sigma^2$ is divided by $d$, not by $d - 1$ as in `Tensor.std`. Training often
# uses 16-bit numbers, which are too coarse for these means. So both norms first convert $x$ to
# float32 with `wide`, and convert only the result back. `wide` leaves float64 as it is.
#
# **Why not BatchNorm?** In image networks, BatchNorm takes the mean and the variance of each entry
# over all examples of a batch. In a decoder, these would include the other texts and the later
# tokens, which a token must not depend on.


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
    """Return LayerNorm of x, (..., d), in x's dtype; gain and bias are (d,)."""
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
    """Return RMSNorm of x, (..., d), in x's dtype; gain is (d,)."""
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
# the mean. RMSNorm doesn't: entries with mean 0 and size 1 now have the mean square $1 + 9 = 10$,
# and RMSNorm divides $x + 3$ by $\sqrt{10}$. So with $\varepsilon = 0$, LayerNorm forgets the
# **scale** and the **shift** of $x$, and RMSNorm forgets the scale only. Both keep the sign: $-x$
# gives $-\hat x$.
#
# The figure shows it for vectors of two numbers. RMSNorm moves each vector along its ray to the
# circle of radius $\sqrt 2$, where the mean square is 1. LayerNorm first moves it to the line where
# the mean is 0. Only two results are left: they show which number is larger, and no more.
#
# A step of $x$ along a forgotten direction can't change the loss. So with $\varepsilon = 0$, the
# gradient that arrives at $x$ has no part along it. LLM05a+ derives it.


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
    because = "√((1 − 1/√10)² + 9/10) = 1.17; over 16,384 numbers chance moves it by 0.5 %"
    bounds = {"at_least": 0.98 * 1.17, "at_most": 1.02 * 1.17}
    run.check("RMSNorm of x + 3 − of x (RMS)", change, **bounds, because=because, decides=True)
    drawn = figures.norms_in_two_dimensions(layer_norm, rms_norm)
    figures.show(run, "two_dimensions", drawn)
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
# What if $\varepsilon$ stands outside the root, in the denominator $\sqrt m + \varepsilon$? Then
# the threshold is $\varepsilon$ itself, so $10^{-5}$ limits the factor only to 100,000. A larger
# $\varepsilon$ would repair that. But whatever $\varepsilon$ is, a vector of zeros destroys the
# training step. The norm's slope is finite there, but autograd multiplies the slope of the root by
# that of the mean square, $2x/d$. At zero they are infinity and 0, and infinity times 0 is NaN. In
# the view below, move the scale past $\sqrt\varepsilon$.


# %% Where ε belongs
@lab.experiment
def epsilon_belongs_inside_the_root(run: Run):
    """Inside the root, ε limits RMSNorm's slope to 1/√ε. Outside, autograd returns NaN at zero.

    Predict: entries of size 0.001 and ε = 0.00001. Which size do they have after RMSNorm?
    """

    def rms_norm_outside(x: Tensor, eps: float = 1e-5) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True).sqrt() + eps)

    signs = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    ones = torch.ones(2, dtype=DOUBLE)
    sizes = torch.logspace(-8, 2, 41, dtype=DOUBLE)
    x = (sizes[:, None] * signs).requires_grad_()  # (41, 2)
    inside, outside = (norm(x)[:, 0] for norm in (partial(rms_norm, gain=ones), rms_norm_outside))
    expected = sizes / (sizes**2 + 1e-5).sqrt()
    run.agree("size after − s / √(s² + ε), 41 sizes", inside - expected)
    slopes = [torch.autograd.grad(y.sum(), x)[0].abs().max() for y in (inside, outside)]
    run.check("largest slope", slopes[0], at_most=316.228, because="1/√ε", decides=True)
    run.check("the same, ε outside", slopes[1], at_least=90_000, because="near 0 it is 1/ε")
    zero = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(rms_norm(zero, ones).sum(), zero)
    run.agree("slope at 0 − 1/√ε", slope - 1e-5**-0.5, 1e-9, decides=True)
    for eps in (1e-5, 0.003):
        (broken,) = torch.autograd.grad(rms_norm_outside(zero, eps).sum(), zero)
        lost = bool(broken.isnan().all())
        run.check(f"ε = {eps:g} outside: NaN at 0?", lost, equals=True, decides=True)
    curves = {"ε inside the root": inside, "ε outside": outside}
    figures.show(run, "epsilon", figures.epsilon(sizes, curves, 1e-5))
    run.view("norms", "norms", *view_data.norms(layer_norm, rms_norm))
    after = rms_norm(1e-3 * signs, ones).abs().mean()
    return f"They have the size {after:.2f}, not 1: they lie below √ε = 0.0032."


# %% [markdown]
# ## 4. The feed-forward layer and its activation
# A matrix $W_1$ takes a token's vector up to $d_\text{ff}$ numbers, usually $4d$. A nonlinear
# function $f$ acts on each of them, and a second matrix brings them down to $d$ again:
#
# $$\text{FFN}(x) = W_2\,f(W_1 x)$$
#
# $f$ is the **activation**. Without it, a single matrix, $W_2 W_1$, could replace the two. Three
# activations are common:
#
# $$\text{ReLU}(x) = \max(0, x) \qquad \text{GELU}(x) = x\,\Phi(x) \qquad
# \text{SiLU}(x) = x\,\sigma(x)$$
#
# In **GELU** (Hendrycks & Gimpel 2016), $\Phi(x)$ is the probability that a standard normal number
# lies below $x$. In **SiLU** (Elfwing et al. 2017), also called Swish,
# $\sigma(x) = \frac{1}{1 + e^{-x}}$ is the logistic function. Both multiply $x$ by a factor between
# 0 and 1. Large numbers pass almost unchanged. Negative ones become small: GELU's lowest value is
# −0.17, SiLU's −0.28.
#
# **A gate.** A gated FFN (Shazeer 2020) has two matrices in parallel. One result goes through the
# activation and becomes the **gate**; the two are multiplied entry by entry, written $\odot$:
#
# $$\text{SwiGLU}(x) =
# W_\text{down} \left(\text{SiLU}(W_\text{gate}\,x) \odot W_\text{up}\,x\right)$$
#
# With SiLU the layer is called **SwiGLU**, the FFN of Llama and of many models after it. Shazeer
# found lower losses with a gate and offers no explanation. LLM05a+ races it.
#
# **By hand.** Let $W_\text{gate}\,x = (2, -1)$ and $W_\text{up}\,x = (3, 3)$. The gate is
# $(\text{SiLU}(2), \text{SiLU}(-1)) = (1.76, -0.27)$, so $W_\text{down}$ reads the products
# $(5.28, -0.81)$. So the name is loose: this gate can multiply an entry by more than 1, or by a
# negative number down to −0.28.
#
# **Its width.** A gate costs a third matrix. For a fair comparison, the number of parameters should
# stay the same as with two matrices of $d \times 4d$:
#
# $$3 \cdot d \cdot d_\text{ff} = 2 \cdot d \cdot 4d
# \quad\text{gives}\quad d_\text{ff} = 8d/3$$
#
# This is rounded up to a multiple of 8 or 256, sizes at which matrix products run fast. With $d$ =
# 4,096, $8d/3$ is 10,922.7. The next multiple of 256 is the 11,008 of Llama-2-7B. Attention has
# four matrices of $d \times d$, so either FFN holds about two thirds of a block's parameters.


# %% Activations and SwiGLU
def gelu(x: Tensor) -> Tensor:
    """Return x · Φ(x), with Φ(x) = (1 + erf(x / √2)) / 2."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x: Tensor) -> Tensor:
    """Return x times the logistic function."""
    return x * x.sigmoid()  # x / (1 + e⁻ˣ) has the slope NaN where e⁻ˣ is infinite


@lab.exercise(
    level=1,
    hints=(
        "Three matrices of d × d_ff should count as much as two of d × 4d.",
        "That is 8d/3, which isn't a whole number for most d.",
        "Round up: −(−a // b), or math.ceil(a / b). Then multiply by `multiple`.",
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
    """SwiGLU is Llama's FFN. At d = 48 it has as many parameters as two matrices of width 4d.

    Predict: how many times as many would it have with the width 4d?
    """
    ours = SwiGLU(48).double()
    config = LlamaConfig(hidden_size=48, intermediate_size=gated_width(48), num_attention_heads=4)
    theirs = LlamaMLP(config).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(64, 48, dtype=DOUBLE)
    run.agree("SwiGLU − transformers' LlamaMLP", ours(x) - theirs(x), decides=True)
    layers = (FeedForward(48), ours, SwiGLU(48, 4 * 48))
    plain, gated, wider = map(small_gpt.parameters, layers)
    run.check("d = 48: parameters, SwiGLU − plain FFN", gated - plain, equals=0, decides=True)
    run.check("width of Llama-2-7B, d = 4,096", gated_width(4096, 256), equals=11_008)
    figures.show(run, "gate", figures.feed_forward_layers())
    functions = {"ReLU": F.relu, "GELU": gelu, "SiLU": silu}
    titles = ("GELU and SiLU dip below zero", "Only ReLU's slope jumps")
    drawn = figures.activations(functions, titles, "Three activations and their slopes.")
    figures.show(run, "activations", drawn)
    return f"{wider / gated:g} times as many: {wider:,} in place of {gated:,}."


# %% [markdown]
# ## 5. Positions
# "The dog bites the man." and "The man bites the dog." have the same words. Attention takes a
# weighted mean, and its weights depend on what the tokens contain, not on where they stand. If the
# earlier tokens are shuffled, the terms of the mean are shuffled and the mean is the same. So at
# the full stop, one layer of attention can't tell the two texts apart. A second layer can: in one
# text "dog" has read "The", in the other "The man bites the", so its vector differs. A more direct
# way is to add to each token's vector another vector $p_t$ that depends on its position $t$.
#
# There are two classic ways to get $p_t$:
#
# - **Learned**: a trained table with a row for each position. GPT-2's has 1,024 rows.
# - **Sinusoids** (Vaswani et al. 2017): a formula that has a vector for any $t$, without training.
#
# Think of a row of clocks with one hand each. All hands start at 12. The first turns quickly, every
# next one more slowly. A hand is two numbers, the sine and the cosine of its angle, so $d$ numbers
# hold $d/2$ hands. At position $t$, hand $i$ has turned by $\omega_i t$ radians, with the frequency
# $\omega_i = 10000^{-2i/d}$:
#
# $$p_{t,\,2i} = \sin \omega_i t \qquad p_{t,\,2i+1} = \cos \omega_i t$$
#
# The first hand has $\omega_0 = 1$. It separates neighbouring positions, but it is back after
# $2\pi$ = 6.3 of them. The slower hands say which turn it is.
#
# **By hand.** For $d = 4$ the frequencies are $1$ and $10000^{-2/4} = 0.01$. So
# $p_0 = (0, 1, 0, 1)$ and, with the angles 1 and 0.01, $p_1 = (0.84, 0.54, 0.01, 1.00)$.


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


@lab.experiment
def attention_needs_positions(run: Run):
    """One attention layer ignores the order of earlier tokens; with sinusoids it doesn't.

    Predict: at position 6 the first hand is almost back. For d = 64, where is the second one?
    """
    d = 64
    attention = Attention(d).double()
    x = torch.randn(1, 8, d, dtype=DOUBLE)  # (B, T, d)
    shuffled = x[:, [3, 0, 5, 1, 6, 2, 4, 7]]  # the last token stays the last
    difference = attention(x)[:, -1] - attention(shuffled)[:, -1]
    run.agree("earlier tokens shuffled: change at the last token", difference, decides=True)
    table = sinusoid(512, d)
    difference = attention(x + table[:8])[:, -1] - attention(shuffled + table[:8])[:, -1]
    change = difference.square().mean().sqrt()
    because = "each token gets another position vector; rounding is 1e-16"
    run.check("the same with sinusoids (RMS)", change, at_least=1e-3, because=because, decides=True)
    drawn = figures.sinusoids(table[:128], (0, 1, 6, 100), (0, 1, 4, 8))
    figures.show(run, "sinusoid", drawn)
    first, second = (math.atan2(*table[6, 2 * i : 2 * i + 2]) / math.tau % 1 for i in (0, 1))
    return f"It has made {second:.2f} of a turn, and the first hand {first:.2f}."


# %% [markdown]
# ## 6. Pre-LN and Post-LN
# Now the parts become a block. One question is left: where does the norm stand? The
# transformer of Vaswani et al. has it *after* the sum, **Post-LN**. Since GPT-2, many models have
# it *in front of the branch*, **Pre-LN**:
#
# $$\text{Post-LN:}\quad x \leftarrow \text{norm}(x + f(x)) \qquad
# \text{Pre-LN:}\quad x \leftarrow x + f(\text{norm}(x))$$
#
# Here $f$ is a branch, attention or FFN. Each branch has a separate norm.
#
# Three differences follow from the two formulas.
#
# - **What the stream passes.** Under Pre-LN, the input of the first block reaches the last block's
#   output by additions only, and a gradient comes back the same way. Under Post-LN both pass two
#   norms in every block.
# - **What a branch reads.** Under Pre-LN it is always a normed vector. Under Post-LN the first
#   attention reads embedding and position as they are, and every later branch a normed vector.
# - **How large the stream is.** Under Pre-LN it grows, and the model has one more norm at its end.
#   Under Post-LN its size is 1 after each block, as long as $\gamma = 1$ and $\beta = 0$.
#
# Does Post-LN's gradient vanish in all those norms? Before training it doesn't, since the branches
# carry gradients, too. LLM05b derives how the stream grows and probes the gradients of blocks.
#
# The experiment follows the mean through one layer, as a mark that can be seen. Each LayerNorm
# subtracts it before a branch reads it, so keeping it is no advantage by itself. It shows that
# nothing stands in the stream's way under Pre-LN.


# %% By hand
@lab.experiment
def pre_norm_passes_on_what_post_norm_forgets(run: Run):
    """With a branch that doubles its input, Pre-LN keeps the stream's mean; Post-LN sets it to 0.

    Predict: x = (3, 5), and the norm is LayerNorm. What is the stream after each placement?
    """

    def placed(x: Tensor) -> tuple[Tensor, Tensor]:
        ones = torch.ones(x.shape[-1], dtype=DOUBLE)
        norm = partial(layer_norm, gain=ones, bias=0 * ones, eps=0)
        return x + 2 * norm(x), norm(x + 2 * x)

    x = torch.randn(64, 16, dtype=DOUBLE)
    pre, post = placed(x)
    run.agree("Pre-LN: mean after − mean before", (pre - x).mean(-1), decides=True)
    run.agree("Post-LN: mean after", post.mean(-1), decides=True)
    figures.show(run, "placements", figures.placements())
    pre, post = (f"({a:.0f}, {b:.0f})" for a, b in placed(torch.tensor([3, 5], dtype=DOUBLE)))
    return f"Pre-LN: (3, 5) + 2 · (-1, 1) = {pre}, with the mean 4 of x. Post-LN: (9, 15) → {post}."


# %% The blocks
class Block(nn.Module):
    """The parts of a block; its two versions differ in `forward`."""

    def __init__(self, d_model: int, norm: MakeLayer = LayerNorm, ffn: MakeLayer = SwiGLU):
        super().__init__()
        self.attention_norm = norm(d_model)
        self.attention = Attention(d_model)
        self.ffn_norm = norm(d_model)
        self.ffn = ffn(d_model)


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


def make_decoder(name: str, sizes: Sizes) -> Decoder:
    """Return an untrained model of four blocks; Pre-LN has one more norm at its end."""
    d = sizes.d_model
    norm = RMSNorm if name == "RMSNorm" else LayerNorm
    block = PostNormBlock if name == "Post-LN" else PreNormBlock
    last = nn.Identity() if name == "Post-LN" else norm(d)
    return Decoder([block(d, norm) for _ in range(4)], d, last, Sinusoid(sizes.length, d))


# %% [markdown]
# **Which placement trains better?** We train both on Shakespeare's plays, a token for each
# character, with four blocks of your parts: LayerNorm, SwiGLU, and sinusoids at the entry. The
# **loss** is the mean of $-\ln p$, where $p$ is the probability that the model gave to the
# character that came next. Its unit is the **nat**. We measure the loss on validation text, plays
# that no model was trained on. A simple **baseline** knows how often each character occurs there,
# and nothing else.
#
# The optimizer is Adam, which LLM08 explains. Its learning rate falls to 0 during the training. A
# fair comparison needs three things.
#
# - **Each side at its best rate.** A single rate may suit one side only. So we train both at four
#   rates and compare the lowest mean losses. Is the lowest one at the edge of the four? Then a
#   better rate may lie beyond. The validation text both chooses the rate and judges it, so a gap
#   as small as the spread of the seeds would say nothing.
# - **Three seeds.** A seed decides the random start and the windows of text.
# - **Enough steps.** The loss of a model that is no better than the baseline says little about its
#   blocks. `tiny` takes 200 steps of 16 texts with 16 characters. Check that each curve falls
#   below the baseline.
#
# There is no **warm-up**, a slow rise of the rate at the start, which LLM05b adds. Xiong et al.
# (2020) report that Pre-LN trains well without it and that Post-LN needs it, because its gradients
# near the output are large at the start. We measure the losses and don't test this cause.


# %% Placement in training
RATES = (0.001, 0.003, 0.01, 0.03)
BEST = "Post-LN − Pre-LN, each at its best rate"
COMMON = {rate: f"Post-LN − Pre-LN, both at {rate:g}" for rate in RATES}
RMS = "Pre-LN: RMSNorm − LayerNorm, at LayerNorm's best rate"


@lab.experiment
def pre_norm_ends_lower_at_its_best_rate(run: Run):
    """Without warm-up, four Pre-LN blocks end below Post-LN, each at the best of four rates.

    Predict: at which of the rates 0.001, 0.003, 0.01 and 0.03 do the two differ most?
    """
    sizes = run.pick(
        tiny=Sizes(32, 16, 16, 200), small=Sizes(96, 64, 32, 1000), full=Sizes(192, 128, 64, 3000)
    )
    sizes = replace(sizes, steps=run.options.steps or sizes.steps)
    outcomes = training.by_rate(run, make_decoder, ["Pre-LN", "Post-LN"], RATES, sizes)
    best = training.best_rates(run, outcomes)
    pre, post = training.losses(outcomes).values()
    because = "Xiong et al. 2020: without warm-up, Post-LN trains worse"
    expected: dict[str, Any] = {"unit": "nats", "expect_at_least": 0, "because": because}
    gap = training.minus(post[best["Post-LN"]], pre[best["Pre-LN"]])
    run.measure(BEST, gap, decides=True, **expected)
    gaps = {rate: training.minus(post[rate], pre[rate]) for rate in RATES}
    for rate, name in COMMON.items():
        run.measure(name, gaps[rate], unit="nats")
    run.measure("steps of each training", sizes.steps)
    rate = best["Pre-LN"]
    llama = training.losses(training.by_rate(run, make_decoder, ["RMSNorm"], [rate], sizes))
    run.measure(RMS, training.minus(llama["RMSNorm"][rate], pre[rate]), unit="nats")
    drawn = figures.rates_and_curves(outcomes, best, training.frequencies(sizes))
    figures.show(run, "placement", drawn)
    most = max(gaps, key=lambda rate: mean(gaps[rate]))
    rates = " and ".join(f"{rate:g} for {name}" for name, rate in best.items())
    return f"At {most:g}, by {mean(gaps[most]):.2f} nats. The best of the four rates is {rates}."


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    values = partial(results.values, "pre_norm_ends_lower_at_its_best_rate")
    gap, change, steps = (mean(values(name)) for name in (BEST, RMS, "steps of each training"))
    common = ", ".join(f"{mean(values(name)):+.2f} at {rate:g}" for rate, name in COMMON.items())
    return (
        f"## In this run\nFour blocks, {steps:g} steps without warm-up, means of three seeds. With "
        f"each at its best rate, Post-LN's loss minus Pre-LN's is {gap:+.2f} nats. At a common "
        f"rate it is {common}. At LayerNorm's best rate, RMSNorm's loss minus LayerNorm's is "
        f"{change:+.4f}."
    )


# %% [markdown]
# ## 7. What to remember
# - **LayerNorm** subtracts the mean and divides by the standard deviation; it forgets scale and
#   shift. **RMSNorm** divides by the root mean square and forgets the scale.
# - ε inside the root limits the factor to $1/\sqrt\varepsilon$ and keeps autograd's result finite.
# - **SwiGLU** has three matrices. Its width $8d/3$ keeps the number of parameters.
# - One layer of attention doesn't see the order of earlier tokens; **positions** supply it.
# - **Pre-LN** leaves the residual stream without norms. **Post-LN** norms it after every sum.
# - Compare two designs each at its best learning rate, with several seeds and for enough steps.
# - A gap belongs to a model and a length of training. With `--steps 800` and the seeds 0 to 2, ours
#   was 0.09 nats. At 0.001 and 0.003, both placements then had the same mean loss within 0.01 nats.
#   Pre-LN led because its best rate was 0.01. There Post-LN was worse than at 0.003, and at 0.03 it
#   stayed at the baseline.
#
# **Read on**: Ba et al. 2016, *Layer Normalization* · Zhang & Sennrich 2019, *Root Mean Square
# Layer Normalization* · Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture*
# · Shazeer 2020, *GLU Variants Improve Transformer*.

# %%
if __name__ == "__main__":
    lab.main()
