# %% [markdown]
# # LLM05a · Normalization techniques
# The parts of a transformer block, and where to put the norms.
#
# **You will be able to** write LayerNorm and RMSNorm, and to say what each forgets and where ε
# belongs. You choose the width of a SwiGLU layer and compute sinusoidal positions. From your parts
# you build Pre-LN and Post-LN blocks, and compare how they train. **Builds on** LLM02's gradients,
# LLM03's matrix products and LLM04's tokens. **Takes** 40 minutes to read, about two hours with the
# exercises, and a minute to run at `tiny` on 2 cores. LLM05a+ derives the gradients of the norms.

# %% Imports
import math
from functools import partial
from statistics import mean

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import figures, training, view_data
from labs.llm05a_normalization.black_box import Attention
from labs.llm05a_normalization.race import limits
from labs.llm05a_normalization.training import Decoder, Sizes
from labs.shared import small_gpt
from labs.shared.small_gpt import FeedForward, MakeLayer, Position

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM05a")
DOUBLE = torch.float64

# %% [markdown]
# ## 1. A block, and what attention is for
# A language model reads tokens and gives each possible next token a score. Inside the model, each
# token is a vector of $d$ numbers. The model looks up this vector in a table, the **embedding**. It
# adds a vector for the token's position and sends the result through a stack of **blocks**. The
# last part is another table, the **unembedding**, with a row for each token of the vocabulary. The
# dot product of the vector with a row is the score of that token. A model that predicts the next
# token from the earlier ones is called a **decoder**.
#
# A block has two **branches**, attention and a feed-forward layer. A branch computes something from
# the vectors, and the result is *added* to them: the **residual connection** of He et al. 2016. The
# vectors that collect the results are the **residual stream**. The first figure below shows both.
#
# **What is attention for?** Take the text "The cat that chased the mice was tired". To predict
# "was" and not "were", a model must know that the subject is "cat", five words back. A layer that
# works on each token alone can't know this. **Attention** lets a token read from others. For every
# token, it computes a weighted mean of vectors made from that token and the tokens before it. The
# weights depend on what the tokens contain. In this lab it is a black box with three properties:
#
# - It takes the vectors of $B$ texts of $T$ tokens, of shape $(B, T, d)$, and returns that shape.
# - It is **causal**: token $t$ reads tokens $0$ to $t$. Otherwise it could copy the next token.
# - One layer of it doesn't know the order of the tokens that it reads, as section 5 shows.
#
# The **feed-forward layer**, or FFN, transforms each token alone. A **norm** here is a layer, in
# front of each branch, that brings every vector to the same **size**: the root of the mean of its
# squared entries, or **RMS**. Then each entry is multiplied by a learned number, the **gain**.


# %% Attention, a black box
def rms(x: Tensor) -> Tensor:
    """Return the RMS of each vector, (..., d) -> (...)."""
    return x.square().mean(-1).sqrt()


@lab.experiment
def only_attention_reads_other_tokens(run: Run):
    """A change of one token reaches later tokens through attention, but not through the FFN.

    Predict: token 4 of 0 to 7 changes. How many of attention's outputs change? And for token 0?
    """
    x = torch.randn(1, 8, 32, dtype=DOUBLE)  # (B, T, d)
    changed = x.repeat(2, 1, 1)  # two copies of the text
    changed[0, 4] = torch.randn(32, dtype=DOUBLE)  # the first copy gets another token 4
    changed[1, 0] = torch.randn(32, dtype=DOUBLE)  # the second copy gets another token 0
    feed_forward = FeedForward(32).double()
    ffn, _ = rms(feed_forward(changed) - feed_forward(x))  # (T,) each
    black_box = Attention(32).double()
    attention, from_first = rms(black_box(changed) - black_box(x))  # (T,) each
    run.agree("feed-forward layer, other tokens", ffn[torch.arange(8) != 4], decides=True)
    run.check("feed-forward layer, token 4", ffn[4], at_least=1e-2, because="its input changed")
    run.agree("attention, earlier tokens", attention[:4], decides=True)
    because = "no random weight of the mean is 0; rounding is 1e-16"
    late = attention[4:].tolist()
    run.check("attention, token 4 on", late, at_least=1e-4, because=because, decides=True)
    figures.show(run, "block", figures.model_and_block())
    figures.show(run, "reading", figures.who_reads_whom(("The", "cat", "was", "tired")))
    counts = [int((change > 1e-9).sum()) for change in (attention, from_first)]
    return f"{counts[0]} of 8: token 4 and those after it. For token 0: {counts[1]} of 8."


