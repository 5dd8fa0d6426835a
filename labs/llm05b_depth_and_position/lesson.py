# %% [markdown]
# # LLM05b · Advanced normalization
# Stack transformer blocks so that they train, and tell attention where each token stands.
#
# **You will be able to** stack blocks and probe the signal and the gradient in each; say why
# Pre-Norm is stable and what warm-up does; port a norm between Llama and Gemma; write RoPE and
# ALiBi; choose an encoding for texts longer than those in training. **Builds on** LLM05a: norms,
# the feed-forward layer, sinusoids. **Takes** 45 minutes to read and a minute to run (`tiny`, 2
# cores).

# %% Imports
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from statistics import mean, stdev
from typing import Any, NamedTuple

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import Sinusoid, rms_norm, wide
from labs.llm05b_depth_and_position import figures, training, view_data
from labs.llm05b_depth_and_position.training import LONG, Outcome, difference, lower_limit
from labs.shared import small_gpt
from labs.shared.small_gpt import FeedForward, Learned, Position, attend

import torch
from torch import Tensor, nn

lab = Lab("LLM05b")
lab.argument("--tune", action="store_true", help="search the rates of section 7 at tiny, too")
DOUBLE = torch.float64
PLACEMENTS = ("Post-LN", "Pre-LN", "no norm")

# %% [markdown]
# ## 1. A block, and attention in half a page
# A transformer turns each token into a vector of $d$ numbers and passes the vectors through $L$
# blocks. The vectors between the blocks are the **residual stream** $x$. A block adds two things to
# the stream: the output of **attention**, which mixes tokens, and the output of the **feed-forward
# layer** (FFN), which treats each token alone. A norm stands before each of them (Pre-LN) or after
# each sum (Post-LN). LLM05a derives both norms and both blocks.
#
# Attention needs three vectors for each token. Learned matrices compute them from $x$:
#
# - the **query** $q = W_q x$ is what the token looks for,
# - the **key** $k = W_k x$ is what the token can be found by,
# - the **value** $v = W_v x$ is what the token passes on.
#
# The **score** of a query and a key is $q \cdot k / \sqrt{D}$, where $D$ is their width. A softmax
# turns the scores of a query into weights, and the output is the weighted mean of the values. The
# mask is **causal**: a token sees itself and earlier tokens only.
#
# Take $q = (2, 0)$ and three tokens. Their keys are $(1, 0)$, $(0, 1)$ and $(1, 1)$, their values
# 1, 5 and 3. The products are 2, 0 and 2, the scores 1.41, 0 and 1.41, the weights 0.446, 0.108
# and 0.446, and the output is 2.33. Now swap the first two tokens: the output is the same. A query
# does not see the order of the tokens before it. So attention needs positions.
#
# One softmax gives one set of weights. So a model has $H$ **heads**: each has $D = d/H$ of the $d$
# entries of $q$, $k$ and $v$, and a last matrix mixes their outputs. This is all that we need here;
# LLM06 builds attention from scratch.
#
# A position can act at three places, which the code below names after what it does there. `embed`
# adds a vector to the stream. `turn` changes queries and keys. `bias` adds a number to each score.
# Sections 5 to 7 compare five ways to use them.
#
# In shapes, $B$ is the number of texts and $T$ the number of tokens in each.


