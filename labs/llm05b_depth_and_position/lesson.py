# %% [markdown]
# # LLM05b · Advanced normalization
# What lets a stack be deep, and what tells it where a token stands: norms' places, and positions.
#
# **You will be able to** say what depth does to a stack's gradient and to its first step; choose
# between Pre-LN, Post-LN, DeepNorm and sandwich by measuring; find the fault in a layer by asking
# it; write RoPE in both layouts and convert one into the other; write ALiBi's slopes; read texts
# longer than those trained on, and say what breaks. **Builds on** LLM05a, whose norms, sinusoids
# and fair race it goes on with, and takes attention as given (LLM06 opens it). **Takes** an hour to
# read, two minutes to run (`tiny`, 2 cores; `small` is for a GPU).

# %% Imports
import copy
import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise, product
from statistics import mean, median, stdev
from typing import Any

from labs.kit import Lab, Results, Run
from labs.llm05a_normalization import RMSNorm, Sinusoid, rms_norm, wide
from labs.llm05b_depth_and_position.planted_faults import planted
from labs.shared import small_gpt
from labs.shared.small_gpt import Config, LanguageModel, Learned, Position

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM05b")
lab.argument("--tune", action="store_true", help="search the learning rates at tiny, too")
DOUBLE = torch.float64

# %% [markdown]
# ## 1. Two RMSNorms
# RMSNorm (LLM05a) divides a token's $d$ numbers by the root of their mean square and multiplies by
# a learned gain:
#
# $$\hat x = \frac{x}{\sqrt{\text{mean}(x^2) + \varepsilon}}, \quad y = \gamma \hat x$$
#
# Not all models have the same. In bfloat16, which keeps 8 significant bits, three details show:
#
# - **The statistics** are taken in float32, by both: where the mean square is rounded, all of a
#   token's numbers are off by one factor, which no later sum averages out.
# - **The order of casts.** Llama rounds $\hat x$ to bfloat16, then multiplies by $\gamma$ and
#   rounds again. Gemma multiplies in float32 and rounds once. A rounding is off by at most half a
#   unit in the last place, $2^{-8}$ = 0.4 % of the number, two by less than twice that. It is
#   little, yet a port that mixes the orders up gives other logits than the original.
# - **What is stored.** Llama stores $\gamma$, which starts at 1. Gemma stores $g = \gamma - 1$,
#   which starts at 0. Above 1 numbers of bfloat16 lie $2^{-7}$ apart, so a gain of 1.003 is stored
#   as 1, but a $g$ of 0.003 to 0.4 % of *itself*. And weight decay, which pulls what is stored to
#   0, pulls Gemma's gain to 1, Llama's to nothing (so that gains are usually left out of it).
#
# A Gemma file in a Llama norm multiplies by $g$, numbers around 0, and nothing complains.


# %% Llama's and Gemma's
def llama_norm(x: Tensor, gain: Tensor) -> Tensor:
    """(..., d), (d,) -> (..., d): rounded before the gain, and after it."""
    return rms_norm(x, torch.ones_like(gain)) * gain


def gemma_norm(x: Tensor, g: Tensor) -> Tensor:
    """(..., d), (d,) -> (..., d): the gain is 1 + g, in float32; rounded once."""
    return rms_norm(x, 1 + wide(g))