# %% [markdown]
# ## 2. Two norms
# Without a norm, the output of a branch grows with its input. A factor of 1.1 in each block makes
# the stream 14,000 times as large in 100 blocks. With a norm in front of the branch, $x$ and $10x$
# give it the same input, as section 3 measures. Then the stream grows far more slowly.
#
# **LayerNorm** (Ba et al. 2016) takes the vector $x$ of one token. It subtracts the mean $\mu$ of
# the $d$ entries and divides by their standard deviation. Two learned vectors then multiply and
# shift each entry: the gain $\gamma$ and the **bias** $\beta$.
#
# $$\mu = \frac{1}{d} \sum_i x_i \qquad \sigma^2 = \frac{1}{d} \sum_i (x_i - \mu)^2 \qquad
# \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \qquad y = \gamma \hat x + \beta$$
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
# Three details matter. All means run over the last axis only: each token is normed alone. The sum
# in $\sigma^2$ is divided by $d$, not by $d - 1$ as in `Tensor.std`. And 16-bit numbers are too
# coarse for these means: convert $x$ to float32 with `wide`, a function below, and the result back.


# %% Forward
def wide(x: Tensor) -> Tensor:
    """Return x in float32; float64 is wider already and stays."""
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
    x32 = wide(x)
    centred = x32 - x32.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)  # (..., 1)
    x_hat = centred * (variance + eps).rsqrt()  # one quotient and d products, not d quotients
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
    x32 = wide(x)
    mean_square = x32.square().mean(-1, keepdim=True)  # (..., 1)
    x_hat = x32 * (mean_square + eps).rsqrt()
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
# In this section, $\gamma = 1$ and $\beta = 0$. First let $\varepsilon = 0$. Multiply $x$ by 10.
# Mean, standard deviation and size grow by the same factor, so $\hat x$ doesn't change in either
# norm. Add 3 to every entry. LayerNorm subtracts it again with the mean. RMSNorm doesn't: entries
# with mean 0 and size 1 now have the mean square $1 + 9 = 10$, and RMSNorm divides $x + 3$ by
# $\sqrt{10}$. So LayerNorm forgets the **scale** and the **shift** of $x$, RMSNorm the scale only.
#
# **Why not BatchNorm?** In image networks, BatchNorm takes the mean and the variance of each entry
# over all positions of all images in a batch. In a decoder, these would include later tokens, which
# must stay unseen, and unrelated texts, as the first figure shows. The second figure shows vectors
# of two different numbers. RMSNorm moves each along its ray to the circle where the mean square is
# 1, with the radius $\sqrt 2$. LayerNorm returns $(1, -1)$ or $(-1, 1)$.


# %% What each norm forgets
@lab.experiment
def what_each_norm_forgets(run: Run):
    """With ε = 0 both norms forget the scale of x, and LayerNorm alone forgets a shift.

    Predict: entries have mean 0 and size 1. Add 3 to each. What is the RMS of RMSNorm's change?
    """
    x = torch.randn(64, 256, dtype=DOUBLE)
    ones = torch.ones(256, dtype=DOUBLE)
    layer = partial(layer_norm, gain=ones, bias=0 * ones, eps=0)
    by_rms = partial(rms_norm, gain=ones, eps=0)
    run.agree("LayerNorm of 10x − of x", layer(10 * x) - layer(x), decides=True)
    run.agree("LayerNorm of x + 3 − of x", layer(x + 3) - layer(x), decides=True)
    run.agree("RMSNorm of 10x − of x", by_rms(10 * x) - by_rms(x), decides=True)
    change = (by_rms(x + 3) - by_rms(x)).square().mean().sqrt()
    because = "√((1 − 1/√10)² + 9/10) = 1.17; over 16,384 numbers chance moves it by 0.5 %"
    what = "RMSNorm of x + 3 − of x (RMS)"  # 1.17 ± 2 %
    run.check(what, change, at_least=1.1466, at_most=1.1934, because=because, decides=True)
    figures.show(run, "axes", figures.which_numbers())
    figures.show(run, "two_dimensions", figures.norms_in_two_dimensions(layer_norm, rms_norm))
    return f"RMSNorm's outputs change by {change:.2f}; their size was 1."