# %% Attention, a block, a stack
def split_heads(x: Tensor, heads: int) -> Tensor:
    """Give each head its own axis, (B, T, H·D) -> (B, H, T, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Causal attention; a position may rotate q and k, or add a bias to the scores."""

    def __init__(self, d_model: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d_model, d_model, bias=False)
        self.k = nn.Linear(d_model, d_model, bias=False)
        self.v = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Mix the tokens, (B, T, d) -> (B, T, d)."""
        q = position.turn(split_heads(self.q(x), self.heads))  # (B, H, T, D)
        k = position.turn(split_heads(self.k(x), self.heads))  # (B, H, T, D)
        v = split_heads(self.v(x), self.heads)  # (B, H, T, D)
        bias = position.bias(self.heads, x.shape[1])  # (H, T, T), or None
        mixed = attend(q, k, v, bias)  # softmax(q·k/√D + bias) times v
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, H·D)


class Block(nn.Module):
    """Attention and a feed-forward layer, with norms where `placement` says."""

    def __init__(self, d_model: int, placement: str = "Pre-LN"):
        super().__init__()
        self.placement = placement
        self.attention = Attention(d_model)
        self.ffn = FeedForward(d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        if self.placement == "Pre-LN":
            x = x + self.attention(self.norm1(x), position)
            return x + self.ffn(self.norm2(x))
        if self.placement == "Post-LN":
            x = self.norm1(x + self.attention(x, position))
            return self.norm2(x + self.ffn(x))
        x = x + self.attention(x, position)  # no norm
        return x + self.ffn(x)


class Stack(nn.Module):
    """A language model of given blocks, (B, T) tokens -> (B, T, V) logits of each next token.

    Pre-LN needs one more norm, `last_norm`, because nothing else brings the stream back to size 1.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        d_model: int,
        last_norm: bool = True,
        position: Position | None = None,
        vocabulary: int = 0,
    ):
        super().__init__()
        vocabulary = vocabulary or len(small_gpt.shakespeare().characters)
        self.embedding = nn.Embedding(vocabulary, d_model)  # entries of variance 1
        self.position = position or Position()  # the default adds no positions
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(d_model) if last_norm else nn.Identity()
        self.unembedding = nn.Linear(d_model, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)  # variance 2 / (inputs + outputs)

    @lab.exercise(
        level=1,
        hints=(
            "Start with self.embedding(tokens); self.position.embed adds positions to it.",
            "Each block needs the stream and self.position, and returns the new stream.",
            "After the last block come self.norm and then self.unembedding.",
        ),
    )
    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T) -> (B, T, V)."""
        x = self.position.embed(self.embedding(tokens))  # (B, T, d)
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(self.norm(x))


def build(placement: str, layers: int, d: int, seed: int, position: Any = None) -> Stack:
    """Return an untrained stack; the seed determines its weights."""
    torch.manual_seed(seed)
    blocks = [Block(d, placement) for _ in range(layers)]
    return Stack(blocks, d, last_norm=placement == "Pre-LN", position=position)


# %% [markdown]
# ## 2. Signal and gradient in a stack
# Stack 32 untrained blocks. How large is the stream after each, and how large is the gradient that
# reaches each? The **size** of a vector is here the root of the mean square of its entries.
#
# **Forwards.** In Post-LN a norm follows each sum, so the size is 1 after every block. In Pre-LN
# nothing normalizes the stream. Each branch reads a normalized input and adds an output of about
# the same size in every block. The outputs are independent and have mean 0, so their products
# cancel on average, and the mean squares add up. If each block adds a mean square of $c$, then
# after $L$ blocks
#
# $$\text{size} = \sqrt{1 + cL}$$
#
# We can bound $c$ for our start. Each matrix starts with independent normal entries of the variance
# 2/(inputs + outputs), after Glorot & Bengio (2010). The FFN goes from $d$ to $4d$ and back, so
# both of its matrices have the variance $2/(5d)$:
#
# - The input is normalized, so a hidden unit is a sum of $d$ terms and has the variance
#   $d \cdot 2/(5d) = 0.4$. GELU turns such numbers into a mean square of 0.146. The second matrix
#   sums $4d$ of them: $4d \cdot 2/(5d) \cdot 0.146 = 0.23$ is what the FFN adds.
# - $W_v$ and $W_o$ go from $d$ to $d$ and keep a mean square of 1. Attention adds a weighted mean
#   of values. The size of a mean is at most the mean of the sizes, so attention adds between 0 and
#   1.
#
# Together $0.23 \le c \le 1.23$, on average over the random matrices. After 32 blocks the size is
# between 2.9 and 6.4.
#
# Without any norm a branch reads the stream as it is, and its output grows with it. The size is
# then multiplied in every block.
#
# **Backwards.** In Pre-LN the last norm divides the stream by its size. Its derivative contains the
# same division: if the stream is 4 times as large, its gradient is a quarter. So is the gradient of
# the last block's weights, because that block's branches read a normalized input. In Post-LN there
# is no such factor. Xiong et al. (2020, Theorem 1) prove bounds for the last FFN's gradient: the
# bound shrinks with $L$ in Pre-LN and does not depend on $L$ in Post-LN.
#
# The probe below measures gradients. The norm of a module's gradient is the root of the sum of
# *all* squares, over all its parameters.


# %% Probes
@lab.exercise(
    level=2,
    hints=(
        "After loss.backward() each parameter p of a module has its gradient in p.grad.",
        "Sum the squares over all entries of all parameters, and take one root at the end.",
        "A frozen parameter has p.grad = None: skip it.",
    ),
)
def gradient_norms(modules: Iterable[nn.Module]) -> list[float]:
    """Return the norm of each module's gradient; call it after `loss.backward()`.

    Parameters without a gradient count as 0. Nothing is changed.
    """
    norms = []
    for module in modules:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        norms.append(math.sqrt(sum(g.double().square().sum().item() for g in gradients)))
    return norms


class Start(NamedTuple):
    """An untrained stack, by block."""

    sizes: list[float]  # of the stream after each block
    gradients: list[float]  # the norm of each block's gradient


@cache
def at_start(placement: str, layers: int, d: int, seed: int) -> Start:
    """Return the stream's sizes and the gradients' norms of an untrained stack."""
    model = build(placement, layers, d, seed).double()  # without norms float32 would overflow
    sizes: list[float] = []
    for block in model.blocks:
        block.register_forward_hook(lambda *a: sizes.append(a[2].square().mean().sqrt().item()))
    training.mean_loss(model, small_gpt.shakespeare().windows(8, 32)).backward()
    return Start(sizes, gradient_norms(model.blocks))


def depths(run: Run) -> list[int]:
    """Return the numbers of blocks: 2, 4, … 32, and up to 128 at `small` and `full`."""
    return [2**n for n in range(1, run.pick(tiny=6, small=8, full=8))]


def width(run: Run) -> int:
    """Return the width of untrained stacks."""
    return run.pick(tiny=64, small=128, full=512)


FFN_ADDS = 0.2328  # of c: what the FFN adds, 1.6 · E[gelu(z)²] for z of variance 0.4


@lab.experiment
def pre_norm_lets_the_stream_grow(run: Run):
    """In untrained Pre-LN stacks the stream grows with depth and the last block's gradient
    shrinks; in Post-LN stacks the stream keeps its size and the last gradient does not shrink.

    Predict: after 32 Pre-LN blocks, how many times as large is the stream as before the first?
    """
    fig = figures.draw_blocks()
    run.figure(
        fig,
        "blocks",
        "The norm's place. In Post-LN the stream itself passes through every norm. In Pre-LN the "
        "stream is only added to, and a last norm follows the last block.",
        alt="Two diagrams of a block. Left: attention and FFN branches, each added to a vertical "
        "line, which then passes a norm. Right: the norms stand inside the branches.",
    )
    few, many = depths(run)[0], depths(run)[-1]
    starts = {
        (name, layers): [at_start(name, layers, width(run), seed) for seed in run.seeds(3)]
        for name in PLACEMENTS
        for layers in depths(run)
    }
    ends = {
        arm: (mean(s.sizes[-1] for s in seeds), mean(s.gradients[-1] for s in seeds))
        for arm, seeds in starts.items()
    }
    rows = [[*arm, *ends[arm]] for arm in ends if arm[1] in (few, many)]
    columns = ["", "blocks", "size of the stream", "gradient of the last block"]
    run.table("Untrained stacks, means of 3 seeds", columns, rows)
    sizes = {name: [s.sizes[-1] for s in starts[name, many]] for name in PLACEMENTS}
    because = "by construction: a norm's output has the mean square σ²/(σ² + ε)"
    bounds: dict[str, Any] = {"at_least": 0.9999, "at_most": 1.0001, "because": because}
    run.check("Post-LN: size of the stream", sizes["Post-LN"], **bounds)
    size = math.sqrt(mean(size**2 for size in sizes["Pre-LN"]))
    low, high = (math.sqrt(1 + c * many) for c in (FFN_ADDS, 1 + FFN_ADDS))
    because = "√(1 + cL) with c from 0.23 to 1.23 on average, as derived above"
    bounds = {"at_least": low, "at_most": high, "because": because}
    run.check("Pre-LN: size of the stream", size, **bounds, decides=True)
    falls = {
        name: [
            a.gradients[-1] / b.gradients[-1]
            for a, b in zip(starts[name, few], starts[name, many], strict=True)
        ]
        for name in PLACEMENTS
    }
    what = "the last block's gradient, fewest blocks ÷ most"
    because = "it shrinks"
    run.check(f"Pre-LN: {what}", falls["Pre-LN"], at_least=1, because=because, decides=True)
    because = "it doesn't shrink by more than a tenth: Xiong et al. 2020, Theorem 1, has no L here"
    run.check(f"Post-LN: {what}", falls["Post-LN"], at_most=1.1, because=because, decides=True)
    because = "more than Pre-LN's law can give: the size is multiplied in each block"
    run.check("no norm: size of the stream", sizes["no norm"], at_least=high, because=because)
    fig = figures.draw_starts(ends, FFN_ADDS)
    run.figure(
        fig,
        "starts",
        "Untrained stacks of L blocks, means of three seeds. Shaded: the derived band. Without "
        "norms both curves leave the panels.",
        alt="Two line plots over the number of blocks. Left, the size of the stream: flat at 1 for "
        "Post-LN, rising within a shaded band for Pre-LN, leaving the panel without norms. Right, "
        "the gradient of the last block: flat or rising for Post-LN, falling for Pre-LN.",
    )
    return f"{size:.1f} times as large after {many} blocks."


# %% [markdown]
# ## 3. Pre-Norm, the learning rate and warm-up
# Post-LN keeps its last gradient at any depth, and still it is harder to train. Why? Xiong et al.
# (2020) blame the large gradients near the output. Liu et al. (2020) blame the step, as follows.
#
# **Adam** divides each gradient by its own recent size. Its first step moves each weight by the
# full learning rate, whether its gradient is large or small. What matters then is how far the
# output moves when every weight moves a little. In Pre-LN the stream grows, so the branch of block
# $l$ is a share of about $1/\sqrt{1 + cl}$ of it: deep blocks change the output less. The sum
# $x + f(\text{norm}(x))$ also leaves a path from the loss to every block on which no norm stands
# but the last one. In Post-LN a branch's share does not fall with depth, so small changes in many
# blocks add up to a large one. LLM05b+ measures this.
#
# Two things help. A **lower learning rate** makes every step smaller, and training slower.
# **Warm-up** makes the first steps smaller: the rate rises linearly from almost 0 to its peak, then
# falls linearly to almost 0. `lr_at` in `labs/shared/small_gpt.py` computes it; LLM08 writes it.
# With 240 steps and a warm-up of 48, step 0 has 1/49 of the peak and step 48 has all of it. Later
# steps are a quarter larger than without warm-up, because the rate has fewer steps to fall in. The
# sum of all rates is the same.
#
# The experiment trains stacks of six blocks on Shakespeare, character by character. It reports the
# loss on plays that are not in the training text. A **unigram** model, which only knows how
# frequent each character is, has a loss of about 3.34 nats there. The heat maps show the gradient
# of each block during training: look for the blocks that it stops reaching. Adam rescales a small
# gradient. But where a block's gradient is a hundredth of the last block's, the loss hardly
# depends on that block any more.
#
# Three seeds give three losses. We report the lower end of the 95 % confidence interval of their
# mean, which for three values is 4.3 standard errors below it (Student's t).


# %% Warm-up
PEAK = 0.003  # learning rate


def train_placement(run: Run, placement: str, warm: bool, seed: int) -> Outcome:
    """Train a new stack with sinusoids, and probe the gradients of its blocks."""
    layers, d, length, *_ = training.deep_sizes(run)
    model = build(placement, layers, d, seed, Sinusoid(length, d))

    def probe(model: Any) -> list[float]:
        return gradient_norms(model.blocks)

    return training.train_deep(run, model, PEAK, warm, seed, probe)


@lab.experiment
def warm_up_helps_post_norm(run: Run):
    """At this learning rate and length of training, warm-up lowers the validation loss of a deep
    Post-LN stack, and a Pre-LN stack without warm-up ends lower still.

    Predict: how much of Post-LN's distance to Pre-LN does warm-up close: nothing, half, all?
    """
    arms = [(name, warm) for name in ("Post-LN", "Pre-LN") for warm in (False, True)]
    outcomes: dict[tuple[str, bool], list[Outcome]] = {}
    for arm in run.progress(arms, "2 placements, without and with warm-up, 3 seeds"):
        outcomes[arm] = [train_placement(run, *arm, seed) for seed in run.seeds(3)]
    losses = {arm: [outcome.loss for outcome in outcomes[arm]] for arm in arms}
    unigram = small_gpt.unigram(training.validation(run))
    rows = [
        [name, "with" if warm else "without", mean(losses[name, warm]), stdev(losses[name, warm])]
        for name, warm in arms
    ]
    rows.append(["unigram", "–", unigram, "–"])
    run.table("Validation loss (nats)", ["", "warm-up", "mean", "sd of 3 seeds"], rows)
    post = difference(losses["Post-LN", False], losses["Post-LN", True])
    pre = difference(losses["Pre-LN", False], losses["Pre-LN", True])
    ahead = difference(losses["Post-LN", True], losses["Pre-LN", False])
    run.measure("Post-LN: loss without − with warm-up", post, unit="nats")
    run.measure("Pre-LN: loss without − with warm-up", pre, unit="nats")
    for what, gains, because in (
        ("Post-LN: gain by warm-up", post, "Xiong et al. 2020: Post-LN needs warm-up"),
        (
            "Pre-LN without ahead of Post-LN with",
            ahead,
            "Xiong et al. 2020: Pre-LN trains without it",
        ),
    ):
        what = f"{what}, lower 95 % limit of three seeds"
        bound: dict[str, Any] = {"expect_at_least": 0.0, "because": because, "decides": True}
        run.measure(what, lower_limit(gains), unit="nats", **bound)
    fig = figures.draw_warm_up({arm: [o.curve for o in outcomes[arm]] for arm in arms}, unigram)
    run.figure(
        fig,
        "warm_up",
        "Training loss, mean of three seeds and of ten steps. Dashed: without warm-up.",
        alt="Line plot of the training loss over steps. Post-LN without warm-up stays highest, "
        "with warm-up it falls below; both Pre-LN curves lie lowest and close together.",
    )
    fig = figures.draw_gradients({arm: outcomes[arm][0].gradients for arm in arms[:3]})
    run.figure(
        fig,
        "gradients",
        "The norm of each block's gradient in training, for the first seed. Dark: a block that "
        "gets almost none.",
        alt="Three heat maps of the gradient's norm, blocks upwards and training steps to the "
        "right, for Post-LN without and with warm-up and for Pre-LN, with one colour bar.",
    )
    for arm in arms[:3]:
        lowest = [min(row[0] / row[-1] for row in outcome.gradients) for outcome in outcomes[arm]]
        name = f"{arm[0]} {'with' if arm[1] else 'without'} warm-up"
        run.measure(f"{name}: lowest gradient of block 1 ÷ last block", lowest)
    share = mean(post) / (mean(post) + mean(ahead))
    return f"Warm-up closes {share:.0%} of the distance; it gives Pre-LN {mean(pre):+.3f} nats."


# %% [markdown]
# ## 4. Two RMSNorms, and what is stored
# **RMSNorm** divides a token's numbers by their root mean square and multiplies by a learned gain
# $\gamma$ (LLM05a):
#
# $$\hat x = \frac{x}{\sqrt{\text{mean}(x^2) + \varepsilon}}, \quad y = \gamma \hat x$$
#
# Models differ in three details. They show in **bfloat16**, which stores a number to 8 significant
# bits. Rounding to it changes a number by at most $2^{-8}$, or 0.4 %, of itself.
#
# - **Statistics.** Llama and Gemma both compute the mean square in float32. If it is rounded to
#   bfloat16, all numbers of the token are wrong by the same factor.
# - **Order of casts.** Llama rounds $\hat x$ to bfloat16, multiplies by $\gamma$ and rounds again:
#   two errors. Gemma multiplies in float32 and rounds once.
# - **What is stored.** Llama stores $\gamma$, which starts at 1. Gemma stores $g = \gamma - 1$,
#   which starts at 0.
#
# Storing $g$ has two effects. Just above 1 the numbers of bfloat16 are $2^{-7} = 0.0078$ apart, so
# a gain of 1.003 is stored as 1. A $g$ of 0.003 is stored to within 0.4 % of itself. And **weight
# decay**, which pulls stored numbers towards 0, pulls Gemma's gain to 1 and Llama's gain to 0. The
# first effect needs weights that are stored in bfloat16, and gains near 1. Most training programs
# keep float32 copies.
#
# If you load Gemma's $g$ into a Llama norm, it multiplies by numbers near 0 and raises no error.


# %% Llama's norm and Gemma's
def llama_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Return RMSNorm, rounded before and after the gain, (..., d), (d,) -> (..., d)."""
    return rms_norm(x, torch.ones_like(gain)) * gain