def short_norm(x: Tensor, gain: Tensor) -> Tensor:
    """(..., d), (d,) -> (..., d): everything in x's own dtype, statistics included."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain


@lab.experiment
def a_norms_casts_have_an_order(run: Run):
    """In bfloat16 Gemma's norm is one rounding away from the exact one, Llama's two.

    Predict: d = 1024. Does it matter whether the mean square is kept in float32 or in bfloat16?
    """
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x = torch.randn(256, 1024).bfloat16()
    gain = (1 + torch.randn(1024) / 4).bfloat16()  # as trained gains are: around 1, not at it
    g = (gain.float() - 1).bfloat16()
    exact = rms_norm(x.double(), gain.double())
    orders = {
        "Gemma's": (gemma_norm(x, g), rms_norm(x.double(), 1 + g.double())),
        "Llama's": (llama_norm(x, gain), exact),
        "all in bfloat16": (short_norm(x, gain), exact),
    }
    rows = []
    for name, (got, want) in orders.items():
        off = (got.double() / want - 1).nan_to_num()
        rows.append([name, off.abs().max().item(), off.mean(-1).abs().mean().item()])
    run.table("Relative error", ["", "of a number, largest", "of a token's mean, on average"], rows)
    (_, gemma, _), (_, llama, _), (*_, common) = rows
    one, because = 2**-8 * 1.001, "half a unit in the last place; float32's part is 1e-5 of it"
    run.check("Gemma's: largest error", gemma, at_most=one, because=because, decides=True)
    because = "two roundings, each off by at most 2⁻⁸/(1 + 2⁻⁸)"
    run.check("Llama's: largest error", llama, at_most=2 * one, because=because, decides=True)
    because = "the partner: 262,144 entries, of which two roundings in one direction meet in some"
    what = "Llama's: more than one rounding"
    run.check(what, llama, at_least=one, because=because, decides=True)
    because = "one rounding costs 2⁻⁹ on average, here all of a token alike; Llama's seen: 0.0004"
    run.check("all in bfloat16: a whole token is off", common, at_least=2**-10, because=because)
    for name, theirs, ours, weight in (
        ("Gemma", GemmaRMSNorm(1024, 1e-5), gemma_norm, g.float()),
        ("Llama", LlamaRMSNorm(1024, 1e-5), llama_norm, gain.float()),
    ):
        theirs.weight.data, wide_x = weight, x.float()
        off = ours(wide_x, weight) - theirs(wide_x)
        run.agree(f"{name}: float32, less transformers'", off, 1e-5)
    wrong = rms_norm(x.float(), g.float()).square().mean().sqrt()
    because = "its g has a spread of 1/4, where 1 + g is meant"
    run.check("Gemma's g in Llama's norm: size", wrong, at_most=0.3, because=because)
    told = ", ".join(f"{name} {100 * off:.2f} %" for name, off, _ in rows)
    return f"Largest: {told}; the last is off by {100 * common:.2f} % in whole tokens, on average."


@lab.experiment
def a_gain_near_one_is_better_kept_as_its_distance(run: Run):
    """bfloat16 stores 1 + g to 2⁻⁸ of 1, but g to 2⁻⁸ of g: small steps of a gain need g.

    Predict: a gain in bfloat16 starts at 1 and is raised by 0.001 a hundred times. Where is it?
    """
    g = torch.randn(4096) / 50
    llama, gemma = (1 + g).bfloat16().double() - 1 - g.double(), g.bfloat16().double() - g.double()
    because = "numbers just above 1 lie 2⁻⁷ apart: half of that, less a little"
    off = llama.abs().max()
    what = "1 + g stored: largest error"
    run.check(what, off, at_least=2**-9, because=because, decides=True)
    off, because = (gemma / g).abs().max(), "half a unit in g's last place"
    what = "g stored: largest error / |g|"
    run.check(what, off, at_most=2**-8, because=because, decides=True)
    gain, distance = torch.ones(1).bfloat16(), torch.zeros(1).bfloat16()
    for _ in range(100):
        gain, distance = gain + 0.001, distance + 0.001
    run.check("the gain 1 after 100 steps of 0.001", gain.item(), equals=1.0, decides=True)
    because = "0.1, less or more by 100 · 2⁻⁸ · 0.05: each sum is off by at most 2⁻⁸ of itself"
    near: dict[str, Any] = {"at_least": 0.08, "at_most": 0.12, "because": because}
    run.check("the distance 0 after them", distance, **near, decides=True)
    return f"A hundred steps of 0.001: 1 stays {gain.item():g}, 0 becomes {distance.item():.3g}."


# %% [markdown]
# ## 2. Four places for a norm
# A transformer is a stack: $L$ blocks, each of two **branches** $f$, attention and feed-forward
# (FFN), whose answers are added to the **residual stream** $x$. In shapes $B$ texts have $T$ tokens
# each, a token $d$ numbers, and attention $H$ heads of $D = d/H$. A norm can stand in several
# places:
#
# | place | $x$ becomes | besides | source |
# |---|---|---|---|
# | Post-LN | $\text{norm}(x + f(x))$ | | Vaswani et al. 2017 |
# | Pre-LN | $x + f(\text{norm}(x))$ | one last norm | GPT-2; Xiong et al. 2020 |
# | sandwich | $x + \text{norm}(f(\text{norm}(x)))$ | one last norm | Ding et al. 2021; Gemma 2 |
# | DeepNorm | $\text{norm}(\alpha x + f(x))$ | matrices $\beta$ times as large | Wang et al. 2022 |
#
# Under Pre-LN nothing brings the stream back to size 1. If $x$ enters with variance 1 and each
# block adds an independent $c$, then after $L$ blocks the size (the root of the mean square) is
# $\sqrt{1 + cL}$. A sandwich norms what a branch answers, so each adds 1 whatever its matrices are,
# and the size is $\sqrt{1 + 2L}$: 8.06 at $L = 32$. Without any norm a branch answers in proportion
# to what it reads, or worse: the size is *multiplied* from block to block.
#
# **DeepNorm** chooses $\alpha$ and $\beta$ so that a training step changes the output by an amount
# that doesn't depend on $L$. Roughly (their §4): a branch whose two matrices start $\beta$ times as
# large (attention's are $W_v$ and $W_o$; $W_q$ and $W_k$, which say where to look, stay) answers a
# small change of one of them with $\beta/\alpha$ of it, since the norm divides by about $\alpha$.
# By plain gradient descent the matrix itself moves in proportion to that same $\beta/\alpha$. Two
# branches a block, two matrices each: the output moves by about
#
# $$2L \cdot \frac{\beta^2 + \beta^2}{\alpha^2}$$
#
# Setting this to 1 asks for $\alpha^2 = 4L\beta^2$. Of the pairs that satisfy it they take
# $\alpha = (2L)^{1/4}$ and the $\beta$ that follows. For $L = 24$ that is $\alpha = 2.63$.


# %% The places
@lab.exercise(
    level=1,
    hints=(
        "α is the fourth root of twice the number of blocks.",
        "β follows from α² = 4Lβ²: solve for β, and put α in.",
        "β = (8L)^(−1/4): it falls with depth, as α rises.",
    ),
)
def deepnorm(layers: int) -> tuple[float, float]:
    """α and β of a decoder with `layers` blocks (an encoder's are the same)."""
    return (2 * layers) ** 0.25, (8 * layers) ** -0.25


STACKS = ("Post-LN", "DeepNorm", "Pre-LN", "sandwich", "no norm")


def stack(name: str, layers: int, d_model: int, **more: Any) -> Config:
    """A model of `layers` blocks whose norms stand where `name` says."""
    alpha, beta = deepnorm(layers)
    changes: dict[str, Any] = {
        "Post-LN": {"placement": "post"},
        "DeepNorm": {"placement": "post", "alpha": alpha, "beta": beta},
        "Pre-LN": {"placement": "pre"},
        "sandwich": {"placement": "sandwich"},
        "no norm": {"norm": nn.Identity},
    }
    characters = len(small_gpt.shakespeare().characters)
    return Config(characters, layers, d_model, **{**changes[name], **more})


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    """The mean loss of (n, T + 1) windows, in nats per character."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@cache
def at_start(config: Config, seed: int) -> tuple[list[float], list[float]]:
    """Of an untrained model, block by block: the stream's size after it, and a gradient's norm.

    It is the gradient of the FFN's second matrix, `blocks.<i>.ffn.branch.down.weight`.
    """
    torch.manual_seed(seed)
    model: Any = LanguageModel(config)
    sizes: list[float] = []
    if config.norm is nn.Identity:
        model.double()  # scores are the stream's square: float32 ends (1e38) at some 80 blocks
    for block in model.blocks:
        block.register_forward_hook(lambda *a: sizes.append(a[2].square().mean().sqrt().item()))
    loss = loss_of(model, small_gpt.shakespeare().windows(8, 32))
    matrices = [block.ffn.branch.down.weight for block in model.blocks]
    return sizes, [g.norm().item() for g in torch.autograd.grad(loss, matrices)]


def depths(run: Run) -> list[int]:
    return [2**n for n in range(1, run.pick(tiny=6, small=8, full=8))]  # 2 to 32, or 128


def width(run: Run) -> int:
    """d of the untrained stacks."""
    return run.pick(tiny=64, small=128, full=512)


@lab.experiment
def the_stream_grows(run: Run):
    """Pre-LN's stream grows as its branches say, a sandwich's as √(1 + 2L); Post-LN's keeps size 1.

    Predict: matrices that start twice as large: what do they do to the stream after 32 blocks?
    """
    last, d, rows = depths(run)[-1], width(run), []

    def sizes(name: str, after: int = last, **more: Any) -> list[float]:
        """One a seed."""
        deepest = stack(name, last, d, **more)
        return [at_start(deepest, seed)[0][after - 1] for seed in run.seeds(3)]

    def doubled(name: str) -> list[float]:
        return [b / a for a, b in zip(sizes(name), sizes(name, beta=2.0), strict=True)]

    for name in STACKS:
        rows.append([name, *(f"{median(sizes(name, n)):.3g}" for n in depths(run))])
    run.table("Size of the stream", ["", *(f"after {n}" for n in depths(run))], rows)
    because = "2L answers of size 1, nearly independent: √(1 + 2L); dependence may take a quarter"
    how: dict[str, Any] = {"at_least": 0.75, "at_most": 1.25}
    sandwich = [size / math.sqrt(1 + 2 * last) for size in sizes("sandwich")]
    what = "sandwich: size over √(1 + 2L)"
    run.check(what, sandwich, **how, because=because, decides=True)
    because = "its answers are normed, however large the matrices are"
    run.check("sandwich, matrices doubled: times", doubled("sandwich"), **how, because=because)
    because = "the partner: two matrices a branch, so answers are at least four times as large"
    what = "Pre-LN, matrices doubled: times"
    run.check(what, doubled("Pre-LN"), at_least=2, because=because, decides=True)
    for name in ("Post-LN", "DeepNorm"):
        because = "at the start γ = 1, and an answer's mean square is σ²/(σ² + ε)"
        how = {"at_least": 0.9999, "at_most": 1.0001, "because": because}
        run.check(name, sizes(name), **how, decides=name == "Post-LN")
    times = [size ** (1 / last) for size in sizes("no norm")]
    because = "each block multiplies: seen 1.6, whatever the seed; √(1 + 2L) makes 1.07 at L = 32"
    run.check("no norm: times a block, on average", times, at_least=1.2, because=because)
    return f"After {last} blocks: " + ", ".join(f"{row[0]} {row[-1]}" for row in rows) + "."


# %% [markdown]
# ## 3. The gradient against depth
# Now backwards. Under Pre-LN the last norm divides by the size of the stream, and so does its
# gradient (LLM05a's $1/r$): what arrives at the stream is $1/\sqrt{1 + cL}$ of what left the loss.
# Xiong et al. (2020, Theorem 1) bound the gradient of the last FFN's second matrix:
# $O(d\sqrt{(\ln d)/L})$ for Pre-LN, $O(d\sqrt{\ln d})$ for Post-LN, whatever $L$. On logarithmic
# axes a slope of −½ is reached where $cL$ is far above 1, and not before: what can be fitted from
# $L = 2$ on is $a/\sqrt{1 + cL}$.
#
# Further down the gradient grows again: each branch that it passes adds to it, as it added to the
# stream on the way up. So at block $l$ there arrives about $1/\sqrt{1 + cl}$, 1 over the stream's
# size *there*.
#
# ($c$ isn't quite a constant: an FFN adds 0.23, as LLM05a works out, and attention between $1/t$,
# for an average over $t$ unlike tokens, and 1, where they are all alike, as they are the more the
# deeper. Nor does a fit find it: where $cL$ is well above 1 the curve is $L^{-1/2}$ whatever $c$,
# as the sandwich's shows, whose $c$ is 2. What is checked is gradient times stream, without any
# fit.)


# %% The gradient against depth
def fit(depths: list[int], values: list[float], power: float) -> tuple[float, float]:
    """a and c of a · (1 + c L)^power, by least squares of logarithms over c from 0.001 to 100."""
    x, y = torch.tensor(depths, dtype=DOUBLE), torch.tensor(values, dtype=DOUBLE).log()
    c = torch.logspace(-3, 2, 2001, dtype=DOUBLE)[:, None]
    left = y - power * (1 + c * x).log()  # (2001, depths): log a, and the error
    best = int(left.var(-1).argmin())
    return left[best].mean().exp().item(), c[best].item()


def show_gradients(run: Run, found: dict[str, list[list[float]]]) -> None:
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.6))
    x, deepest = torch.tensor(depths(run)), depths(run)[-1]
    for i, name in enumerate(found):
        y, line = torch.tensor(found[name]), {"color": f"C{i}", "marker": "osD^"[i], "label": name}
        left.loglog(x, y.mean(0), lw=0, **line)
        left.fill_between(x, y.amin(0), y.amax(0), color=f"C{i}", alpha=0.15)
        if name != "Post-LN":
            a, c = fit(depths(run), y.mean(0).tolist(), -0.5)
            left.loglog(x, a / (1 + c * x).sqrt(), color=f"C{i}")
        layers = [at_start(stack(name, deepest, width(run)), seed)[1] for seed in run.seeds(3)]
        right.semilogy(
            range(1, deepest + 1), torch.tensor(layers).mean(0), color=f"C{i}", label=name
        )
    left.loglog(x, 0.7 * (x / 2) ** -0.5, ":", color="grey", label="slope −½")
    left.set(xlabel="blocks L", title="Last FFN", xticks=x, xticklabels=depths(run))
    left.set_ylabel("gradient norm")
    left.minorticks_off()
    right.set(xlabel=f"block, of {deepest}", title="Each FFN")
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    caption = "Gradient of the FFN's second matrix at the start. Points: means of three seeds, "
    caption += "bands: their range, lines: a/√(1 + cL) fitted to them."
    run.figure(
        fig,
        "gradient_depth",
        caption,
        alt="Two line plots of the gradient's norm on a log scale, over the number of blocks "
        "and over the block in a model of 32, for four arrangements of norms.",
    )


@lab.experiment
def the_gradient_shrinks_under_pre_norm(run: Run):
    """At the start the last FFN's gradient shrinks as 1/√(1 + cL) under Pre-LN, not under Post-LN.

    Predict: the stream of 32 blocks is four times that of 2. How do the gradients compare?
    """
    found, streams = {}, {}
    for name in ("Post-LN", "DeepNorm", "Pre-LN", "sandwich"):
        starts = [
            [at_start(stack(name, n, width(run)), seed) for n in depths(run)]
            for seed in run.progress(run.seeds(3), name)
        ]
        found[name] = [[gradients[-1] for _, gradients in one] for one in starts]
        streams[name] = [[sizes[-1] for sizes, _ in one] for one in starts]
    told = {name: torch.tensor(g).mean(0).tolist() for name, g in found.items()}
    fitted = {name: fit(depths(run), told[name], -0.5)[1] for name in ("Pre-LN", "sandwich")}
    rows = [[name, *g, fitted.get(name, "–")] for name, g in told.items()]
    run.table("Gradient norm, mean of 3 seeds", ["", *(f"L = {n}" for n in depths(run)), "c"], rows)
    shrunk = [g[0] / g[-1] for g in found["Pre-LN"]]
    what, because = "Pre-LN: gradient at L = 2 over the deepest", "what FFNs alone add, c = 0.23"
    because += ": √((1 + 32c)/(1 + 2c))"
    run.check(what, mean(shrunk), at_least=2.39, because=because, decides=True)
    shrunk = [g[0] / g[-1] for g in found["Post-LN"]]
    because = "the partner: Xiong et al. 2020, Theorem 1, has no L for Post-LN"
    run.check("Post-LN: the same", shrunk, at_most=1.25, because=because, decides=True)
    for name in ("Pre-LN", "sandwich"):
        both = torch.tensor(found[name]).mul(torch.tensor(streams[name])).mean(0)
        because = "the gradient is 1/size of the stream; seen 1.1 to 1.4, and 3 and more without it"
        how: dict[str, Any] = {"at_most": 2, "because": because, "decides": name == "Pre-LN"}
        run.check(f"{name}: gradient · stream, largest over least", both.max() / both.min(), **how)
    deepest = stack("Pre-LN", depths(run)[-1], width(run))
    both = torch.tensor([at_start(deepest, seed) for seed in run.seeds(3)]).prod(1).mean(0)
    because = "up and down the same factors: an argument, not a theorem"
    how = {"expect_at_most": 1.5, "because": because}
    run.measure("Pre-LN: the same over the blocks of one stack", both.max() / both.min(), **how)
    (a, b), (x, y) = depths(run)[-2:], told["Pre-LN"][-2:]
    slope = math.log(y / x) / math.log(b / a)
    because = "−½ only for large cL (Xiong et al. 2020)"
    run.measure("Pre-LN: slope at the end", slope, expect_between=(-0.8, -0.35), because=because)
    show_gradients(run, found)
    ends = ", ".join(f"{name} {g[0]:.3g} → {g[-1]:.3g}" for name, g in told.items())
    return f"From L = 2 to {depths(run)[-1]}: {ends}."


# %% [markdown]
# ## 4. What one step changes
# So Post-LN, whose gradients keep their size, should train best? It doesn't: Adam divides by that
# size. Its first step moves every weight by the learning rate, whatever the gradient (LLM08 derives
# it). What counts is how far *the output* moves when every weight moves a little. Under Pre-LN the
# branches of block $l$ are $1/\sqrt{1 + cl}$ of the stream, less and less. Under Post-LN each is as
# large a part of the sum as all before it, for ever. For weights that move at *random* Liu et al.
# (2020) derive a variance of the change that grows like $L$ for Post-LN, so a size like $\sqrt L$,
# and a variance like $\ln L$ for Pre-LN. But a gradient's moves agree with each other: what $L$
# layers change adds up to $L$ times as much, not $\sqrt L$, or more.
#
# DeepNorm's promise, no growth at all, is for gradient descent. In Adam's first step each matrix
# moves as far as any other, and $2L$ branches times $\beta/\alpha$ make $2L/\sqrt{4L} = \sqrt L$.
# (At random they make $\sqrt{2L} \cdot \beta/\alpha$, again a constant.) And it is a promise about
# matrices: a norm's own gain and bias act on the whole stream, and no constant makes them smaller.


# %% One step
HOW = ("gradient, matrices", "gradient, all weights", "as far, at random", "Adam's first, matrices")


@cache
def moved(config: Config, seed: int) -> list[float]:
    """How far a small step of the blocks' weights moves the logits, root mean square, by HOW."""
    torch.manual_seed(seed)
    model, windows = LanguageModel(config), small_gpt.shakespeare().windows(8, 32)
    weights = list(model.blocks.parameters())
    gradients = torch.autograd.grad(loss_of(model, windows), weights)
    matrices = [g * (w.dim() > 1) for w, g in zip(weights, gradients, strict=True)]
    signs = [g.sign() for g in matrices]
    steps = {
        "gradient, matrices": [1e-3 * g for g in matrices],
        "gradient, all weights": [1e-3 * g for g in gradients],
        "Adam's first, matrices": [1e-5 * g for g in signs],
        "as far, at random": [1e-5 * g * torch.randn_like(g).sign() for g in signs],
    }
    with torch.no_grad():
        before, found = model(windows[:, :-1]), []
        for how in HOW:
            other = copy.deepcopy(model)
            for weight, step in zip(other.blocks.parameters(), steps[how], strict=True):
                weight -= step
            found.append((other(windows[:, :-1]) - before).square().mean().sqrt().item())
    return found


@lab.experiment
def deep_norm_bounds_what_a_step_changes(run: Run):
    """A step's effect grows with depth under Post-LN; DeepNorm keeps it, under gradient descent.

    Predict: 16 times as many blocks. How much further does one step of Adam move the output?
    """
    steps, d = depths(run)[::2], width(run)
    fig, axes = plt.subplots(1, 3, sharex=True, figsize=(7.2, 4))
    growth, rows = {}, []
    for i, name in enumerate(STACKS[:4]):
        seeds = run.progress(run.seeds(3), name)
        found = torch.tensor([[moved(stack(name, n, d), seed) for n in steps] for seed in seeds])
        growth[name] = found[:, -1] / found[:, 0]  # (3 seeds, 4 ways)
        rows.append([name, *growth[name].median(0).values.tolist()])
        for ax, one in zip(axes, found[..., [0, 2, 3]].unbind(-1), strict=True):
            ax.loglog(steps, one.mean(0), "osD^"[i] + "-", label=name)
            ax.fill_between(steps, one.amin(0), one.amax(0), alpha=0.15)
    run.table(f"Logits move further at L = {steps[-1]} than at 2: times", ["", *HOW], rows)
    deep_norm, post = ([one.tolist() for one in growth[n].T] for n in ("DeepNorm", "Post-LN"))
    times, root = steps[-1] / 2, math.sqrt(steps[-1] / 2)
    because = "Wang et al. 2022: 2L(β² + β²)/α² = 1 whatever L"
    run.check(f"DeepNorm: {HOW[0]}", deep_norm[0], at_most=1.5, because=because, decides=True)
    because = "the partner: α = β = 1 leaves 4L, and more"
    run.check(f"Post-LN: {HOW[0]}", post[0], at_least=times, because=because, decides=True)
    because = "a norm's own gain acts on the whole stream, and no β makes it smaller"
    run.check(f"DeepNorm: {HOW[1]}", deep_norm[1], at_least=2, because=because)
    because = f"2L · β/α = √L: {root:g}, give or take a factor of 2"
    how: dict[str, Any] = {"at_least": root / 2, "at_most": root * 2, "because": because}
    run.check(f"DeepNorm: {HOW[3]}", deep_norm[3], **how)
    between, because = (root / 2, root * 2), "√L (Liu et al. 2020)"
    run.measure(f"Post-LN: {HOW[2]}", post[2], expect_between=between, because=because)
    because = "moves that agree: L at least"
    run.measure(f"Post-LN: {HOW[3]}", post[3], expect_at_least=times, because=because)
    for ax, title in zip(axes, (HOW[0], *HOW[2:]), strict=True):
        ax.set(xlabel="blocks L", title=title.replace(", ", ",\n"), xticks=steps, xticklabels=steps)
        ax.minorticks_off()
        low, high = (math.log10(one) for one in ax.get_ylim())
        ax.set_ylim(10 ** math.floor(low), 10 ** math.ceil(high))  # so that two powers are marked
    axes[0].set_ylabel("logits move by (root mean square)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    run.figure(
        fig,
        "one_step",
        "How far one step of fixed size moves an untrained model's answer.",
        alt="Three line plots on log scales of how far the logits move over the number of "
        "blocks, for four arrangements of norms.",
    )
    told = ", ".join(f"{row[0]} {row[-1]:.3g}" for row in rows)
    return f"Adam's first step at L = {steps[-1]}, times that at 2: {told}."


# %% [markdown]
# ## 5. Learning rate, place, warm-up
# Does it show in training? Six blocks (at `tiny`), Shakespeare's plays, character by character, as
# in LLM05a: AdamW, the loss in nats on text that no one is trained on. **Warm-up** raises the
# learning rate from nearly 0 over the first fifth of the steps, then, as without it, it falls
# linearly. A stack that fails here fails in one way: it says the frequencies of the characters,
# whatever it reads, and its loss is their entropy, the **unigram**'s, about 3.34. So "it fell"
# means: not 0.1 below the unigram.


# %% Learning rate and place
PLACES = STACKS[:4]
GRID = (0.003, 0.01, 0.03)


def deep_sizes(run: Run) -> tuple[int, int, int, int, int]:
    """Blocks, d, T, batch and steps."""
    return run.pick((6, 32, 32, 8, 80), (8, 64, 64, 16, 300), (24, 256, 128, 32, 2000))


def validation(run: Run) -> Tensor:
    """(n, T + 1): the 8,192 characters that losses are told on in sections 5 to 7."""
    length = deep_sizes(run)[2]
    return small_gpt.shakespeare().windows(2**13 // length, length)


def train_deep(
    run: Run, name: str, lr: float, warm: bool, seed: int, layers: int = 0, **more: Any
) -> small_gpt.Trained:
    blocks, d, length, batch, steps = deep_sizes(run)
    config = stack(name, layers or blocks, d, position=partial(Sinusoid, length, d), **more)
    how = {"lr": lr, "seed": seed, "steps": steps, "warmup": steps // 5 if warm else 0}
    text = small_gpt.shakespeare()
    return small_gpt.train(run, config, text, batch=batch, length=length, **how)


def held_out(run: Run, model: nn.Module) -> float:
    return small_gpt.nats(model, validation(run)).mean().item()


def show_rates(run: Run, found: dict[tuple[str, float, bool], list[float]], unigram: float) -> None:
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.9))
    best = min(unigram - 0.1, *(mean(one) for one in found.values()))
    for ax, warm in zip(axes, (False, True), strict=True):
        cells = [[mean(found[name, lr, warm]) for lr in GRID] for name in PLACES]
        image = ax.imshow(cells, cmap="cividis_r", vmin=best, vmax=unigram, aspect="auto")
        for (i, name), (j, lr) in product(enumerate(PLACES), enumerate(GRID)):
            one = found[name, lr, warm]
            text = f"{mean(one):.2f}" + (f"\n± {stdev(one):.2f}" if len(one) > 1 else "")
            dark = cells[i][j] > (best + unigram) / 2
            ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
        ax.set(title="with warm-up" if warm else "without warm-up", xlabel="learning rate")
        ax.set_xticks(range(len(GRID)), GRID)
        ax.set_yticks(range(len(PLACES)), PLACES)
        ax.grid(False)
    fig.colorbar(image, ax=axes, label="loss (nats per character)")
    caption = f"Loss after training; {unigram:.2f} is the unigram's. ±: sd of three seeds."
    run.figure(
        fig,
        "rates",
        caption,
        alt="Two grids of losses, without and with warm-up: a row for each arrangement of "
        "norms, a column for each learning rate, low losses bright.",
    )


@lab.experiment
def post_norm_needs_warm_up(run: Run):
    """At lr 0.01 without warm-up Post-LN falls to the unigram and Pre-LN trains; warm-up may help.

    Predict: which places train at 0.03 without warm-up, ten times the lowest rate here?
    """
    unigram, found = small_gpt.unigram(validation(run)), {}
    for arm in run.progress(list(product(PLACES, GRID, (False, True))), "places, rates, warm-up"):
        seeds = run.seeds(3 if arm[1] == 0.01 or run.size != "tiny" else 1)
        found[arm] = [held_out(run, train_deep(run, *arm, seed).model) for seed in seeds]
    layers, d, *_ = deep_sizes(run)
    rows = []
    for name in PLACES:
        count = small_gpt.parameters(LanguageModel(stack(name, layers, d)))
        best = (min(mean(found[name, lr, warm]) for lr in GRID) for warm in (False, True))
        rows.append([name, count, *(f"{one:.3f}" for one in best)])
    run.table("Loss at the best rate (nats)", ["", "parameters", "without warm-up", "with"], rows)
    post, pre = found["Post-LN", 0.01, False], found["Pre-LN", 0.01, False]
    because = f"it fell: not 0.1 below the unigram, {unigram:.3f}; seen above it, spread 0.01"
    what = "Post-LN, 0.01, without warm-up: loss"
    run.check(what, post, at_least=unigram - 0.1, because=because, decides=True)
    because = "the partner: far below it; seen 0.5 and more, spread 0.04"
    run.check("Pre-LN, the same", pre, at_most=unigram - 0.3, because=because, decides=True)
    how: dict[str, Any] = {"unit": "nats", "expect_at_most": unigram - 0.3}
    because = "Xiong et al. 2020: warm-up is what it needs"
    run.measure("Post-LN, 0.01, with warm-up", found["Post-LN", 0.01, True], **how, because=because)
    for name in ("DeepNorm", "sandwich"):
        what, because = f"{name}, 0.03, without warm-up", "made to be stable"
        run.measure(what, found[name, 0.03, False], **how, because=because)
    show_rates(run, found, unigram)
    fell = [key for key in found if mean(found[key]) > unigram - 0.1]
    names = [f"{name} at {lr:g}{' with warm-up' if warm else ''}" for name, lr, warm in fell]
    return f"At the unigram: {', '.join(names) or 'none'}."


# %% [markdown]
# ## 6. Without norms
# Can one do without? At the start the stream grows 1.6 times a block, and training has to begin by
# making that smaller; so here are four blocks only. We ask for the **largest gradient norm of a run
# over its median**: the norm is that of all parameters' gradient together, nothing is clipped, and
# all steps count. As a spike at the start is another thing than one out of the blue, the table also
# has the same ratio without the first fifth of the steps, the warm-up.


# %% Without norms
@lab.experiment
def without_norms_the_gradient_spikes(run: Run):
    """Without norms the largest gradient norm of a run is several times its median (lr 0.01).

    Predict: when does the largest gradient come, and is the loss at the end any worse?
    """
    fig, ax = plt.subplots()
    found, rows = {}, []
    arms = list(product((0.01, 0.03), ("no norm", "Pre-LN")))
    for lr, name in run.progress(arms, "2 rates, 2 stacks, 3 seeds"):
        runs = [train_deep(run, name, lr, True, seed, layers=4) for seed in run.seeds(3)]
        norms = [one.gradient_norms for one in runs]
        found[name, lr] = [max(one) / median(one) for one in norms]
        later = [max(rest) / median(rest) for rest in (one[len(one) // 5 :] for one in norms)]
        steps = ", ".join(str(one.index(max(one)) + 1) for one in norms)
        loss = median(held_out(run, one.model) for one in runs)
        rows.append([name, lr, median(found[name, lr]), steps, median(later), loss])
        if lr == 0.01:
            for seed, one in zip(run.seeds(3), norms, strict=True):
                line = {"color": "C1" if name == "no norm" else "C0", "lw": 1}
                label = {"label": name} if seed == run.seed else {}
                told = [norm / median(one) for norm in one]
                ax.semilogy(range(1, len(told) + 1), told, **line, **label)
    columns = ["", "rate", "largest / median", "at step", "later", "loss (nats)"]
    run.table("The gradient's norm, medians of 3 seeds", columns, rows)
    because = "the start: each block multiplies; seen 19 and more, with norms 3"
    what = "no norm: largest over median"
    spikes = found["no norm", 0.01]
    run.check(what, spikes, at_least=8, because=because, decides=True)
    how: dict[str, Any] = {
        "at_most": 6,
        "because": "the partner: nothing multiplies; seen 2.5 to 4.6",
    }
    run.check("Pre-LN: largest over median", found["Pre-LN", 0.01], **how)
    how = {"expect_at_most": 6, "because": "if norms did away with spikes at any rate"}
    run.measure("Pre-LN at 0.03: largest over median", found["Pre-LN", 0.03], **how)
    ax.set(xlabel="training step", ylabel="gradient norm / the run's median")
    ax.legend()
    run.figure(
        fig,
        "spikes",
        "The gradient's norm in training at 0.01, three seeds each.",
        alt="Line plot of the gradient's norm over training steps on a log scale, three seeds "
        "without norms and three with Pre-LN.",
    )
    return f"At 0.01 the loss is {rows[0][-1]:.2f} without norms, {rows[1][-1]:.2f} with them."


# %% [markdown]
# ## 7. QK-norm
# One place is left. Attention's **scores** are $q \cdot k/\sqrt D$, for queries $q$ and keys $k$ of
# $D$ numbers, and nothing bounds them: $W_q$ and $W_k$ can grow together, scores then grow like
# their product, and the softmax gives all its weight to one token, where its gradient is 0.
# **QK-norm** (Henry et al. 2020; for stability, Dehghani et al. 2023) norms each head's queries and
# keys. With RMSNorm, $\lVert q \rVert$ and $\lVert k \rVert$ are at most $\sqrt D$ times the
# largest gain, so by Cauchy and Schwarz
#
# $$\frac{|q \cdot k|}{\sqrt D} \le \sqrt D \cdot \max|\gamma_q| \cdot \max|\gamma_k|$$
#
# whatever $W_q$ and $W_k$ are. With $D = 8$ and gains of 1: 2.83.


# %% QK-norm
@torch.no_grad()
def scores(model: Any, tokens: Tensor) -> Tensor:
    """(L, B, H, T, T): q·k/√D in every block; 0 for what is ahead."""
    seen: list[Tensor] = []  # queries and keys, in turn
    for block in model.blocks:
        attention = block.attention.branch
        for norm in (attention.q_norm, attention.k_norm):
            norm.register_forward_hook(lambda *a: seen.append(a[2]))
    model(tokens)
    q, k = torch.stack(seen[::2]), torch.stack(seen[1::2])  # (L, B, H, T, D) each
    return (q @ k.mT / math.sqrt(q.shape[-1])).tril()


@lab.experiment
def qk_norm_bounds_the_scores(run: Run):
    """With QK-norm no score exceeds √D times the gains, however large W_q and W_k are.

    Predict: W_q and W_k four times as large. What becomes of the scores, without it and with it?
    """
    layers, d, _, _, _ = deep_sizes(run)
    head, tokens, rows = d // 4, validation(run)[:16, :-1], []
    largest: dict[tuple[bool, int], list[float]] = {}
    for qk_norm, times in product((False, True), (1, 4)):
        found = []
        for seed in run.seeds(3):
            torch.manual_seed(seed)
            model = LanguageModel(stack("Pre-LN", layers, d, norm=RMSNorm, qk_norm=qk_norm))
            blocks: Any = model.blocks
            for block in blocks:
                block.attention.branch.q.weight.data *= times
                block.attention.branch.k.weight.data *= times
            found.append(scores(model, tokens).abs().max().item())
        largest[qk_norm, times] = found
        rows.append(["with" if qk_norm else "without", times, median(found)])
    run.table("Largest score at the start", ["QK-norm", "W_q and W_k times", "score"], rows)
    bound: dict[str, Any] = {"at_most": math.sqrt(head) * 1.0001, "decides": True}
    bound["because"] = "√D, as γ = 1: Cauchy and Schwarz"
    for times in (1, 4):
        run.check(f"with QK-norm, times {times}", largest[True, times], **bound)
    ratio = [b / a for a, b in zip(largest[False, 1], largest[False, 4], strict=True)]
    because = "the partner: 4 · 4, in the first block exactly"
    run.check("without: 4 times over once", ratio, at_least=8, because=because)
    ended, models = {}, []
    for qk_norm in (False, True):
        name, how = "with QK-norm" if qk_norm else "without", {"norm": RMSNorm, "qk_norm": qk_norm}
        seeds = run.progress(run.seeds(3), f"3 seeds {name}")
        models = [train_deep(run, "Pre-LN", 0.03, False, seed, **how).model for seed in seeds]
        ended[name] = [held_out(run, one) for one in models]
        run.measure(f"trained at 0.03, {name}: loss", ended[name], unit="nats")
        grown = [scores(one.cpu(), tokens).abs().max().item() for one in models]
        run.measure(f"trained at 0.03, {name}: largest score", grown)
    share = []
    for score, model in zip(grown, models, strict=True):  # those with QK-norm
        branches = [block.attention.branch for block in model.blocks]
        pairs = [(one.q_norm.weight.abs().max(), one.k_norm.weight.abs().max()) for one in branches]
        share.append(score / (math.sqrt(head) * max((q * k).item() for q, k in pairs)))
    because = "Cauchy and Schwarz, whatever was trained"
    what = "trained with it: score / (√D · largest gains)"
    run.check(what, share, at_most=1, because=because, decides=True)
    a, b = (median(one) for one in ended.values())
    return f"At a rate as high as 0.03 the loss is {a:.2f} without QK-norm and {b:.2f} with it."


# %% [markdown]
# ## 8. What is wrong with this layer?
# A broken stack looks like any other: it is as large, runs as fast, and often trains a little. But
# its layers can be *asked*. Let a layer be one branch with its residual and its norms, here
# attention's; give it $x$, $1000x$, or an $x$ whose last token is another, and compare. A sound
# Pre-LN layer adds to the stream something that doesn't depend on the stream's size. Which question
# finds which of the faults below? (`planted` makes a layer with one: `(B, T, d) -> (B, T, d)`,
# float64.)


# %% Faults
FAULTS = {
    "sound": "x + f(norm(x)), where a token sees itself and those before",
    "no norm": "x + f(x)",
    "norm on the sum": "norm(x + f(x)): Post-LN where Pre-LN was meant",
    "no residual": "f(norm(x))",
    "dead branch": "x + 0: say, the last matrix is still zero, for it was never loaded",
    "looks ahead": "the mask is turned round: a token sees itself and those after",
}


@lab.exercise(
    level=3,
    hints=(
        "Put another last token into x: in a sound layer no earlier answer changes.",
        "Compare layer(1000 x) − 1000 x with layer(x) − x. Where are they equal, where both 0?",
        "Two faults answer with something whose size isn't x's: with which size?",
    ),
)
def diagnose(layer: Callable[[Tensor], Tensor], x: Tensor) -> str:
    """Name a layer's fault, a key of FAULTS, by nothing but what it answers to (B, T, d) tensors.

    `x`, of normal numbers in float64, is one to ask with, and you may make others of it.
    """
    close = partial(torch.allclose, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        answer, loud = layer(x), layer(1000 * x)
        other = layer(torch.cat((x[:, :-1], -x[:, -1:]), 1))  # another last token
    if not close(other[:, :-1], answer[:, :-1]):
        return "looks ahead"
    if close(answer, x):
        return "dead branch"
    if close(loud - 1000 * x, answer - x):
        return "sound"
    if close(answer.square().mean(-1), torch.ones_like(x[..., 0])):
        return "norm on the sum"
    return "no residual" if close(loud, answer) else "no norm"


@lab.experiment
def a_layer_can_be_asked(run: Run):
    """One broken layer among eight is found, and named, by nothing but its answers.

    Predict: which of the faults changes the size of the stream after eight layers most?
    """
    d, rows, found = 32, [], []
    for fault in FAULTS:
        at = int(torch.randint(8, ()))
        layers = [planted(fault if i == at else "sound", d) for i in range(8)]
        x = torch.randn(4, 16, d, dtype=DOUBLE)
        named = [diagnose(layer, x) for layer in layers]
        found.append(named == [fault if i == at else "sound" for i in range(8)])
        with torch.no_grad():
            for layer in layers:
                x = layer(x)
        rows.append([fault, at + 1, named[at], x.square().mean().sqrt().item()])
    run.table("One of eight", ["fault", "in layer", "diagnosed", "size of the stream"], rows)
    right = sum(found)
    what = "stacks of which all eight layers are named right"
    run.check(what, right, equals=len(FAULTS), decides=True)
    least, most = (f(row[3] for row in rows) for f in (min, max))
    return f"The stream's size says little: sound {rows[0][3]:.2f}, all {least:.2f} to {most:.2f}."


# %% [markdown]
# ## 9. RoPE
# Now for places. LLM05a's sinusoids are added to the stream, and their dot product depends on the
# offset of two places alone, until $W_q$ and $W_k$ come between. **RoPE** (Su et al. 2021, §3.4)
# comes after them: it takes each pair of neighbours $(a, b)$ of a query or key at place $t$ as a
# point in the plane, and turns it by the angle $\omega_i t$, with $\omega_i = \theta^{-2i/D}$ for
# pair $i = 0, \ldots, D/2 - 1$ of a head and $\theta$ = 10,000, the **base**:
#
# $$
# \begin{aligned}
# a' &= a\cos(\omega_i t) - b\sin(\omega_i t) \\
# b' &= a\sin(\omega_i t) + b\cos(\omega_i t)
# \end{aligned}
# $$
#
# As complex numbers ($j^2 = -1$), $q = a + bj$ is multiplied by $e^{j\omega t}$. The score of $q$
# at $t$ and $k$ at $s$ is the sum over pairs of
#
# $$
# \begin{aligned}
# & \text{Re}\left(q\,e^{j\omega t} \cdot \bar k\,e^{-j\omega s}\right) \\
# &\quad = \text{Re}\left(q\,\bar k\,e^{j\omega(t - s)}\right)
# \end{aligned}
# $$
#
# with the conjugate $\bar k$. It depends on the **offset** $t - s$, whatever $q$ and $k$ are. Take
# $q = k = (1, 0)$ and $\omega = 1$: at the places 3 and 5, or 103 and 105, the score is
# $\cos(2) = -0.416$. ($\sqrt D$ divides it later.)
#
# The angles are a matter for float64 or at least float32: bfloat16 counts in ones to 256 only, so
# that 256 and 257 are one place.


# %% RoPE
def angles(places: Tensor, head: int, base: float = 10_000.0) -> Tensor:
    """(T,) places -> (T, D/2) in float64: by how much each pair is turned, in radians."""
    frequencies = base ** (-torch.arange(0, head, 2, dtype=DOUBLE) / head)
    return places.to(DOUBLE)[:, None] * frequencies


@lab.exercise(
    level=2,
    hints=(
        "x[..., ::2] are the a of all pairs, x[..., 1::2] the b: (..., T, D/2), like the angles.",
        "a cos − b sin and a sin + b cos, in what `wide` returns.",
        "The two are neighbours again: stack them on a new last axis, and flatten it.",
    ),
)
def rope(x: Tensor, angle: Tensor) -> Tensor:
    """(..., T, D), (T, D/2) -> (..., T, D): entries 2i and 2i + 1 are turned by angle i.

    Computed in float32 at least, returned in x's dtype.
    """
    a, b = wide(x)[..., ::2], wide(x)[..., 1::2]
    cos, sin = angle.cos().to(a.dtype), angle.sin().to(a.dtype)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Rotary(Position):
    """RoPE turns queries and keys; `places` says which places a text of that length has."""

    def __init__(self, places: Callable[[int], Tensor] = torch.arange, base: float = 10_000.0):
        super().__init__()
        self.places, self.base = places, base

    def turn(self, x: Tensor) -> Tensor:  # (B, H, T, D)
        angle = angles(self.places(x.shape[-2]), x.shape[-1], self.base)
        return rope(x, angle.to(x.device))


@lab.experiment
def a_rotary_score_tells_the_offset(run: Run):
    """RoPE's score depends on the offset alone: 1e-9 with tables in float64, up to place 100,000.

    Predict: and with angles computed in float32, or places kept in bfloat16?
    """
    head, offset = 64, 7
    q, k = torch.randn(2, 32, head, dtype=DOUBLE) / 8**0.5  # 32 of each; q·k has size 1

    def score(places: Tensor, dtype: torch.dtype) -> Tensor:
        """(places, 32): of q at a place with k `offset` places before; angles in `dtype`."""
        frequencies = angles(torch.ones(1), head)[0].to(dtype)
        turned = [
            rope(one.unsqueeze(1), (at.to(dtype)[:, None] * frequencies).double())
            for one, at in ((q, places), (k, places - offset))
        ]
        return (turned[0] * turned[1]).sum(-1).mT

    at, rows = torch.tensor([7, 100, 1_000, 10_000, 100_000]), []
    exact = score(at, DOUBLE)
    what = "score at one offset, less that at place 7"
    run.agree(what, exact - exact[0], 1e-9, "float64", decides=True)
    sizes = rope(q, angles(torch.full((1,), 100_000), head)).norm(dim=-1) - q.norm(dim=-1)
    run.agree("size of a turned query, less its own", sizes)
    other = (q * k).sum(-1)  # offset 0
    because = "the partner: another offset is another score"
    run.check("offset 0 instead", (exact[0] - other).abs().max(), at_least=0.1, because=because)
    for dtype in (torch.float32, torch.bfloat16):
        off = (score(at, dtype) - exact[0]).abs().amax(-1)
        rows.append([str(dtype)[6:], *off.tolist()])
    run.table("Error of a score, by place", ["angles in", *(f"{n:,}" for n in at.tolist())], rows)
    because = "an angle of 1e5 in float32 is off by up to 2⁻⁸; a score of size 1, by some of that"
    run.check("float32 at 100,000: error", rows[0][-1], at_least=1e-6, at_most=0.1, because=because)
    same = bool(torch.tensor(256).bfloat16() == torch.tensor(257).bfloat16())
    run.check("are 256 and 257 one place in bfloat16?", same, equals=True)
    table = Sinusoid(512, head).table.double()
    mixed = torch.randn(head, head, dtype=DOUBLE) / 8
    added = [(table[t] @ mixed @ table[t - offset]).item() for t in range(offset, 512, 50)]
    because = "the partner: sinusoids are added before W_q and W_k, here a random matrix"
    spread = max(added) - min(added)
    run.check("sinusoids at one offset: spread", spread, at_least=0.5, because=because)
    short, shorter = rows[0][-1], rows[1][-1]
    return f"At place 100,000 a score is off by {short:.1e} in float32, {shorter:.2g} in bfloat16."


# %% [markdown]
# ## 10. Two layouts
# The paper, GPT-J and Meta's Llama turn **neighbours**, entries $2i$ and $2i + 1$. GPT-NeoX and
# transformers' Llama turn **halves**, entries $i$ and $i + D/2$. Trained from scratch, a model
# can't tell. But $W_q$ and $W_k$, once trained, belong to a layout, and a file that is loaded into
# the other gives no error and nonsense. To convert, reorder the *rows* of $W_q$ and $W_k$, head by
# head: of each head's $D$, first all even rows, then all odd ones. For $D = 4$: rows 0, 2, 1, 3. A
# score sums over all $D$, so the order of the sum doesn't matter. $W_v$ and $W_o$, which no
# position turns, stay.


# %% Layouts
@lab.exercise(
    level=2,
    hints=(
        "Each head is converted by itself: unflatten the first axis to (heads, D/2, 2).",
        "The 2 are neighbours. In halves the 2 comes before the D/2.",
        "transpose(1, 2) of that, then flatten the three axes to one.",
    ),
)
def to_halves(rows: Tensor, heads: int) -> Tensor:
    """(H·D, ...) in neighbours -> the same rows in halves, head by head; (H·D,) works as well."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def to_neighbours(rows: Tensor, heads: int) -> Tensor:
    """The way back: each row goes where `to_halves` took it from."""
    taken = to_halves(torch.arange(len(rows)), heads)
    return rows[taken.argsort()]


def rope_halves(x: Tensor, angle: Tensor) -> Tensor:
    """(..., T, D), (T, D/2) -> (..., T, D): entries i and i + D/2 are turned by angle i."""
    neighbours = to_neighbours(x.movedim(-1, 0), 1).movedim(0, -1)
    return to_halves(rope(neighbours, angle).movedim(-1, 0), 1).movedim(0, -1)


@lab.experiment
def layouts_convert(run: Run):
    """Neighbours equal transformers' halves once W_q's and W_k's rows are reordered, and only then.

    Predict: a head has 16 entries. How many rows of W_q stay where they are?
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    heads, head, d, t = 4, 16, 64, 40
    x = torch.randn(2, t, d, dtype=DOUBLE)
    w_q, w_k = torch.randn(2, heads * head, d, dtype=DOUBLE) / 8
    angle = angles(torch.arange(t), head)
    twice = torch.cat((angle, angle), -1)[None]  # (1, T, D), as transformers has it

    def split(w: Tensor) -> Tensor:  # (B, H, T, D)
        return (x @ w.mT).unflatten(-1, (heads, head)).transpose(1, 2)

    def theirs(w_q: Tensor, w_k: Tensor) -> Tensor:
        q, k = apply_rotary_pos_emb(split(w_q), split(w_k), twice.cos(), twice.sin())
        return q @ k.mT / math.sqrt(head)

    ours = rope(split(w_q), angle) @ rope(split(w_k), angle).mT / math.sqrt(head)
    converted = theirs(to_halves(w_q, heads), to_halves(w_k, heads))
    what = "scores, rows reordered, less transformers'"
    run.agree(what, ours - converted, 1e-10, decides=True)
    because = "the partner: scores have size 1"
    off = (ours - theirs(w_q, w_k)).abs().max()
    what = "rows as they are: largest difference"
    run.check(what, off, at_least=0.1, because=because, decides=True)
    off = (ours - theirs(to_halves(w_q, 1), to_halves(w_k, 1))).abs().max()
    what = "reordered across heads: the same"
    run.check(what, off, at_least=0.1, because=because, decides=True)
    q, _ = apply_rotary_pos_emb(split(w_q), split(w_k), twice.cos(), twice.sin())
    run.agree("halves by hand, less transformers'", rope_halves(split(w_q), angle) - q)
    run.agree("there and back", to_neighbours(to_halves(w_q, heads), heads) - w_q)
    stay = int((to_halves(torch.arange(head), 1) == torch.arange(head)).sum())
    return f"Of a head's {head} rows {stay} stay; at place 0 nothing turns, and both layouts agree."


# %% [markdown]
# ## 11. ALiBi
# **ALiBi** (Press et al. 2021) turns nothing and adds nothing to the stream. It takes from each
# score the distance times a **slope** $m$ of the head:
#
# $$\frac{q \cdot k}{\sqrt D} - m (t - s)$$
#
# So in the softmax a token weighs $e^{-m(t - s)}$ times as much. For $n$ heads, $n$ a power of 2,
# the slopes are $2^{-8i/n}$ for $i = 1, \ldots, n$: with 8 heads 1/2, 1/4, … 1/256, each with a
# horizon of its own, $1/m$ tokens. For other $n$ the paper's code takes the slopes of the next
# lower power of 2, $p$, and then the 1st, 3rd, 5th … of those of $2p$, until there are $n$: 6 heads
# have the four of 4, which are 1/4, 1/16, 1/64 and 1/256, and 1/2 and 1/8.


# %% ALiBi
@lab.exercise(
    level=2,
    hints=(
        "For a power of 2: 2 ** (-8 * i / n), i from 1 to n.",
        "Else p = 2 ** (n.bit_length() - 1), the largest power of 2 that isn't above n.",
        "To the p slopes of p add the first n − p of [::2] of those of 2p, in this order.",
    ),
)
def alibi_slopes(heads: int) -> Tensor:
    """(H,) in float64, as the paper's code has them, for any number of heads."""
    lower = 2 ** (heads.bit_length() - 1)
    of = [[2 ** (-8 * i / n) for i in range(1, n + 1)] for n in (lower, 2 * lower)]
    return torch.tensor(of[0] + of[1][::2][: heads - lower], dtype=torch.float64)


class Alibi(Position):
    """It is added to the scores."""

    def bias(self, heads: int, length: int) -> Tensor:  # (H, T, T) over (query, key)
        places = torch.arange(length)
        return -alibi_slopes(heads)[:, None, None] * (places[:, None] - places)


@lab.experiment
def alibi_is_blooms(run: Run):
    """Own slopes and bias give the attention of transformers' BLOOM, for any number of heads.

    Predict: with 8 heads, how far away does a token weigh half as much in the widest head?
    """
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    t = 64
    ahead, raw = torch.ones(t, t, dtype=torch.bool).triu(1), torch.randn(t, t, dtype=DOUBLE)
    for heads in (1, 6, 8, 12, 20):
        theirs = build_alibi_tensor(torch.ones(1, t), heads, DOUBLE)  # (H, 1, T): + m · s
        ours = Alibi().bias(heads, t)
        weights = [(raw + one).masked_fill(ahead, -math.inf).softmax(-1) for one in (ours, theirs)]
        because = "m · t, which they leave out, is the same for a row; but their slopes are float32"
        off = weights[0] - weights[1]
        run.agree(f"H = {heads}: attention weights", off, 1e-5, because, decides=True)
    because = "the partner: a bias does change the weights"
    change = (weights[0] - raw.masked_fill(ahead, -math.inf).softmax(-1)).abs().max()
    run.check("with a bias less without", change, at_least=0.1, because=because)
    widest = alibi_slopes(8)[-1].item()
    return f"ln 2 / m = {math.log(2) / widest:.0f} tokens."


# %% [markdown]
# ## 12. Longer than trained
# Train on windows of 64 characters, and read 512: what happens after place 64? The race is between
# **NoPE**, no positions at all (the causal mask alone tells a little: the first token sees one, the
# second two; Haviv et al. 2022), a **learned** table, here 512 long, of which 64 rows are trained,
# the **sinusoids**, **RoPE** and **ALiBi**, each at the best of four rates. Press et al. (2021)
# found that ALiBi reads on as if nothing had happened, and sinusoids don't; RoPE a little longer.
#
# Some pages are harder than others, so we compare *the same characters*: the last 32 of each
# window, read with 480 or more before them, and with 32 to 63, as in training. The difference is
# what the length costs. It should be negative: more is known. (The figure's **bigram** is the best
# guess from the last character alone, counted on this very text.)


# %% Longer than trained
LONG = 8  # times as long as in training
ENCODINGS = ("NoPE", "learned", "sinusoids", "RoPE", "ALiBi")
POSITION_GRID = (0.005, 0.01, 0.02, 0.04)
RATES = {**dict.fromkeys(ENCODINGS, 0.02), "ALiBi": 0.04}  # at tiny


def long_sizes(run: Run) -> tuple[int, int, int, int, int]:
    """Blocks, d, T, batch and steps."""
    return run.pick((2, 48, 64, 8, 200), (3, 96, 64, 32, 800), (6, 256, 128, 64, 4000))


def encoding(run: Run, name: str) -> Config:
    layers, d, length, _, _ = long_sizes(run)
    position: Callable[[], Position] = {
        "NoPE": Position,
        "learned": partial(Learned, LONG * length, d),
        "sinusoids": partial(Sinusoid, LONG * length, d),
        "RoPE": Rotary,
        "ALiBi": Alibi,
    }[name]
    return stack("Pre-LN", layers, d, position=position)


def long_windows(run: Run) -> Tensor:
    """(n, 8 T + 1): what is read when the length is told."""
    length = long_sizes(run)[2]
    return small_gpt.shakespeare().windows(run.pick(64, 256, 256), LONG * length)


@cache
def trained(run: Run, name: str, seed: int, lr: float = 0) -> LanguageModel:
    """At the rate `lr`, or at its best."""
    _, _, length, batch, steps = long_sizes(run)
    lr = lr or best_rate(run, name)
    how = {"lr": lr, "seed": seed, "steps": steps, "warmup": steps // 10}
    text = small_gpt.shakespeare()
    return small_gpt.train(run, encoding(run, name), text, batch=batch, length=length, **how).model


@cache
def best_rate(run: Run, name: str) -> float:
    """The best for the length trained on, by a seed whose losses aren't told."""
    if run.size == "tiny" and not run.options.tune:
        return RATES[name]
    short = long_windows(run)[:, : long_sizes(run)[2] + 1]

    def loss(lr: float) -> float:
        return small_gpt.nats(trained(run, name, run.seeds(4)[3], lr), short).mean().item()

    return min(POSITION_GRID, key=loss)


def within(run: Run, model: nn.Module, times: int) -> Tensor:
    """(times · T,): the loss by place, means over the windows' last `times` · T characters."""
    text, length = long_windows(run), long_sizes(run)[2]
    return small_gpt.nats(model, text[:, -times * length - 1 :]).mean(0).cpu()


def last_half(run: Run, losses: Tensor) -> float:
    """The mean of the last T/2: the same characters, however much was read before them."""
    return losses[-long_sizes(run)[2] // 2 :].mean().item()


@cache
def read(run: Run, name: str, seed: int, times: int = LONG) -> Tensor:
    """(times · T,): the loss by place of a tuned encoding."""
    return within(run, trained(run, name, seed), times)


def show_lengths(run: Run) -> None:
    fig, ax = plt.subplots(figsize=(7.2, 4.6))
    length = long_sizes(run)[2]
    edges = [2**i for i in range(2, (LONG * length).bit_length())]  # 4, 8, … 8 T
    middle = [math.sqrt(a * b) for a, b in pairwise(edges)]
    for i, name in enumerate(ENCODINGS):
        curves = [read(run, name, seed) for seed in run.seeds(3)]
        binned = torch.tensor([[one[a:b].mean() for a, b in pairwise(edges)] for one in curves])
        ax.plot(middle, binned.mean(0), "osD^v"[i] + "-", color=f"C{i}", label=name)
        ax.fill_between(middle, binned.amin(0), binned.amax(0), color=f"C{i}", alpha=0.15)
    bigram = small_gpt.bigram(long_windows(run))
    ax.axhline(bigram, color="grey", lw=1, ls=":", label="bigram")
    ax.axvline(length, color="grey", lw=1)
    ax.text(length * 1.05, ax.get_ylim()[1], "trained to here", va="top", color="grey")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="place in the text (characters)", ylabel="loss (nats per character)")
    ax.set(xticks=edges, xticklabels=edges)
    fig.legend(*ax.get_legend_handles_labels(), ncols=3, loc="outside lower center")
    caption = (
        "Loss by place; bands: the range of three seeds. Dotted: the bigram of this very text."
    )
    run.figure(
        fig,
        "length",
        caption,
        alt="Line plot of the loss over the place in the text, a curve with a band for each "
        "kind of position; a vertical line marks the length of the training.",
    )


@lab.experiment
def alibi_reads_on_and_rope_does_not(run: Run):
    """Trained at 64 characters and read at 512, ALiBi loses nothing and RoPE much.

    Predict: and no positions at all, a learned table, the sinusoids?
    """
    rows, more = [], {}
    jobs = list(product(ENCODINGS, run.seeds(3)))
    found = {
        (name, seed): [last_half(run, read(run, name, seed, n)) for n in (1, LONG)]
        for name, seed in run.progress(jobs, "5 encodings, 3 seeds")
    }
    for name in ENCODINGS:
        short, long = zip(*(found[name, seed] for seed in run.seeds(3)), strict=True)
        more[name] = [b - a for a, b in zip(short, long, strict=True)]
        count = small_gpt.parameters(LanguageModel(encoding(run, name)))
        told = [f"{x:.3f}" for x in (mean(short), stdev(short), mean(long), mean(more[name]))]
        rows.append([name, count, f"{best_rate(run, name):g}", *told])
    columns = ["", "parameters", "learning rate", "as trained", "sd", "8 times as long", "cost"]
    run.table("Loss of the same characters (nats)", columns, rows)
    because = "Press et al. 2021: none; a tenth of what RoPE loses"
    what = "ALiBi: cost of length (nats)"
    run.check(what, more["ALiBi"], at_most=0.1, because=because, decides=True)
    because = "the partner: unseen angles; seen 0.5 and more"
    what = "RoPE: cost of length (nats)"
    run.check(what, more["RoPE"], at_least=0.3, because=because, decides=True)
    for name, expected, because in (
        ("sinusoids", {"expect_at_least": 0.1}, "Press et al. 2021: they don't extrapolate"),
        ("learned", {"expect_at_least": 0.1}, "rows that were never trained are noise"),
        ("NoPE", {"expect_at_most": 0.1}, "Kazemnejad et al. 2023: it reads on"),
    ):
        what = f"{name}: cost of length"
        expect: dict[str, Any] = {**expected, "because": because}
        run.measure(what, more[name], unit="nats", **expect)
    gain = [found["NoPE", seed][0] - found["RoPE", seed][0] for seed in run.seeds(3)]
    because = "what RoPE knows of places, within the length trained on; seen 0.2 and more"
    run.check("NoPE less RoPE, as trained (nats)", gain, at_least=0.05, because=because)
    show_lengths(run)
    told = ", ".join(f"{name} {mean(more[name]):+.2f}" for name in ENCODINGS)
    return f"Eight times as long costs {told} nats."


# %% [markdown]
# ## 13. Position interpolation
# Why does RoPE fail? Fast pairs, those with $64\,\omega_i > 2\pi$, have turned all the way round in
# training: an offset of 500 gives them no angle that they haven't seen. The slow ones, four of the
# six at $D = 12$, have seen an arc, and what they answer beyond it no loss ever asked for. Two
# cures:
#
# - **Position interpolation** (Chen et al. 2023): divide all places by 8, so that 0 … 511 becomes 0
#   … 63.9, all within what was seen. But neighbours are now 1/8 apart, which wasn't seen either,
#   least of all by the fast pairs, whose task they are.
# - **A larger base**, "NTK-aware" (bloc97 2023): $\theta$ becomes $\theta \cdot 8^{D/(D - 2)}$. The
#   slowest pair's frequency, $\theta^{-(D - 2)/D}$, is then divided by 8, the fastest, 1, stays,
#   those between share it.
#
# The weights stay, in both. Or they are trained a little at the new length: Chen et al. took Llama
# from 2,048 to 8,192 tokens and more in 1,000 steps; without a cure 10,000 steps brought little.


# %% Position interpolation
@lab.exercise(
    level=1,
    hints=(
        "Places 0, 1, 2, … times one factor. Which, if 512 are to fit where 64 were?",
        "trained / length; place 0 stays 0, and neighbours stay equally far apart.",
        "A text that isn't longer than trained keeps its places: the factor is at most 1.",
    ),
)
def interpolated(length: int, trained: int) -> Tensor:
    """(T,) in float64: places of `length` tokens, squeezed below `trained` if there are more."""
    return torch.arange(length, dtype=torch.float64) * min(1.0, trained / length)


def cure(run: Run, name: str, times: int) -> Rotary:
    """The places of RoPE for texts `times` as long as those trained on."""
    head = long_sizes(run)[1] // 4
    return {
        "as it is": Rotary(),
        "interpolated": Rotary(partial(interpolated, trained=long_sizes(run)[2])),
        "larger base": Rotary(base=10_000 * times ** (head / (head - 2))),
    }[name]


CURES = ("as it is", "interpolated", "larger base")


def read_on(run: Run, name: str, seed: int, times: int, learn: bool = False) -> float:
    """What reading `times` as far costs RoPE with a cure, in nats; after training on it, or not."""
    model, length = copy.deepcopy(trained(run, "RoPE", seed)), long_sizes(run)[2]
    model.position = cure(run, name, times)
    if learn:
        steps, batch = run.pick(tiny=(20, 2), small=(50, 4), full=(200, 8))
        how = {"lr": best_rate(run, "RoPE") / 2, "seed": seed, "steps": steps, "batch": batch}
        text = small_gpt.shakespeare()
        model = small_gpt.train(run, model, text, length=times * length, **how).model
    return last_half(run, within(run, model, times)) - last_half(run, read(run, "RoPE", seed, 1))


def show_cures(run: Run, found: dict[tuple[str, int, bool], list[float]]) -> None:
    fig, ax = plt.subplots(figsize=(7.2, 4))
    for i, name in enumerate(CURES):
        y = torch.tensor([found[name, n, False] for n in (2, 4, LONG)])  # (lengths, 3 seeds)
        ax.plot((2, 4, LONG), y.mean(1), "osD"[i] + "-", color=f"C{i}", label=name)
        ax.fill_between((2, 4, LONG), y.amin(1), y.amax(1), color=f"C{i}", alpha=0.15)
        y = mean(found[name, LONG, True])
        ax.plot(LONG * 1.08**i, y, "osD"[i], mfc="none", color=f"C{i}", label=f"{name}, trained on")
    ax.set_xscale("log", base=2)
    ax.set(xticks=(2, 4, LONG), xticklabels=(2, 4, LONG), ylim=(0, None))
    ax.set(xlabel="length read / length trained on", ylabel="cost (nats per character)")
    fig.legend(*ax.get_legend_handles_labels(), ncols=3, loc="outside lower center")
    caption = (
        f"Cost; bands: the range of three seeds. Open: trained on at {LONG} times, side by side."
    )
    run.figure(
        fig,
        "cures",
        caption,
        alt="Line plot of the additional loss over the length read, for RoPE as it is, "
        "interpolated and with a larger base; open markers for models trained at that "
        "length.",
    )


@lab.experiment
def a_larger_base_reads_twice_as_far(run: Run):
    """Untrained, a larger base reads twice as far at a fraction of RoPE's cost; 8 times, no cure.

    Predict: a few steps on long texts: which of the three gains most by them?
    """
    factors = (2, 4, LONG)
    found: dict[tuple[str, int, bool], list[float]] = {}
    arms = [*((n, False) for n in factors), (LONG, True)]
    for name, arm in run.progress(list(product(CURES, arms)), "cures"):
        found[name, *arm] = [read_on(run, name, seed, *arm) for seed in run.seeds(3)]
    rows = [[name, *(f"{mean(found[name, *arm]):+.2f}" for arm in arms)] for name in CURES]
    columns = ["RoPE", *(f"{n} times" for n in factors), f"{LONG} times, trained on"]
    run.table("What the length costs (nats)", columns, rows)
    plain, base = found["as it is", 2, False], found["larger base", 2, False]
    gain = [a - b for a, b in zip(plain, base, strict=True)]
    because = "slow pairs are slowed most, back into the arc that they have seen; seen 0.3 and more"
    what = "twice as far: as it is less larger base (nats)"
    run.check(what, gain, at_least=0.1, because=because, decides=True)
    for name in CURES[1:]:
        what = f"{name}, 8 times, untrained"
        how: dict[str, Any] = {"expect_at_least": 0.3, "decides": True}
        how["because"] = "three times what ALiBi may lose: no cure"
        run.measure(what, found[name, LONG, False], unit="nats", **how)
        because = "Chen et al. 2023, on Llama: without a cure training doesn't help"
        both = zip(found["as it is", LONG, True], found[name, LONG, True], strict=True)
        what, gain = f"trained on: as it is less {name}", [a - b for a, b in both]
        run.measure(what, gain, unit="nats", expect_at_least=0.05, because=because)
    show_cures(run, found)
    told = ", ".join(f"{name} {mean(found[name, LONG, True]):+.2f}" for name in CURES)
    return f"Eight times as far, trained on, costs: {told} nats."


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run's trainings."""
    rates = partial(results.shown, "post_norm_needs_warm_up")
    lengths = partial(results.shown, "alibi_reads_on_and_rope_does_not")
    cures = partial(results.shown, "a_larger_base_reads_twice_as_far")
    spikes = results.shown(
        "without_norms_the_gradient_spikes", "Pre-LN at 0.03: largest over median"
    )
    return f"""## In this run
Medians, with the range over seeds:

- Loss at 0.01, in nats: Post-LN {rates("Post-LN, 0.01, without warm-up: loss")} without warm-up and
  {rates("Post-LN, 0.01, with warm-up")} with it, Pre-LN {rates("Pre-LN, the same")} without. At
  0.03 without warm-up: DeepNorm {rates("DeepNorm, 0.03, without warm-up")}, sandwich
  {rates("sandwich, 0.03, without warm-up")}.
- Pre-LN at 0.03: the largest gradient norm is {spikes} times the median.
- Cost of eight times the length, in nats: ALiBi {lengths("ALiBi: cost of length (nats)")}, NoPE
  {lengths("NoPE: cost of length")}, a learned table {lengths("learned: cost of length")}.
- What a cure gains for RoPE once it is trained on long texts, in nats: interpolation
  {cures("trained on: as it is less interpolated")}, a larger base
  {cures("trained on: as it is less larger base")}.
"""


# %% [markdown]
# ## What surprised
# **The gradient's size at the start says little.** Post-LN keeps it at any depth and falls;
# DeepNorm has the smallest of all and trains. How far one step moves the answer says more.
#
# **Warm-up may be no cure of its own**, and a stable place may not be safe at every rate: compare
# the losses above. Xiong et al. and Wang et al. train for tens of thousands of steps: try `small`.
#
# **A proof holds for what it is about.** DeepNorm's bound is met by gradient descent on matrices.
# Let the norms' own gains move, or Adam, and the answer moves further with depth again, if much
# less than without it.
#
# **Norms aren't what makes four blocks learn.** Without them the loss comes near, and what spikes
# is the first step, when logits are as large as the stream.
#
# **Who knows nothing about places loses nothing by length.** A model that is no better than the
# best guess from the last character has a flat curve, because it hasn't learnt yet.
#
# **A cure can be beside the point.** For a model of 200 steps a few more on long texts are a large
# part of an education. The cures were made for models that nobody can afford to teach again.
#
# **Read on**: Xiong et al. 2020, *On Layer Normalization in the Transformer Architecture* · Liu et
# al. 2020, *Understanding the Difficulty of Training Transformers* · Wang et al. 2022, *DeepNet:
# Scaling Transformers to 1,000 Layers* · Henry et al. 2020, *Query-Key Normalization* · Su et al.
# 2021, *RoFormer* · Press et al. 2021, *Train Short, Test Long* · Haviv et al. 2022 and Kazemnejad
# et al. 2023, on doing without positions · Chen et al. 2023, *Extending Context Window of Large
# Language Models via Positional Interpolation* · Peng et al. 2023, *YaRN*. Next is LLM06,
# attention.

# %%
if __name__ == "__main__":
    lab.main()