# %% [markdown]
# **Where ε belongs.** A vector of size $s$ leaves RMSNorm with the size
# $s/\sqrt{s^2 + \varepsilon}$. So $\sqrt\varepsilon$ is a threshold: 0.003 for
# $\varepsilon = 10^{-5}$. A vector far above it leaves with the size 1. One far below it grows by
# the factor 316, and a gradient on its way back by at most this factor.
#
# What if $\varepsilon$ stands outside the root, in the denominator $\sqrt m + \varepsilon$? Then
# the threshold is $\varepsilon$ itself, so $10^{-5}$ limits the factor only to 100,000. And
# whatever $\varepsilon$ is, a vector of zeros gets the gradient NaN, which spreads to the layers
# before the norm. The derivative at $x = 0$ is finite, but autograd uses the chain rule:
# $d\sqrt m/dm$ is infinite, $dm/dx = 2x/d$ is 0, and their product is NaN.
#
# **Try it** in the view below. Set the shift to 0, then lower the scale from 1 to 0.0001. At which
# scale does the size after RMSNorm fall below 0.7? Compare it with $\sqrt\varepsilon$.


# %% Where ε belongs
@lab.experiment
def epsilon_belongs_inside_the_root(run: Run):
    """For γ = 1, ε inside the root limits RMSNorm's slope to 1/√ε; outside, zeros give NaN slopes.

    Predict: entries of size 0.001 and ε = 0.00001. Which size do they have after RMSNorm?
    """

    def rms_norm_outside(x: Tensor, eps: float = 1e-5) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True).sqrt() + eps)

    signs = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    ones = torch.ones(2, dtype=DOUBLE)
    sizes = torch.logspace(-8, 2, 41, dtype=DOUBLE)
    x = (sizes[:, None] * signs).requires_grad_()  # (41, 2)
    inside = rms_norm(x, ones)[:, 0]
    outside = rms_norm_outside(x)[:, 0]
    slopes = [torch.autograd.grad(y.sum(), x)[0].abs().max() for y in (inside, outside)]
    because = "1/√ε: the slope of x/r is 1/r times a factor of at most 1"
    run.check("largest slope", slopes[0], at_most=316.228, because=because, decides=True)
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
# $W_2\,f(W_1 x)$. $f$ is the **activation**. Without it, one matrix, $W_2 W_1$, could replace both.
#
# $$\text{ReLU}(x) = \max(0, x) \qquad \text{GELU}(x) = x\,\Phi(x) \qquad
# \text{SiLU}(x) = x\,\sigma(x)$$
#
# In **GELU** of Hendrycks & Gimpel 2016, $\Phi(x)$ is the probability that a standard normal number
# lies below $x$. In **SiLU**, from the same paper and Elfwing et al. 2017, also called Swish,
# $\sigma(x) = \frac{1}{1 + e^{-x}}$ is the logistic function. Large positive numbers hardly change.
# Negative ones end between 0 and a lowest value: −0.17 for GELU, −0.28 for SiLU.
#
# **A gate.** A gated FFN (Shazeer 2020) has two matrices in parallel. One result goes through the
# activation and becomes the **gate**. It multiplies the other entry by entry, written $\odot$:
#
# $$\text{SwiGLU}(x) = W_\text{down} (\text{SiLU}(W_\text{gate}\,x) \odot W_\text{up}\,x)$$
#
# With SiLU the layer is called **SwiGLU**, the FFN of Llama and of many models after it. Shazeer
# found lower losses with a gate and offers no explanation. LLM05a+ races it.
#
# **By hand.** Let $W_\text{gate}\,x = (2, -1)$ and $W_\text{up}\,x = (3, 3)$. The gate is SiLU of
# the first, $(1.76, -0.27)$, and $W_\text{down}$ reads the products $(5.28, -0.81)$, as in the next
# figure. So the name is loose: this gate can multiply by more than 1 or by less than 0.
#
# **Its width.** A gate costs a third matrix. For a fair comparison, the number of parameters should
# stay the same as with two matrices of $d \times 4d$:
#
# $$3 \cdot d \cdot d_\text{ff} = 2 \cdot d \cdot 4d \quad\text{gives}\quad d_\text{ff} = 8d/3$$
#
# This is rounded up to a multiple of 8 or 256, sizes at which matrix products run fast. With $d$ =
# 4,096, $8d/3$ is 10,922.7, and the next multiple of 256 is the 11,008 of Llama-2-7B.


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
        "math.ceil counts the multiples that are needed; each is `multiple` wide.",
    ),
)
def gated_width(d_model: int, multiple: int = 8) -> int:
    """Return the inner width of a gated FFN: 8/3 of d, rounded up to a multiple of `multiple`."""
    return math.ceil(8 * d_model / (3 * multiple)) * multiple


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
    from transformers.models.llama import LlamaConfig, modeling_llama  # this takes seconds

    ours = SwiGLU(48).double()
    config = LlamaConfig(hidden_size=48, intermediate_size=gated_width(48), num_attention_heads=4)
    theirs = modeling_llama.LlamaMLP(config).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(64, 48, dtype=DOUBLE)
    run.agree("SwiGLU − transformers' LlamaMLP", ours(x) - theirs(x), decides=True)
    plain = small_gpt.parameters(FeedForward(48))
    gated = small_gpt.parameters(ours)
    wider = small_gpt.parameters(SwiGLU(48, 4 * 48))
    run.check("d = 48: parameters, SwiGLU − plain FFN", gated - plain, equals=0, decides=True)
    figures.show(run, "gate", figures.feed_forward_layers())
    functions = {"ReLU": F.relu, "GELU": gelu, "SiLU": silu}
    titles = ("GELU and SiLU dip below zero", "Only ReLU's slope jumps")
    drawn = figures.activations(functions, titles, "Three activations and their slopes.")
    figures.show(run, "activations", drawn)
    return f"{wider / gated:g} times as many: {wider:,} in place of {gated:,}."