@lab.exercise(
    level=1,
    hints=(
        "rms_norm(x, gain) computes in float32 and rounds its result once, to x's dtype.",
        "The gain is 1 + g.",
        "In bfloat16 1 + 0.003 is 1: add in float32, which `wide` returns.",
    ),
)
def gemma_norm(x: Tensor, g: Tensor) -> Tensor:
    """Return RMSNorm with the gain 1 + g, rounded once, (..., d), (d,) -> (..., d)."""
    return rms_norm(x, 1 + wide(g))


def short_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Return RMSNorm with mean square and root rounded to x's dtype, (..., d), (d,) -> (..., d)."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain


@lab.experiment
def casts_have_an_order(run: Run):
    """In bfloat16, Gemma's norm rounds once and Llama's twice, a rounded root shifts entire tokens,
    and a stored gain near 1 doesn't move in small steps where a stored g near 0 does.

    Predict: a gain in bfloat16 starts at 1 and is raised by 0.001 a hundred times. Where is it?
    """
    x = 3 * torch.randn(256, 1024).bfloat16()  # the root is far from 1, or x̂ would be x itself
    gain = (1 + torch.randn(1024) / 4).bfloat16()
    g = (gain.float() - 1).bfloat16()
    exact = rms_norm(x.double(), gain.double())
    rows = []
    for name, got, want in (
        ("Gemma's", gemma_norm(x, g), rms_norm(x.double(), 1 + g.double())),
        ("Llama's", llama_norm(x, gain), exact),
        ("all in bfloat16", short_norm(x, gain), exact),
    ):
        error = (got.double() / want - 1).nan_to_num()
        rows.append([name, error.abs().max().item(), error.mean(-1).abs().mean().item()])
    columns = ["", "largest of a number", "mean over a token, on average"]
    run.table("Relative error", columns, rows)
    (_, gemma, _), (_, llama, _), (*_, shift) = rows
    rounding = 2**-8 / (1 + 2**-8) * (1 + 1e-4)
    because = "half a unit in the last place, for a number just above a power of two"
    run.check("Gemma's: largest error", gemma, at_most=rounding, because=because, decides=True)
    because = "two roundings"
    run.check("Llama's: largest error", llama, at_most=2 * rounding, because=because, decides=True)
    because = "more than one rounding: of 262,144 numbers some are rounded twice the same way"
    run.check(
        "Llama's: largest error, again", llama, at_least=rounding, because=because, decides=True
    )
    because = (
        "mean square and root are rounded to 8 bits, and all numbers of a token share the error"
    )
    what = "all in bfloat16: shift of a token, on average"
    run.check(what, shift, at_least=2**-10, because=because, decides=True)
    because = "the partner, below that bound: roundings of at most 2⁻⁸, averaged over 1,024 numbers"
    run.check("Llama's: the same", rows[1][2], at_most=2**-10, because=because)
    gain = torch.ones(1).bfloat16()
    g = torch.zeros(1).bfloat16()
    for _ in range(100):
        gain = gain + 0.001
        g = g + 0.001
    run.check("γ = 1 after 100 steps of 0.001", gain.item(), equals=1.0, decides=True)
    because = "0.1; each sum is rounded by at most 2⁻⁸ of itself, 100 · 2⁻⁸ · 0.05 in all"
    bounds: dict[str, Any] = {"at_least": 0.08, "at_most": 0.12, "because": because}
    run.check("g = 0 after 100 steps of 0.001", g.item(), **bounds, decides=True)
    return (
        f"γ is still {gain.item():g}, g is {g.item():.3g}. Llama's largest error is {llama:.2%}; "
        f"such errors average out in a sum, but a token's shift of {shift:.2%} doesn't."
    )