# %% [markdown]
# ## 5. Positions
# "The dog bites the man." and "The man bites the dog." have the same words. Attention takes a
# weighted mean, and its weights depend on what the tokens contain, not on where they are. So at the
# full stop, one layer of attention can't distinguish the two texts. A second layer can, because
# "dog" has read other words in each.
#
# There is a more direct way: add to each token's vector a vector $p_t$ that depends only on its
# position $t$. Then the weights depend on positions, too: "dog" can count for more in one place
# than in the other. With equal weights $p_t$ wouldn't help, because the mean of all $x + p$ is the
# same in any order. A **learned** table of $p_t$ is trained, like GPT-2's with 1,024 rows.
# **Sinusoids** (Vaswani et al. 2017) are a formula for any $t$, without training.
#
# Think of a row of clocks with one hand each. The first turns quickly, every next one more slowly.
# A hand is two numbers, the sine and the cosine of its angle. At position $t$, hand $i$ has turned
# by $\omega_i t$ radians from 12, with the frequency $\omega_i = 10000^{-2i/d}$:
#
# $$p_{t,\,2i} = \sin \omega_i t \qquad p_{t,\,2i+1} = \cos \omega_i t$$
#
# The first hand has $\omega_0 = 1$. It separates neighbouring positions, but it returns after
# $2\pi$ = 6.3 of them. The slower hands show which turn it is.
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
    x = torch.randn(8, d, dtype=DOUBLE)
    texts = torch.stack((x, x[[3, 0, 5, 1, 6, 2, 4, 7]]))  # (2, T, d); the last token stays last
    first, second = attention(texts)[:, -1]  # (d,) each
    run.agree("earlier tokens shuffled: change at the last token", first - second, decides=True)
    table = sinusoid(512, d)
    first, second = attention(texts + table[:8])[:, -1]
    change = rms(first - second)
    because = "the weights now depend on x + p; rounding is 1e-16"
    run.check("the same with sinusoids (RMS)", change, at_least=1e-3, because=because, decides=True)
    nn.init.zeros_(attention.get_parameter("inside.q.weight"))  # now all weights are equal
    first, second = attention(texts + table[:8])[:, -1]
    run.agree("the same with sinusoids and equal weights", first - second)
    figures.show(run, "sinusoid", figures.sinusoids(table[:128], (0, 1, 6, 100), (0, 1, 4, 8)))
    turns = torch.atan2(table[6, ::2], table[6, 1::2]) / math.tau % 1  # of sines and cosines
    return f"It has made {turns[1]:.2f} of a turn, and the first hand {turns[0]:.2f}."


# %% [markdown]
# ## 6. Pre-LN and Post-LN
# Now the parts become a block. Where does the norm go? The transformer of Vaswani et al. has it
# *after* the sum, **Post-LN**. Many models since GPT-2 norm the branch's input instead, **Pre-LN**:
#
# $$\text{Post-LN:}\quad x \leftarrow \text{norm}(x + f(x)) \qquad
# \text{Pre-LN:}\quad x \leftarrow x + f(\text{norm}(x))$$
#
# Here $f$ is attention or the FFN, each with a separate norm. The placements differ in two ways:
#
# - **What the stream goes through.** Under Pre-LN, a path with nothing but additions leads from the
#   first block's input to the end of the last block. A gradient comes back on it unchanged. Under
#   Post-LN, every path goes through two norms in each block.
# - **How large the stream is.** Under Pre-LN it grows, and with it the scores, so the model has one
#   more norm at its end. Independent vectors add their mean squares: a stream of size 1 and 24
#   branches of size 0.5 have the mean square $1 + 24/4 = 7$ and the size 2.6. Under Post-LN the
#   size is 1 after each block as long as $\gamma = 1$ and $\beta = 0$, as at the start of training.
#
# **By hand.** Let $x = (3, 5)$, and let a branch double its input. Pre-LN adds $2 \cdot (-1, 1)$ to
# $x$ and returns $(1, 7)$; the mean is still 4. Post-LN norms $x + 2x$ and returns $(-1, 1)$.


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
            "The second formula above, twice: the block makes one step for each branch.",
            "Attention comes first; the FFN gets the stream with attention's result in it.",
            "Add to x itself, not to the normed x: the stream meets no norm.",
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
            "The first formula above, twice: the block makes one step for each branch.",
            "Attention comes first; the FFN gets the normed result.",
            "The norm acts on the sum, not on the branch alone.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        x = self.attention_norm(x + self.attention(x))
        return self.ffn_norm(x + self.ffn(x))


def make_decoder(name: str, sizes: Sizes) -> Decoder:
    """Return section 1's model with four blocks, untrained; Pre-LN has one more norm at its end."""
    d = sizes.d_model
    positions = Sinusoid(sizes.length, d)
    if name == "Pre-LN":
        return Decoder([PreNormBlock(d) for _ in range(4)], d, LayerNorm(d), positions)
    return Decoder([PostNormBlock(d) for _ in range(4)], d, nn.Identity(), positions)


# %% What the stream goes through
@lab.experiment
def pre_norm_passes_the_stream_on(run: Run):
    """If its branches return 0, a Pre-LN block returns x, and a Post-LN block norm(norm(x)).

    Predict: x has the mean 3. Which mean does each kind of block then return?
    """
    x = 3 + torch.randn(64, 8, 32, dtype=DOUBLE)  # (B, T, d)
    pre = PreNormBlock(32).double()
    post = PostNormBlock(32).double()
    for block in (pre, post):  # a branch returns 0 if its last matrix is 0
        nn.init.zeros_(block.get_parameter("attention.inside.out.weight"))
        nn.init.zeros_(block.get_parameter("ffn.down_proj.weight"))
    run.agree("Pre-LN, branches of 0: output − x", pre(x) - x, decides=True)
    normed = F.layer_norm(F.layer_norm(x, (32,)), (32,))
    run.agree("Post-LN, branches of 0: output − norm(norm(x))", post(x) - normed, decides=True)
    figures.show(run, "placements", figures.placements())
    return f"Pre-LN {pre(x).mean():.2f}, because it returns x; Post-LN {abs(post(x).mean()):.2f}."