# %% [markdown]
# ## 5. RoPE: positions as rotations
# Attention sees no order (section 1). LLM05a adds sinusoids to the stream, so that the position is
# part of $x$, and $W_q$ and $W_k$ mix it with the content. **RoPE** (Su et al. 2021) acts later, on
# the queries and keys themselves. It takes neighbouring entries $(a, b)$ of $q$ as a point in the
# plane and rotates it by an angle that grows with the position $t$:
#
# $$
# \begin{aligned}
# a' &= a\cos(\omega_i t) - b\sin(\omega_i t) \\
# b' &= a\sin(\omega_i t) + b\cos(\omega_i t)
# \end{aligned}
# $$
#
# Pair $i$ has the frequency $\omega_i = \theta^{-2i/D}$ for $i = 0, \ldots, D/2 - 1$, with the
# **base** $\theta = 10000$. Pair 0 turns by one radian a token; later pairs turn more slowly.
#
# Keys are rotated in the same way, values are not. Rotate $q$ by $\omega t$ and $k$ by $\omega s$:
# the angle between them changes by $\omega(t - s)$. A dot product depends only on lengths and on
# the angle between. So for given $q$ and $k$ each pair's part of $q \cdot k$ depends on the
# **offset** $t - s$ alone, and so does their sum. Take $q = k = (1, 0)$ and
# $\omega = 1$. At positions 3 and 5, $q \cdot k$ is $\cos 2 = -0.416$, and so it is at 103 and 105.
#
# Compute angles in float32 or float64. bfloat16 has 8 significant bits, so positions 256 and 257
# are the same number there: two neighbours get the same rotation. Rounded frequencies do harm too.