@lab.experiment
def a_growing_stream_needs_a_last_norm(run: Run):
    """In 12 untrained blocks, Post-LN's stream keeps size 1. Pre-LN's grows, and so do its scores.

    Predict: after 12 untrained Pre-LN blocks, by which factor does the last norm reduce the scores?
    """
    # plain FFNs: without norms, SwiGLU's product of two projections would square the size
    pre = partial(PreNormBlock, 32, ffn=FeedForward)
    post = partial(PostNormBlock, 32, ffn=FeedForward)
    makes = {"Pre-LN": pre, "Post-LN": post, "no norms": partial(pre, norm=nn.Identity)}
    x = torch.randn(64, 8, 32)
    stacks = {name: training.stack(make, 12, x) for name, make in makes.items()}
    sizes = {name: stack.sizes for name, stack in stacks.items()}
    off = [abs(after - 1) for after in sizes["Post-LN"][1:]]
    because = "a norm divides by √(σ² + ε), not σ; if σ² is above 0.005, this costs less than 0.001"
    run.check("Post-LN: size after a block − 1", off, at_most=1e-3, because=because, decides=True)
    because = "12 means of t + 1 vectors add 12/(t + 1) to the square 1, 4.1 on average; √5.1 = 2.3"
    grown = sizes["Pre-LN"][-1]
    run.check("Pre-LN: size after 12 blocks", grown, at_least=1.5, because=because, decides=True)
    last = stacks["Pre-LN"].last
    unembedding = torch.randn(32, len(small_gpt.shakespeare().characters))  # (d, V)
    factor = rms(last @ unembedding).mean() / rms(F.layer_norm(last, (32,)) @ unembedding).mean()
    run.check("scores, last norm off ÷ on", factor, at_least=1.5, because=because, decides=True)
    because = "each branch grows with its input, unless that is normed"
    run.check("no norms ÷ Pre-LN: size", sizes["no norms"][-1] / grown, at_least=1, because=because)
    for name, stack in stacks.items():
        run.measure(f"{name}: gradient before the first block ÷ after a last norm", stack.gradient)
    figures.show(run, "stack", figures.stream_sizes(sizes))
    return f"By {factor:.1f}; the stream's size is {grown:.1f}, and the last norm makes it 1."


# %% [markdown]
# **Why might the placement matter?** Three rows of the card show the gradient of the stream. It
# starts at random behind a last norm and comes back through 12 untrained blocks. With norms in the
# blocks, in either place, it arrives about one to two times as large. Without norms, it arrives
# many times as large. So this gradient doesn't explain why one place would train better. Two
# explanations are about *weights*. Xiong et al. 2020 blame large gradients of Post-LN's weights
# near the output. Liu et al. 2020 blame how far a step of the weights moves the output. The sizes
# show how: a branch of size 0.5, at right angles to the stream, turns a stream of size 1 by 27°,
# and one of size 3 by 9°. So in Pre-LN, late branches turn it less. LLM05b measures both.
#
# **Which placement trains better?** We train both on Shakespeare's plays, a token for each
# character, with four blocks of your parts: LayerNorm, SwiGLU, and sinusoids at the entry. The
# **loss** is the mean of $-\ln p$ in **nats**. Here $p$ is the probability that the model gave to
# the character that came next. We measure it on text that no model was trained on. LLM08 explains
# the optimizer, Adam. Its learning rate falls to 0. There is no **warm-up**, a slow rise of the
# rate at the start. Xiong et al. report that Post-LN needs it and Pre-LN doesn't. A fair test has:
#
# - **Four rates for each side.** A single rate may suit one side only, so each side counts at its
#   best of four. A better one may lie between or outside, so a loss may be too high. We choose
#   by the loss that we report, so it may be slightly too low. Neither error is in the limits.
# - **Four seeds.** A seed fixes the random start and the windows of text, which both sides share.
#   If both were equally good, each gap would be above 0 with the chance 1/2, and all four with
#   $(1/2)^4 = 1/16$. That is too likely, so both **95 % limits** of the mean gap must be above 0.
#   LLM01's lie two standard errors from the mean. Four gaps show their spread only roughly, so ours
#   lie 3.2 errors from it, by Student's t. This assumes that gaps are about normal.
# - **Enough steps.** A model must beat a **baseline** that knows only how often each character
#   occurs. A higher bar is the best table of pairs, which predicts from the last character. At
#   `tiny` probably neither side reaches it. So we compare how fast they learn, not how far.