# %% RoPE
def angles(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Tensor:
    """Return each pair's angle in radians, positions (..., T) -> (..., T, D/2) in float64."""
    exponents = -torch.arange(0, head_dim, 2, dtype=DOUBLE) / head_dim  # (D/2,)
    return positions.to(DOUBLE)[..., None] * base**exponents


@lab.exercise(
    level=2,
    hints=(
        "x[..., ::2] has the a of all pairs, x[..., 1::2] the b: (..., T, D/2), like the angles.",
        "a cos − b sin and a sin + b cos; compute in what `wide` returns.",
        "Make the two neighbours again: stack them on a new last axis, then flatten it.",
    ),
)
def rope(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate entries 2i and 2i + 1 by angle i, (..., T, D), (..., T, D/2) -> (..., T, D).

    It computes in float32 at least and returns x's dtype.
    """
    a = wide(x)[..., ::2]
    b = wide(x)[..., 1::2]
    cos = angle.cos().to(a.dtype)
    sin = angle.sin().to(a.dtype)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Rotary(Position):
    """Rotate queries and keys; `positions` maps a length T to T positions."""

    def __init__(self, positions: Callable[[int], Tensor] = torch.arange, base: float = 10_000.0):
        super().__init__()
        self.positions = positions
        self.base = base

    def turn(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, (B, H, T, D) -> (B, H, T, D)."""
        angle = angles(self.positions(x.shape[-2]), x.shape[-1], self.base)  # (T, D/2)
        return rope(x, angle.to(x.device))


@lab.experiment
def a_rotary_score_depends_on_the_offset(run: Run):
    """RoPE's score of two vectors depends on their offset and not on where they stand.

    Predict: which of a head's pairs turn faster, the first or the last?
    """
    head_dim = 64
    offset = 7
    q = torch.randn(32, head_dim, dtype=DOUBLE) / head_dim**0.25
    k = torch.randn(32, head_dim, dtype=DOUBLE) / head_dim**0.25  # q·k has size 1

    def score(position: int, offset: int, dtype: torch.dtype = DOUBLE) -> Tensor:
        """Return the 32 scores, of angles that are computed in `dtype`."""
        frequencies = angles(torch.ones(1), head_dim).to(dtype)  # (1, D/2)
        places = torch.tensor([position, position - offset]).to(dtype)
        turned_q = rope(q, (places[0] * frequencies).double())
        turned_k = rope(k, (places[1] * frequencies).double())
        return (turned_q * turned_k).sum(-1)

    positions = (7, 100, 1_000, 10_000, 100_000)
    exact = score(offset, offset)
    moved = torch.stack([score(position, offset) - exact for position in positions])
    run.agree("same offset, other positions", moved, 1e-9, "float64 angles", decides=True)
    change = (score(offset, 0) - exact).abs().max()
    because = "the partner: 32 scores of size 1 at offset 0 instead"
    run.check("other offset", change, at_least=0.1, because=because, decides=True)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        errors = [(score(p, offset, dtype) - exact).abs().max().item() for p in positions]
        rows.append([str(dtype).removeprefix("torch."), *errors])
    run.table("Largest error of a score", ["angles in", *(f"t = {p:,}" for p in positions)], rows)
    view_data.show_rotation(run)
    last = angles(torch.ones(1), head_dim)[0, -1].item()
    return f"The first pair turns by 1 radian a token, the last by {last:.2g}."


# %% [markdown]
# ## 6. ALiBi, and what a score knows about distance
# **ALiBi** (Press et al. 2021) rotates nothing and adds nothing to the stream. It subtracts from
# each score the distance times a **slope** $m$, which is fixed for each head:
#
# $$\frac{q \cdot k}{\sqrt D} - m(t - s)$$
#
# In the softmax a token at distance $n$ then has $e^{-mn}$ times the weight. For $H$ heads, with
# $H$ a power of 2, the slopes are $2^{-8i/H}$ for $i = 1, \ldots, H$. Eight heads have 1/2, 1/4, …
# 1/256: the first looks at a few tokens, the last at hundreds.
#
# For other $H$ the paper's code takes the slopes of the next lower power of 2, $p$. Then it adds
# the 1st, 3rd, 5th … slope of $2p$ until there are $H$. Six heads have the four slopes of $p = 4$,
# which are 1/4, 1/16, 1/64 and 1/256, and then 1/2 and 1/8.
#
# Now there are five ways to treat positions. A **learned** table and **sinusoids** are added to the
# stream. RoPE rotates, ALiBi adds a bias. **NoPE** has no positions at all; the causal mask still
# reveals a little, because the first token sees one token, the second two (Haviv et al. 2022). What
# does the score of the *same* two tokens look like at different distances? If a vector was
# added for the position, $q \cdot k$ has four parts: content with content, content with position,
# position with content, position with position. Three of them change when both tokens move on
# together.


# %% ALiBi
@lab.exercise(
    level=2,
    hints=(
        "For a power of 2: 2 ** (-8 * i / n), i from 1 to n.",
        "Otherwise p = 2 ** (n.bit_length() - 1) is the largest power of 2 that isn't above n.",
        "After the p slopes of p come the first n − p of every second slope, [::2], of 2p.",
    ),
)
def alibi_slopes(heads: int) -> Tensor:
    """Return the slopes as the paper's code does, (H,) in float64."""
    lower = 2 ** (heads.bit_length() - 1)
    own, doubled = ([2 ** (-8 * i / n) for i in range(1, n + 1)] for n in (lower, 2 * lower))
    return torch.tensor(own + doubled[::2][: heads - lower], dtype=DOUBLE)


class Alibi(Position):
    """Subtract slope · distance from the scores."""

    def bias(self, heads: int, length: int) -> Tensor:
        """Return the bias, (H, T, T) over (query, key)."""
        positions = torch.arange(length)
        return -alibi_slopes(heads)[:, None, None] * (positions[:, None] - positions)


ENCODINGS = ("NoPE", "learned", "sinusoids", "RoPE", "ALiBi")


def encoding(name: str, length: int, d: int) -> Position:
    """Return an encoding for texts of up to `length` tokens."""
    makers: dict[str, Callable[[], Position]] = {
        "NoPE": Position,
        "learned": partial(Learned, length, d),
        "sinusoids": partial(Sinusoid, length, d),
        "RoPE": Rotary,
        "ALiBi": Alibi,
    }
    return makers[name]()


@lab.experiment
def rope_and_alibi_score_by_distance(run: Run):
    """With RoPE and ALiBi the score of two given tokens depends on their distance alone; with
    sinusoids in the stream of an untrained model it depends on the place, too.

    Predict: with 8 heads, at which distance does the widest ALiBi head halve a token's weight?
    """
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    length = 128
    attention = Attention(64)
    tokens = torch.randn(2, 64)  # a query token and a key token
    scores = {
        name: training.scores_of_one_pair(attention, tokens, encoding(name, length, 64), length)
        for name in ENCODINGS
    }
    spread = {name: training.spread_at_distances(scores[name]) for name in ENCODINGS}
    what = "spread over places at one distance"
    because = "float32 rounding of scores of size 1"
    run.check(f"RoPE: {what}", spread["RoPE"], at_most=1e-4, because=because, decides=True)
    because = "by construction: the bias is a function of the distance"
    run.check(f"ALiBi: {what}", spread["ALiBi"], at_most=1e-4, because=because)
    because = "the partner: terms of size 1 in the position alone"
    what = f"sinusoids: {what}"
    run.check(what, spread["sinusoids"], at_least=0.1, because=because, decides=True)
    run.measure("learned, untrained (σ = 0.02): the same", spread["learned"])
    raw = torch.randn(64, 64, dtype=DOUBLE)
    ahead = torch.ones(64, 64, dtype=torch.bool).triu(1)
    for heads in (1, 6, 8, 12):
        theirs = build_alibi_tensor(torch.ones(1, 64), heads, DOUBLE)  # (H, 1, T): + m·s
        ours = Alibi().bias(heads, 64)
        a, b = ((raw + bias).masked_fill(ahead, -math.inf).softmax(-1) for bias in (ours, theirs))
        because = "BLOOM leaves out m·t, which is the same in a row; its slopes are float32"
        run.agree(f"{heads} heads: weights, ours − BLOOM's", a - b, 1e-5, because)
    fig = figures.draw_distances(scores)
    run.figure(
        fig,
        "distance",
        "The score of the same two tokens at different distances, in head 0 of an untrained layer; "
        "ALiBi's slope there is 1/4. Bands: the range over all places. No band: the distance alone "
        "counts. ALiBi has an axis for itself.",
        alt="Five small plots of a score over the distance: flat for NoPE, flat with a thin band "
        "for a learned table, a wide band for sinusoids, a thin wave for RoPE, a falling straight "
        "line for ALiBi.",
    )
    fig = figures.draw_places()
    run.figure(
        fig,
        "places",
        "Where a position can act: on the stream, on queries and keys, or on the scores.",
        alt="A chain of boxes from embeddings to stream, queries and keys, scores and weights. A "
        "learned table and sinusoids point at the stream, RoPE at queries and keys, ALiBi at the "
        "scores; NoPE points nowhere.",
    )
    return f"ln 2 / m = {math.log(2) / alibi_slopes(8)[-1].item():.0f} tokens."


# %% [markdown]
# ## 7. Longer than in training
# Train on windows of $T$ characters and read windows of $8T$: what happens after position $T$?
#
# Some passages are harder than others, so compare the *same* characters: the last $T/2$ of each
# window. Read them once with $7.5T$ characters or more before them, and once with $T/2$ or more, as
# in training. The difference is the **cost of length**. A model that uses the additional text well
# has a negative cost.
#
# What should happen? ALiBi's steep heads give far tokens almost no weight. Its flat heads do not:
# at position 512 of four heads, and with equal content, tokens beyond a distance of 64 have 0, 2,
# 37 and 74 % of the weight. So it is not obvious that ALiBi reads on. Press et al. (2021) report
# that it reads on at no cost, and that sinusoids and RoPE fail. RoPE's fast pairs have turned all
# the way round in training, so no offset gives one of them a new angle. Its slow pairs meet new
# angles. The table's rows after $T$ were never trained: they still have their small starting
# values. These entries of about 0.02 stand beside embeddings of size 1, so a short training can
# barely learn to use the table. LLM05a varies its size.
#
# Each encoding has its own learning rate, which a search over four rates with a separate seed
# chose. `--tune` repeats the search. Two yardsticks stand in the table's last row and the verdicts:
# the **bigram**, the best guess from the last character alone, and what RoPE gains over NoPE as
# trained.


# %% Longer than in training
GRID = (0.005, 0.01, 0.02, 0.04)  # learning rates
RATES = {**dict.fromkeys(ENCODINGS, 0.02), "ALiBi": 0.04}  # the best of the grid at tiny


@cache
def trained(run: Run, name: str, seed: int, lr: float = 0.0) -> Stack:
    """Return a Pre-LN stack with this encoding, trained at `lr`, or at its best rate."""
    layers, d, length, *_ = training.long_sizes(run)
    model = build("Pre-LN", layers, d, seed, encoding(name, LONG * length, d))
    return training.train_long(run, model, lr or best_rate(run, name), seed)


@cache
def best_rate(run: Run, name: str) -> float:
    """Return the best rate for the trained length, by a seed that is used for nothing else."""
    if run.size == "tiny" and not getattr(run.options, "tune", False):
        return RATES[name]

    def loss(lr: float) -> float:
        model = trained(run, name, run.seeds(4)[3], lr)
        return training.last_half(run, training.loss_by_place(run, model, 1))

    return min(GRID, key=loss)


@lab.experiment
def alibi_reads_on_and_rope_does_not(run: Run):
    """Read at eight times the trained length, small models with ALiBi predict the same characters
    about as well, and models with RoPE clearly worse.

    Predict: and a model without any positions?
    """
    long: dict[str, list[Tensor]] = {}  # by encoding, the loss by place for each seed
    short: dict[str, list[float]] = {}  # the loss of the last T/2, read as in training
    cost: dict[str, list[float]] = {}
    rows: list[list[Any]] = []
    last_half = partial(training.last_half, run)
    for name in run.progress(ENCODINGS, "5 encodings, 3 seeds"):
        models = [trained(run, name, seed) for seed in run.seeds(3)]
        long[name] = [training.loss_by_place(run, model, LONG) for model in models]
        short[name] = [last_half(training.loss_by_place(run, model, 1)) for model in models]
        after = [last_half(losses) for losses in long[name]]
        cost[name] = difference(after, short[name])
        losses = [mean(short[name]), stdev(short[name]), mean(after), mean(cost[name])]
        rows.append([name, *(f"{loss:.3f}" for loss in losses)])
    bigram = small_gpt.bigram(training.long_windows(run))
    rows.append(["bigram", f"{bigram:.3f}", "–", "–", "–"])
    columns = ["", "as in training", "sd of 3 seeds", "8 times as long", "cost of length"]
    run.table("Loss of the same characters (nats)", columns, rows)
    gain = mean(difference(short["NoPE"], short["RoPE"]))
    upper = -lower_limit([-nats for nats in cost["ALiBi"]])
    what = "ALiBi: cost of length, upper 95 % limit of three seeds"
    because = "a tenth of what RoPE gains over NoPE as trained"
    bounds: dict[str, Any] = {"expect_at_most": 0.1 * gain, "because": because}
    run.measure(what, upper, unit="nats", **bounds, decides=True)
    what = "RoPE: cost of length, lower 95 % limit of three seeds"
    because = "more than all that it gains over NoPE as trained"
    bounds = {"expect_at_least": gain, "because": because}
    run.measure(what, lower_limit(cost["RoPE"]), unit="nats", **bounds, decides=True)
    for name in ENCODINGS:
        run.measure(f"{name}: cost of length", cost[name], unit="nats")
    length = training.long_sizes(run).length
    fig = figures.draw_lengths(long, length, bigram)
    run.figure(
        fig,
        "length",
        "Loss by place; bands: the range of three seeds. Dotted: the bigram, the best guess from "
        "the last character alone, counted on this text.",
        alt="Two line plots of the loss over the place in the text with a vertical line at the "
        "trained length. Left: ALiBi and NoPE stay flat, RoPE rises. Right: the learned table and "
        "the sinusoids.",
    )
    weak = [name for name in ENCODINGS if mean(short[name]) > bigram]
    note = f" No better than the bigram as trained: {', '.join(weak)}." if weak else ""
    return (
        f"Without positions the length costs {mean(cost['NoPE']):+.2f} nats, but such a model is "
        f"{gain:.2f} nats behind RoPE as trained.{note}"
    )


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    warm = partial(results.shown, "warm_up_helps_post_norm")
    length = partial(results.shown, "alibi_reads_on_and_rope_does_not")
    return f"""## In this run
Medians, with the range over three seeds, in nats:

- Warm-up lowers the loss of Post-LN by {warm("Post-LN: loss without − with warm-up")}, of Pre-LN by
  {warm("Pre-LN: loss without − with warm-up")}.
- Eight times the length costs ALiBi {length("ALiBi: cost of length")} and RoPE
  {length("RoPE: cost of length")}.
"""


# %% [markdown]
# ## What to remember
# - Pre-LN lets the stream grow, and its late blocks get less gradient. In Post-LN the stream keeps
#   its size, and its last block's gradient does not shrink.
# - The gradient's size at the start does not decide whether a stack trains, because Adam divides by
#   it. During training, early Post-LN blocks can get far less gradient than late ones. Warm-up
#   helps Post-LN; Pre-LN does without.
# - Norms that share a name differ in casts and in what they store. Compare a port number by number.
# - RoPE and ALiBi act on scores and know distances. Positions in the stream mix with content.
# - RoPE does not read far beyond the trained length by itself. LLM05b+ repairs it.
# - A model that ignores positions loses little by length, and pays for it at every length.
#
# **Read on**: Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture* · Liu et
# al. 2020, *Understanding the Difficulty of Training Transformers* · Su et al. 2021, *RoFormer* ·
# Press et al. 2021, *Train Short, Test Long* · Haviv et al. 2022 and Kazemnejad et al. 2023 on
# models without positions. LLM05b+ continues with the law of depth, DeepNorm, QK-norm and longer
# texts. The next lesson is LLM06, attention.

# %%
if __name__ == "__main__":
    lab.main()