# %% Placement in training
RATES = (0.0025, 0.005, 0.01, 0.02)
BEST = "Post-LN − Pre-LN, each at the best of four rates"
COMMON = {rate: f"Post-LN − Pre-LN, both at {rate:g}" for rate in RATES}


@lab.experiment
def pre_norm_ends_lower_without_warm_up(run: Run):
    """After a short training without warm-up, Pre-LN ends below Post-LN, at the best of four rates.

    Predict: at which of the rates 0.0025, 0.005, 0.01 and 0.02 do the two differ most?
    """
    sizes = training.placement_sizes(run)
    outcomes = training.by_rate(run, make_decoder, ["Pre-LN", "Post-LN"], RATES, sizes)
    best = training.best_rates(run, outcomes)
    losses = training.losses(outcomes)
    pre = losses["Pre-LN"]
    post = losses["Post-LN"]
    gap = training.minus(post[best["Post-LN"]], pre[best["Pre-LN"]])
    because = "Xiong et al. 2020: without warm-up, Post-LN trains worse"
    run.measure(BEST, gap, unit="nats")
    what = f"{BEST}: 95 % limits"
    run.measure(what, limits(gap), unit="nats", expect_at_least=0, because=because, decides=True)
    baseline = training.frequencies(sizes)
    pairs = small_gpt.bigram(training.validation_windows(sizes.length))
    run.measure("loss of the best table of pairs", pairs, unit="nats")
    because = "else the model has learned no more than how often each character occurs"
    for name, rate in best.items():
        below = [baseline - loss for loss in losses[name][rate]]
        what = f"baseline − {name}, at the best of four rates"
        run.measure(what, below, unit="nats", expect_at_least=0, because=because, decides=True)
    gaps = {rate: training.minus(post[rate], pre[rate]) for rate in RATES}
    for rate in RATES:
        run.measure(COMMON[rate], gaps[rate], unit="nats")
    figures.show(run, "placement", figures.rates_and_curves(outcomes, best, baseline))
    most = training.largest_gap(gaps)
    return f"At {most:g}: Post-LN − Pre-LN is {mean(gaps[most]):+.2f} nats."


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    values = partial(results.values, "pre_norm_ends_lower_without_warm_up")
    gap = values(BEST)
    common = ", ".join(f"{rate:g}: {mean(values(name)):+.2f}" for rate, name in COMMON.items())
    return (
        f"## In this run\nLoss of Post-LN − loss of Pre-LN without warm-up, mean of four seeds: "
        f"each at its best rate {mean(gap):+.2f} nats, by seed {min(gap):+.2f} to {max(gap):+.2f}. "
        f"Both at the same rate, {common}. The rows above show medians."
    )


# %% [markdown]
# ## 7. What to remember
# - **LayerNorm** subtracts the mean and divides by the standard deviation; it forgets scale and
#   shift. **RMSNorm** divides by the root mean square and forgets the scale.
# - ε inside the root limits the factor to $1/\sqrt\varepsilon$, for $\gamma = 1$, and avoids NaN.
# - **SwiGLU** has three matrices. With the width $8d/3$ it has as many parameters as a plain FFN.
# - One layer of attention doesn't see the order of earlier tokens; **positions** supply it.
# - **Pre-LN** leaves the stream without norms, **Post-LN** norms it after every sum. In four runs
#   at `tiny` without warm-up, 16 seeds, Post-LN's mean loss ended 0.22 to 0.30 nats higher.
# - Compare two designs at several learning rates, with several seeds, and against a baseline.
#
# **Try it**: does `invoke lab LLM05a -- --steps 800`, five minutes, change the best rates and the
# gap? Then add `norm=RMSNorm` to `post` in your sheet's `a_growing_stream_needs_a_last_norm`, and
# print `stacks["Post-LN"].last.mean(-1)`. Is the size still 1, and each token's mean 0?
#
# **Read on**: Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture* · Liu et
# al. 2020, *Understanding the Difficulty of Training Transformers*.

# %%
if __name__ == "__main__":
    lab.main()
