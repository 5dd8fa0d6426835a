# %% [markdown]
# # LLM06+ · Attention, deeper
# Why scores are divided, the KV cache, attention for long texts, what heads and sinks are worth.
#
# **You will be able to** predict the entropy of untrained attention, and fill a KV cache. You will
# limit attention to a window, and compute it exactly without the score matrix, as FlashAttention
# does. In a real model you will silence a head, and measure what it and the attention sink are
# worth. **Builds on** LLM06. **Takes** an hour to read and two minutes to run (`tiny`, 2 cores).

# %% Imports
import math
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from labs.kit import Lab, Run, assets, seconds_paired, tolerance
from labs.kit.measure import peak_bytes
from labs.llm06_attention import deeper_figures, head_patterns, recall
from labs.llm06_attention.attention_maps import (
    jobs,
    language_model,
    others_of_the_same_layers,
    patterns,
    weights_of,
)
from labs.llm06_attention.lesson import (
    AttentionOnly,
    MultiHeadAttention,
    attention,
    causal_mask,
    grouped_query_attention,
    head_scores,
    masked_softmax,
)
from labs.llm06_attention.sinks import in_errors, loss_on_text, with_error, without_the_first_value
from labs.llm06_attention.training import train_on_recall

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.utils.hooks import RemovableHandle

lab = Lab("LLM06+")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. Why the scores are divided
# How widely does an untrained query look? The **entropy** of its weights $p_i$ measures it:
# $H = -\sum_i p_i \ln p_i$. If $n$ keys share the weight evenly, $H = \ln n$. In general, about
# $e^H$ keys share it.
#
# Let the $n$ scores $s_i$ be normal with variance 1: the division by $\sqrt d$ makes them so. Let
# $Z = \sum_i e^{s_i}$ and $p_i = e^{s_i}/Z$. Then $H = \ln Z - \sum_i p_i s_i$. For many keys, $Z$
# approaches $n\,\text{E}[e^s] = n\sqrt e$, and $\sum_i p_i s_i$ approaches
# $\text{E}[s e^s]/\text{E}[e^s] = 1$. So
#
# $$H \approx \ln n - \frac{1}{2}$$
#
# The next term is $(e + 1)/(2n)$. For 256 keys $H$ is 5.05, and an even spread has 5.55. An
# untrained query looks almost everywhere.
#
# Without the division the scores have a standard deviation of $\sqrt d$. Above about
# $\sqrt{2 \ln n}$, 3.3 for 256 keys, a few scores take most of the weight. Far above it, the
# largest takes nearly all. Physicists call all above the threshold a frozen
# phase (Derrida 1981).
#
# All this is for queries and keys of variance 1. PyTorch starts the weights of an `nn.Linear` with
# a variance of $1/(3 d_\text{model})$. For inputs of variance 1, as a norm gives, queries and keys
# then have a variance of 1/3. Undivided scores of heads of width 64 have a standard deviation of
# $\sqrt{64}/3 = 2.7$, less than 3.3.
#
# **The gradient.** Vaswani et al. 2017 suspect that large scores leave almost no gradient. Two
# effects work against each other. A hard softmax hardly changes with its scores. But an undivided
# score changes $\sqrt d$ times as much with its query. So we measure the gradient of each query
# without the division. Values and output gradients are random. With the division, the gradients of
# eight of ten queries lie within a factor of 2.5, so their mean is a fair unit. At $d = 64$ the
# median query without the division gets about 11 units, but a tenth get less than half a unit. At
# $d = 1{,}024$ the median is about 0.2 units, and a tenth get almost nothing. Yet the mean is about
# 20 units, because a few queries get huge gradients.
#
# **How much entropy is left?** You may skip this derivation: the experiment tests its result. If
# $d$ is large, only the two largest scores matter. Among the largest of $n$ normal scores, the
# density falls by a factor of $e$ for each step of $m = \sqrt d/\sqrt{2 \ln n}$. So the gap
# $\Delta$ between the two largest is nearly exponential, with mean $m$ and the density $1/m$ at 0.
#
# Two keys with the gap $\Delta$ have the weights $p = 1/(1 + e^{-\Delta})$ and $1 - p$. Their
# entropy is $h(\Delta) = -p \ln p - (1 - p)\ln(1 - p)$, nearly 0 from $\Delta = 5$ on. Only small
# gaps contribute, and there the density is still about $1/m$ if $m$ is large:
#
# $$H \approx \frac{1}{m} \int_0^\infty h(\Delta)\,d\Delta
# = \frac{\pi^2}{6}\sqrt{\frac{2 \ln n}{d}}$$
#
# Two steps are approximate. For small $d$ a third key adds entropy, so narrow heads have more than
# the formula. And the density at 0 is $1/m$ only for very many keys. For 256 it is $0.85/m$, so
# very wide heads have 15 % less.


# %% Entropy
def entropy(scores: Tensor) -> Tensor:
    """Return the entropy in nats of the softmax over the last axis."""
    return scores.logsumexp(-1) - (scores.softmax(-1) * scores).sum(-1)


def query_gradients(q: Tensor, k: Tensor, factor: float) -> Tensor:
    """Return the root mean square gradient at each query, (..., Tq, D) -> (..., Tq).

    The scores are multiplied by `factor`. Values and the gradient at the output are random.
    """
    q = q.clone().requires_grad_()
    output = attention(factor * q, k, torch.randn_like(k))
    (gradient,) = torch.autograd.grad(output, q, torch.randn_like(output))
    return gradient.square().mean(-1).sqrt()


@torch.no_grad()
def first_scores(d_model: int, d: int, n: int) -> Tensor:
    """Return undivided scores (64, 32, n) of one head of an untrained layer, on normal inputs."""
    layer = MultiHeadAttention(d_model, 1, head_dim=d)
    x = torch.randn(64, n, d_model)
    return layer.q_proj(x[:, :32]) @ layer.k_proj(x).mT


@lab.experiment
def scaling_keeps_the_entropy(run: Run):
    """Divided by √d, the weights' entropy is ln n − ½ at four widths; undivided, it collapses as
    predicted at d = 256 and 1,024, within a third.

    Predict: 256 keys, d = 64, nothing trained. How many keys share the weight without √d?
    """
    n = 256
    rows = []
    distances = []
    eight_of_ten = []
    for d in (16, 64, 256, 1024):
        q = torch.randn(64, 32, d)  # (sets of keys, queries, D)
        k = torch.randn(64, n, d)
        scores = q @ k.mT  # (64, 32, n)
        divided = entropy(scores / math.sqrt(d)).mean(-1)  # one mean for each set of keys
        noise = 4 * divided.std().item() / math.sqrt(len(divided))
        distances.append(abs(divided.mean().item() - math.log(n) + 0.5) - noise)
        theory = math.pi**2 / 6 * math.sqrt(2 * math.log(n) / d)
        with_root = query_gradients(q, k, 1)
        gradients = query_gradients(q, k, math.sqrt(d)) / with_root.mean()
        eight_of_ten.append(with_root.quantile(0.9) / with_root.quantile(0.1))
        entropies = (divided.mean().item(), entropy(scores).mean().item(), theory)
        spread = torch.stack((gradients.quantile(0.1), gradients.median(), gradients.mean()))
        rows.append([d, *entropies, *spread.tolist()])
    scores = first_scores(512, 64, n)
    layer = [entropy(scores / 8).mean().item(), entropy(scores).mean().item()]
    deeper_figures.show_entropies(run, rows, layer, math.log(n) - 0.5)
    name = "gradients of queries with √d: 90th percentile ÷ 10th, at four widths"
    run.measure(name, eight_of_ten)
    term = "twice the next term of the expansion, (e + 1)/2n"
    name = "divided: |entropy − (ln n − ½)| minus four standard errors"
    run.check(name, distances, at_most=(math.e + 1) / n, because=term, decides=True)
    third = "within a third: from d = 256 to 1,024 the theory itself halves"
    ratios = [undivided / theory for _, _, undivided, theory, *_ in rows[2:]]
    name = "undivided, d = 256 and 1,024: entropy ÷ theory"
    run.check(name, ratios, at_least=0.67, at_most=1.33, because=third, decides=True)
    shared = [math.exp(value) for value in (*rows[1][1:3], layer[1])]
    return (
        f"At d = 64 about {shared[0]:.0f} keys share the weight, and {shared[1]:.1f} without √d. "
        f"With PyTorch's first weights, {shared[2]:.0f} would share it without √d. "
        f"The median query without √d gets {rows[1][5]:.0f} times the mean gradient with √d."
    )


# %% [markdown]
# ## 2. No gradient reaches the future
# If an output ignores a token, its derivatives with respect to that token are exactly 0. So the
# Jacobian of causal attention must be a lower triangle of blocks. Autograd can compute all of it.
# A mask that comes *after* the softmax also sets the weights of the future to 0. But the softmax
# divides by a sum in which the future still counts.


# %% Jacobian
@lab.experiment
def no_gradient_reaches_the_future(run: Run):
    """No output has a gradient towards a later token, if the mask comes before the softmax.

    Predict: the mask comes after the softmax. How many later tokens get a nonzero gradient?
    """
    past = causal_mask(16, 16)
    x = torch.randn(16, 8, dtype=torch.float64)
    future = torch.arange(16) > torch.arange(16)[:, None]  # without the mask under test
    ways = {
        "before": lambda x: attention(x, x, x, past),
        "after": lambda x: ((x @ x.mT / math.sqrt(8)).softmax(-1) * past) @ x,
    }
    slopes = {}
    for name, f in ways.items():
        jacobian = torch.func.jacrev(f)(x)  # (Tq, Dv, Tk, D)
        slopes[name] = jacobian.abs().amax((1, 3))  # (Tq, Tk)
    ahead = slopes["before"][future].max()
    run.check("largest towards the future", ahead, at_most=0, because="no path", decides=True)
    seen = "so a gradient would be seen; rounding gives 1e-16"
    behind = slopes["before"][~future].min()
    run.check("smallest towards the past", behind, at_least=1e-9, because=seen)
    leak = slopes["after"][future].min()
    name = "masked after the softmax: smallest towards the future"
    run.check(name, leak, at_least=1e-9, because=seen, decides=True)
    deeper_figures.show_jacobians(run, slopes)
    return f"All of them: masked too late, the smallest gradient to a later token is {leak:.1g}."


# %% [markdown]
# ## 3. A KV cache, token by token
# A model that generates adds one token at a time. Without a cache, step $t$ computes all $t$
# queries again, with $t^2$ scores, although the earlier rows are the same as a step before. A deep
# model can't skip them: the next layer computes its keys and values from them. Our code has one
# layer, and computes all rows to imitate a deep model. With a cache, a step computes one query, one
# key and one value, appends key and value to the earlier ones, and needs $t$ scores. For 256 tokens
# that is 171 times fewer scores. The gain in time below is far smaller: at this size a step costs
# much more than its scores. Queries, keys and values are random here. LLM10 generates text with
# such a cache.
#
# Two details matter. The first step is usually the prompt: many new tokens at once, and among them
# the mask must still be causal. And positions must go on: with RoPE, a new token gets the number of
# cached tokens as its position, although it is the only token in this step's input. The cache
# stores its key rotated, because its position never changes.


# %% A cache
@lab.exercise(
    level=2,
    hints=(
        "The new keys come after the cached ones: on which axis do the tokens stand?",
        "torch.cat((cached, new), -2). The new queries look at cached and new keys.",
        "Mask with causal_mask(q.shape[-2], k.shape[-2], q.device), k being the joined keys.",
    ),
)
def attend_with_cache(
    q: Tensor, k: Tensor, v: Tensor, cache: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the outputs of some new tokens, and the cache with their keys and values.

    `q`, `k` and `v` are those of the new tokens, (..., Tq, D). `cache` has the keys and values of
    all earlier tokens, (..., T, D) each.
    """
    if cache is not None:
        k = torch.cat((cache[0], k), -2)  # (..., T + Tq, D)
        v = torch.cat((cache[1], v), -2)
    mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
    return attention(q, k, v, mask), (k, v)


def step_by_step(
    q: Tensor, k: Tensor, v: Tensor, prompt: int, positions_go_on: bool = True
) -> Tensor:
    """Return the outputs of all tokens: the prompt at once, then one by one, with RoPE.

    Without `positions_go_on`, each step rotates its tokens as if they were the first of a text.
    """
    outputs = []
    cache = None
    start = 0
    for size in (prompt, *[1] * (q.shape[-2] - prompt)):
        new = slice(start, start + size)
        first = start if positions_go_on else 0
        queries = recall.rope(q[..., new, :], start=first)
        keys = recall.rope(k[..., new, :], start=first)
        output, cache = attend_with_cache(queries, keys, v[..., new, :], cache)
        outputs.append(output)
        start += size
    return torch.cat(outputs, -2)


def all_again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the same outputs without a cache: a step computes all rows, as a deep model must."""
    outputs = []
    for t in range(1, q.shape[-2] + 1):
        queries = recall.rope(q[..., :t, :])
        keys = recall.rope(k[..., :t, :])
        outputs.append(attention(queries, keys, v[..., :t, :], causal_mask(t, t))[..., -1:, :])
    return torch.cat(outputs, -2)


@lab.experiment
def a_cache_changes_no_output(run: Run):
    """With a cache, the outputs equal those of the full text, if positions go on. If each step
    starts again at position 0, they don't.

    Predict: each step rotates its token as the first one. Which outputs change?
    """
    deeper_figures.show_cache(run, 6)
    q, k, v = torch.randn(3, 2, 3, 40, 16, dtype=torch.float64)  # (B, H, T, D) each
    expected = attention(recall.rope(q), recall.rope(k), v, causal_mask(40, 40))
    run.agree("with a cache − at once", step_by_step(q, k, v, 30) - expected, decides=True)
    wrong = (step_by_step(q, k, v, 30, positions_go_on=False) - expected).abs()
    prompt = wrong[..., :30, :].max()
    later = wrong[..., 30:, :].max()
    same = "the prompt starts at position 0 in both, so nothing differs but rounding, 1e-16"
    name = "always at position 0: largest change in the prompt"
    run.check(name, prompt, at_most=1e-12, because=same)
    size = "the values are of size 1"
    name = "always at position 0: largest change after the prompt"
    run.check(name, later, at_least=0.1, because=size, decides=True)
    q, k, v = torch.randn(3, 1, 4, 256, 64)
    error = all_again(q, k, v) - step_by_step(q, k, v, 1)
    run.agree("all again − with a cache", error, tolerance(torch.float32), decides=True)
    calls = (partial(all_again, q, k, v), partial(step_by_step, q, k, v, 1))
    without, cached = seconds_paired(*calls, 3)
    ratio = median(a / b for a, b in zip(without, cached, strict=True))
    run.measure("time for 256 tokens, without a cache ÷ with it", ratio, timed=True)
    return (
        f"After the prompt the output changes by up to {later:.2f}, in the prompt by {prompt:.1g}. "
        "So a test of the prompt alone finds nothing. 256 tokens, one by one, take "
        f"{ratio:.1f} times as long without a cache."
    )


# %% [markdown]
# ## 4. The trap of is_causal
# PyTorch's `is_causal=True` aligns its triangle *top-left*. With a cache, the new query is the
# last position, but this mask treats it as the first. For *one* new token, pass no mask: it may
# look at all keys. For several, pass `causal_mask(tq, tk)`, or PyTorch's `causal_lower_right`.


# %% Alignment of the mask
@lab.experiment
def is_causal_aligns_top_left(run: Run):
    """With `is_causal=True`, a new query on cached keys sees only the first key.

    Predict: one new query, 64 keys, `is_causal=True`. How wrong is the output?
    """
    q, k, v = torch.randn(3, 32, 8, 64, 16, dtype=torch.float64)  # (B, H, T, D) each
    new = q[:, :, -1:]  # the last query: 63 keys are in the cache, 1 is new
    trusting = F.scaled_dot_product_attention(new, k, v, is_causal=True)
    masked = F.scaled_dot_product_attention(new, k, v, causal_mask(1, 64))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, -1:]
    run.agree("its output − the first value", trusting - v[:, :, :1], decides=True)
    run.agree("with our mask: output − the last output without a cache", masked - expected)
    bare = F.scaled_dot_product_attention(new, k, v)
    run.agree("without a mask − the last output without a cache", bare - expected)
    five = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, -5:]
    several = F.scaled_dot_product_attention(q[:, :, -5:], k, v, causal_lower_right(5, 64))
    run.agree("five new tokens, causal_lower_right − without a cache", several - five)
    error = (trusting - expected).square().mean().sqrt()
    size = "an average of 64 values is near 0, so the error is about the first value, of size 1"
    name = "root mean square error; a value's standard deviation is 1"
    run.check(name, error, at_least=0.9, because=size, decides=True)
    return (
        f"{error:.2f} times a value's standard deviation. The right output averages 64 values, "
        "and is near 0. This one is the first value."
    )


# %% [markdown]
# ## 5. A sliding window
# $T$ queries on $T$ keys make $T^2$ scores. If each query looks only at itself and the $w - 1$ keys
# before it, $Tw$ scores are enough (Longformer, Beltagy et al. 2020). Information still travels
# far: $L$ layers reach $L(w - 1)$ tokens back.
#
# A mask alone saves nothing, because hidden scores are computed before they are hidden. So gather
# for each query the $w$ keys of its window. The first figure below shows it. We put $w - 1$ empty
# keys before the text, and mask them. `k.unfold(-2, w, 1)` slides a window of $w$ keys over the
# text in steps of 1. The empty keys cost one copy of the keys. `unfold` returns a view, so no
# window is copied yet. The product with the queries may copy the windows: $TwD$ numbers for each
# head. That is linear in $T$, but wasteful. Real kernels work in blocks and copy nothing.


# %% A sliding window
def sliding_window_mask(tq: int, tk: int, window: int) -> Tensor:
    """Return (Tq, Tk), True for a query's own key and the `window` − 1 before it.

    The queries are the last Tq of Tk positions.
    """
    query = torch.arange(tk - tq, tk)[:, None]
    distance = query - torch.arange(tk)  # (Tq, Tk)
    return (distance >= 0) & (distance < window)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Return attention under `sliding_window_mask`, with all T² scores; (..., T, D) each."""
    return attention(q, k, v, sliding_window_mask(q.shape[-2], k.shape[-2], window))


def local_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Return attention under `sliding_window_mask` with T·w scores; (..., T, D) each."""
    keys = F.pad(k, (0, 0, window - 1, 0)).unfold(-2, window, 1)  # (..., T, D, w)
    values = F.pad(v, (0, 0, window - 1, 0)).unfold(-2, window, 1)  # (..., T, D, w)
    scores = (q.unsqueeze(-2) @ keys).squeeze(-2) / math.sqrt(q.shape[-1])  # (..., T, w)
    t = torch.arange(q.shape[-2], device=q.device)[:, None]
    place = t + torch.arange(window, device=q.device)  # (T, w), in the padded text
    weights = masked_softmax(scores, place >= window - 1)  # nothing comes before the first key
    return (values @ weights.unsqueeze(-1)).squeeze(-1)  # (..., T, D)


@lab.experiment
def a_window_needs_linear_memory(run: Run):
    """Attention on gathered windows equals the masked one, with memory linear in the length.

    Predict: 2,048 tokens, windows of 32 keys. How much faster than with a mask is it?
    """
    deeper_figures.show_window(run, 6, 3)
    q, k, v = torch.randn(3, 1, 2, 50, 16, dtype=torch.float64)
    error = local_attention(q, k, v, 8) - masked_attention(q, k, v, 8)
    run.agree("gathered − masked", error, decides=True)
    sizes = (1024, 2048)
    ways: dict[str, Any] = {
        "masked": partial(masked_attention, window=32),
        "windowed": partial(local_attention, window=32),
    }
    peaks = {}
    growth = {}
    for name, f in ways.items():  # (B, H, T, D) each
        peaks[name] = [peak_bytes(partial(f, *torch.randn(3, 1, 4, t, 64))) for t in sizes]
        growth[name] = math.log2(peaks[name][1] / peaks[name][0])
    label = "masked: exponent of the memory"
    run.check(label, growth["masked"], at_least=1.9, because="T² scores", decides=True)
    linear = "T·w·D copied keys and values, T·w scores"
    label = "windowed: exponent of the memory"
    run.check(label, growth["windowed"], at_most=1.1, because=linear, decides=True)
    qkv = torch.randn(3, 1, 4, sizes[-1], 64)
    call_masked, call_windowed = (partial(f, *qkv) for f in ways.values())
    masked, windowed = seconds_paired(call_masked, call_windowed, 5)
    ratio = median(a / b for a, b in zip(masked, windowed, strict=True))
    run.measure("time, masked ÷ windowed, T = 2,048", ratio, timed=True)
    return (
        f"With 4 heads of 64 at T = 2,048, windows need {peaks['windowed'][1] / 2**20:.0f} MiB and "
        f"the mask {peaks['masked'][1] / 2**20:.0f} MiB. The mask takes {ratio:.1f} times as long."
    )


# %% [markdown]
# ## 6. Softmax in tiles
# The scores are the largest thing in attention: 256 MiB a head in float32 at $T$ = 8,192. They also
# cost **memory traffic**. The matrix products of one head need $4T^2D$ operations. Without tiles,
# the scores travel to memory and back: written by the product, read and written by the softmax,
# read again by the second product. If they don't fit in a cache of the processor, that is at least
# $16T^2$ bytes in float32, so $D/4$ operations per byte: 16 for heads of 64, or 32 in bfloat16.
#
# If a processor can do more operations while one byte arrives, it waits for its memory. For an
# H100, NVIDIA's data sheet gives 1,979 TFLOP/s in bfloat16 with sparsity, so 989 without, and 3.35
# TB/s for the memory: nearly 300 operations per byte. The limit of a CPU is lower.
#
# A softmax can be computed **online**, one tile of keys at a time. For each query, store three
# things: the largest score $m$ so far and the sum $\ell$ of $e^{s - m}$ (Milakov & Gimelshein
# 2018), and the sum $o$ of values under these weights (Rabe & Staats 2021). A tile may bring a
# larger maximum $m'$. The stored sums refer to the old one, so rescale them:
#
# $$\ell \leftarrow e^{m - m'}\,\ell, \qquad o \leftarrow e^{m - m'}\,o$$
#
# At the end, $o/\ell$ is the output, exactly. Take the scores 1, 3, 2 with the values 4, 1, 2, one
# key a tile. After the first tile $m = 1$, $\ell = 1$ and $o = 4$. The second has $m' = 3$. Both
# sums shrink by $e^{1 - 3} = 0.14$, and the new key adds 1 to each: $\ell = 1.14$, $o = 1.54$. The
# third has no larger maximum. It adds $e^{2 - 3} = 0.37$ and $0.37 \cdot 2$, so $\ell = 1.503$ and
# $o = 2.277$. The output is 1.515. The first figure below draws these sums.
#
# A tile of our code has the scores of *all* queries on 32 keys. What does it save?
#
# - **Memory**: only one tile of scores is stored at a time.
# - **Traffic**: perhaps nothing. If $o$ doesn't fit in the cache, each tile reads and writes all of
#   it, $2 \cdot 4 \cdot 64 \cdot T$ bytes for $D = 64$. For all $T/32$ tiles that is $16T^2$ bytes,
#   as many as the scores cost before.
# - **Time**: expect nothing. Our loop also starts more than ten small operations a tile.
#
# FlashAttention (Dao et al. 2022) tiles the queries, too. Scores and sums then stay in the
# processor's fast memory, and one kernel does all.
#
# All this is the forward pass. In training, autograd would save the weights of each tile for the
# backward pass, $T^2$ numbers again. FlashAttention saves the output, and $m$ and $\ell$ of each
# query. In the backward pass it computes the tiles once more. We measure the forward pass alone.


# %% Tiles
@lab.exercise(
    level=3,
    hints=(
        "Three things per query survive from tile to tile: the maximum, the sum, the mixed values.",
        "When the maximum grows, the sum and the values refer to the old one: rescale both.",
        "Multiply both by exp(old − new); start from -inf, 0 and 0, and divide once, at the end.",
    ),
)
def tiled_attention(q: Tensor, k: Tensor, v: Tensor, block: int = 32) -> Tensor:
    """Return attention without a mask, with at most (..., Tq, block) scores at a time."""
    top = q.new_full((*q.shape[:-1], 1), -math.inf)  # (..., Tq, 1)
    total = torch.zeros_like(top)
    mixed = q.new_zeros((*q.shape[:-1], v.shape[-1]))  # (..., Tq, Dv)
    for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
        scores = q @ keys.mT / math.sqrt(q.shape[-1])  # (..., Tq, block)
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))  # (..., Tq, 1)
        shrink = (top - new_top).exp()
        weights = (scores - new_top).exp()
        total = total * shrink + weights.sum(-1, keepdim=True)  # (..., Tq, 1)
        mixed = mixed * shrink + weights @ values  # (..., Tq, Dv)
        top = new_top
    return mixed / total


@lab.experiment
def tiles_equal_the_library(run: Run):
    """Attention in tiles equals the library's, also for scores whose exponential overflows.

    Predict: the scores are 1, 2 and 1,000, one a tile. What remains of the sums before the last?
    """
    deeper_figures.show_online_softmax(run, [1, 3, 2], [4, 1, 2])
    q, k, v = torch.randn(3, 2, 3, 100, 16, dtype=torch.float64)
    for scale in (1, 300):
        library = F.scaled_dot_product_attention(q * scale, k, v)
        if scale > 1:
            largest = (scale * q @ k.mT).max() / math.sqrt(q.shape[-1])
            overflow = "e to 710 overflows float64"
            run.check("largest score", largest, at_least=710, because=overflow, decides=True)
        error = tiled_attention(q * scale, k, v) - library
        label = f"tiles − library, scores times {scale}"
        run.agree(label, error, tolerance(torch.float64), decides=True)
    keys, values = torch.tensor([[[1.0], [2.0], [1000.0]], [[4.0], [1.0], [2.0]]])
    late = tiled_attention(torch.ones(1, 1), keys, values, block=1)  # width 1: scores are keys
    run.agree("scores 1, 2, 1,000: output − the last value", late - values[-1])
    return f"They shrink by e^(2 − 1,000), in float64 {math.exp(2 - 1000):g}: nothing remains."


def cost(run: Run, f: Any, length: int) -> tuple[float, float]:
    """Return peak memory in MiB, and time relative to PyTorch's kernel, timed in turn."""
    qkv = torch.randn(3, 1, 4, length, 64)  # (q, k and v, B, H, T, D)
    peak = peak_bytes(partial(f, *qkv)) / 2**20  # in float32 on the CPU
    qkv = qkv.to(run.device)  # timed in the run's precision
    fused = partial(F.scaled_dot_product_attention, *qkv)
    with run.accelerator.autocast(), torch.no_grad():
        ours, theirs = seconds_paired(partial(f, *qkv), fused, 15)
    return peak, min(ours) / min(theirs)  # other work on the machine only adds time


@lab.experiment
def tiles_need_linear_memory(run: Run):
    """In tiles, the memory of a forward pass grows linearly with the length, not quadratically.

    Predict: which of the three is fastest for long texts: by hand, in tiles, or PyTorch's kernel?
    """
    sizes = run.pick(tiny=[128, 512, 1024, 2048], small=[512, 2048, 4096], full=[512, 4096, 8192])
    fused = F.scaled_dot_product_attention
    peaks = {}
    ratios = {}
    for name, f in (("by hand", attention), ("tiles", tiled_attention), ("fused", fused)):
        costs = [cost(run, f, length) for length in run.progress(sizes, name)]
        peaks[name], ratios[name] = zip(*costs, strict=True)
    steps = math.log(sizes[-1] / sizes[-2])
    growth = {name: math.log(peak[-1] / peak[-2]) / steps for name, peak in peaks.items()}
    label = "by hand: exponent of the memory"
    run.check(label, growth["by hand"], at_least=1.9, because="T² scores", decides=True)
    label = "tiles: exponent of the memory"
    run.check(label, growth["tiles"], at_most=1.1, because="T·D and T·block", decides=True)
    for name in ("by hand", "tiles"):
        run.measure(f"time of {name} ÷ fused, T = {sizes[-1]:,}", ratios[name][-1], timed=True)
    deeper_figures.show_costs(run, sizes, ratios, peaks)
    memory = peaks["by hand"][-1] / peaks["tiles"][-1]
    return (
        f"At T = {sizes[-1]:,}, attention by hand takes {ratios['by hand'][-1]:.1f} times as long "
        f"as PyTorch's kernel, and our tiles {ratios['tiles'][-1]:.1f} times. Attention by hand "
        f"needs {memory:.0f} times the memory of our tiles."
    )


# %% [markdown]
# ## 7. SmolLM2's weights, by hand
# Can our code compute the attention weights of a real model, for one sentence? This is our copy of
# SmolLM2, with 4 bits a weight, as in LLM06. All losses below are those of this copy. The code
# takes the normed input of a layer, two of its matrices, and RoPE with the base of the model's
# angles. As in LLM06's alignment, the values are unit vectors, so the outputs are the weights.


# %% SmolLM2
def weights_by_hand(x: Tensor, layer: Any, position: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the causal weights (B, H, T, T) of a library's `layer`, from x (B, T, d_model)."""
    q = layer.q_proj(x).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)  # (B, H, T, D)
    k = layer.k_proj(x).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)  # (B, Hkv, T, D)
    length = x.shape[1]
    unit = torch.eye(length, device=x.device).expand(*k.shape[:2], -1, -1)  # (B, Hkv, T, T)
    mask = causal_mask(length, length, x.device)
    return grouped_query_attention(position(q), position(k), unit, mask)


@lab.experiment
@torch.no_grad()
def our_weights_are_smollm2s(run: Run):
    """Our code computes SmolLM2's attention weights from the normed input of each layer.

    Predict: leave out RoPE. By how much does a weight change at most?
    """
    model, ids, _ = language_model(run)
    outputs = model(ids, output_attentions=True, output_hidden_states=True)
    rope = partial(recall.rope, base=model.config.rope_parameters["rope_theta"])
    errors = {"with RoPE": [], "without": []}
    for i, layer in enumerate(model.model.layers):
        x = layer.input_layernorm(outputs.hidden_states[i])
        for name, position in (("with RoPE", rope), ("without", nn.Identity())):
            difference = weights_by_hand(x, layer.self_attn, position) - outputs.attentions[i]
            errors[name].append(difference.abs().max())
    label = "largest difference, with RoPE"
    run.agree(label, max(errors["with RoPE"]), tolerance(torch.float32), decides=True)
    without = min(errors["without"])
    matter = "in every layer some weight depends on positions"
    label = "largest without RoPE, in the layer where it is smallest"
    run.check(label, without, at_least=0.1, because=matter, decides=True)
    return f"Largest change without RoPE: {without:.2f} to {max(errors['without']):.2f}, by layer."


# %% [markdown]
# ## 8. What is a head worth?
# LLM06 found the two heads that do the recall, with one head in each layer. Now train new models
# with *two* heads in each layer, and silence one or both of a layer. If the other head alone does
# the job, losing one costs nothing. If it can't, losing one costs as much as losing both. In
# between, it does a part. This shows what one head does alone, not how the two work together. In
# BERT and in a translation model many heads can be removed at little cost (Michel et al. 2019). A
# mask without any True silences a head: all its weights are 0.


# %% Silenced heads
def part_of_the_other(lost: float) -> str:
    """Name what the other of two heads does alone, from the accuracy lost without the best."""
    if lost < 0.1:
        return "nearly all"
    return "a part" if lost < 0.8 else "hardly any"


@lab.experiment
def a_score_is_not_a_worth(run: Run):
    """Losing the best induction head costs these models less than losing the best previous-token
    head; losing both heads of a layer costs nearly everything.

    Predict: with two heads in each layer, what does silencing one of them cost?
    """
    tokens = recall.recall_batch(1000).to(run.device)
    silenced: list[deeper_figures.Silenced] = []
    without_both = []
    losses = {}
    for layer, (job, pairs) in enumerate(recall.circuit(tokens).items()):
        losses[job] = []
        for seed in run.seeds(3):
            model = train_on_recall(run, AttentionOnly, 2, 2, seed)[0]
            scores = head_scores(patterns(model, tokens)[layer], pairs).tolist()
            accuracy = {}
            for heads in ((), (0,), (1,), (0, 1)):
                masks = [recall.PAST.expand(2, -1, -1).clone() for _ in range(2)]  # (H, T, T)
                masks[layer][list(heads)] = False
                accuracy[heads] = recall.accuracy(model, tokens, masks)
            for head in (0, 1):
                row = deeper_figures.Silenced(
                    seed, layer + 1, job, head + 1, scores[head], accuracy[(head,)], accuracy[()]
                )
                silenced.append(row)
            best = scores.index(max(scores))
            losses[job].append(accuracy[()] - accuracy[(best,)])
            without_both.append(accuracy[(0, 1)])
        label = f"{job}: accuracy lost without the head of the highest score"
        run.measure(label, losses[job])
    deeper_figures.show_worth(run, silenced)
    margin = min(losses["previous token"]) - 2 * max(losses["induction"])
    twice = "in every training it is more than twice as large: no pair of seeds reverses it"
    label = "smallest loss of a previous-token head − twice the largest of an induction head"
    run.measure(label, margin, expect_at_least=0, because=twice, decides=True)
    name = "accuracy without both heads of a layer"
    run.check(name, without_both, at_most=0.2, because=recall.TWICE_A_GUESS, decides=True)
    costs = [
        f"Without the best {job.replace(' ', '-')} head, the accuracy falls by {median(lost):.2f}: "
        f"the other head alone does {part_of_the_other(median(lost))} of the job."
        for job, lost in losses.items()
    ]
    lowest = min(head.score for head in silenced if head.job == "induction")
    return (
        f"{' '.join(costs)} The induction heads score at least {lowest:.2f}: "
        "a high score shows where a head looks, not that it is needed. Without both heads of a "
        f"layer, an accuracy of {max(without_both):.2f} is left at most."
    )


# %% [markdown]
# ## 9. Silence heads of SmolLM2
# LLM06 found an induction head and a previous-token head in SmolLM2. Does it need such heads?
# Repeat random tokens once: only a model that looks back can predict the second half.
#
# A **hook** is a function that PyTorch calls at each call of a module. A *forward pre-hook* gets
# the module and a tuple of its inputs, and can return another tuple. The input of `o_proj` has the
# outputs of all heads side by side, so a hook there can set one head's output to 0.
#
# Silence the ten heads with the highest scores for a job, and measure the loss on new random
# tokens. The control silences as many random others *of the same layers*, three times. In a layer
# where more than half of the heads were chosen, it has only the rest. If a control costs more than
# half of what the ten heads cost, the knock-out decides nothing: any ten heads there may matter.
# Also, a head hardly ever outputs exactly 0 in training. Later layers may fail at this new input.
#
# A model that can't repeat at all has on average at least the loss of an even guess, about $\ln V$,
# and more if it expects words as in a text. So a loss above $\ln V$ may only mean that the model
# can't repeat.


# %% Silenced heads of SmolLM2
@lab.exercise(
    level=2,
    hints=(
        "A head's output is `width` neighbouring coordinates of the input. Where do they start?",
        "The hook is called with (module, inputs), inputs being a tuple. Clone inputs[0] first.",
        "Return a tuple from the hook, and return what projection.register_forward_pre_hook does.",
    ),
)
def silence(projection: nn.Module, head: int, width: int) -> RemovableHandle:
    """Set one head's output to 0 at every later call of its layer's `o_proj`, by a pre-hook.

    The input of `projection` is (..., H·D), with the outputs of all heads side by side, `width` = D
    each. Return the hook's handle, whose `remove()` brings the head back. The input tensor itself
    must not change.
    """
    part = slice(head * width, (head + 1) * width)

    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        mixed = inputs[0].clone()  # (..., H·D)
        mixed[..., part] = 0
        return (mixed,)

    return projection.register_forward_pre_hook(hook)


@torch.no_grad()
def loss_without(model: Any, ids: Tensor, heads: list[tuple[int, int]]) -> float:
    """Return the loss on the second half of the texts with some (layer, head) silenced."""
    layers = model.model.layers
    width = model.config.head_dim
    handles = [silence(layers[layer].self_attn.o_proj, head, width) for layer, head in heads]
    try:
        logits = model(ids).logits[:, ids.shape[1] // 2 : -1]  # (B, T/2 − 1, V)
    finally:
        for handle in handles:
            handle.remove()
    targets = ids[:, ids.shape[1] // 2 + 1 :]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()


@lab.experiment
@torch.no_grad()
def smollm2_repeats_with_its_induction_heads(run: Run):
    """SmolLM2 repeats worse without ten induction heads than without others of their layers: at
    least twice as much loss is added.

    Predict: ten of 270 heads are silenced. How much does the loss grow? An even guess has 10.8.
    """
    model, _, _ = language_model(run)
    seen = head_patterns.repeated_tokens(run, model)  # (B, 64), to choose the heads
    weights = weights_of(model, seen)  # (L, B, H, T, T)
    pairs = jobs(seen)
    ids = head_patterns.repeated_tokens(run, model)  # (B, 64), to measure the loss
    heads = weights.shape[2]
    complete = loss_without(model, ids, [])
    rows = [["no head", "–", complete, "–"]]
    lost = {}  # the loss without the ten best heads of a job
    beside = {}  # the worst loss without as many others of their layers
    for job in ("induction", "previous token"):
        scores = torch.stack([head_scores(layer, pairs[job]) for layer in weights])  # (L, H)
        order = scores.flatten().argsort(descending=True).tolist()
        best = [divmod(index, heads) for index in order[:10]]
        lost[job] = loss_without(model, ids, best)
        others = [others_of_the_same_layers(best, heads) for _ in range(3)]
        beside[job] = max(loss_without(model, ids, chosen) for chosen in others)
        rows.append([f"ten {job} heads", scores[best[9]].item(), lost[job], beside[job]])
    columns = ["silenced", "lowest of their scores", "loss", "worst loss of the control"]
    run.table("Loss on the second half (nats)", columns, rows)
    ratios = {job: (lost[job] - complete) / max(beside[job] - complete, 1e-3) for job in lost}
    worst = "twice the worst of three random choices"
    label = "loss added by the ten best ÷ most added by others of the same layers"
    run.measure(label, ratios["induction"], expect_at_least=2, because=worst, decides=True)
    even = math.log(model.config.vocab_size - 1000)  # ids below 1,000 aren't sampled
    decided = "" if ratios["previous token"] > 2 else ": this knock-out decides nothing"
    return (
        f"The loss of {complete:.2f} grows to {lost['induction']:.2f} without ten induction heads, "
        f"and to {beside['induction']:.2f} at most without others of their layers. Without ten "
        f"previous-token heads, {ratios['previous token']:.1f} times as much loss is added as "
        f"without others{decided}. An even guess among the tokens has {even:.1f}."
    )


# %% [markdown]
# ## 10. What does a sink hand over?
# In LLM06, SmolLM2's heads put much of their weight on the first token. Xiao et al. (2023) call it
# a sink: a place for weight that must go somewhere. Heads that put more than half of their weight
# there are **sink heads** below. A head's output is $\sum_j p_j v_j$. So if $v_1$ is small, the
# first token adds little. We measure the norm of each head's $v_1$, relative to the mean norm of
# other values. The output then passes $W_O$, which could enlarge this part. We don't measure that.
#
# There are two controls. One is the second token's value in the same sink heads. The other is
# $v_1$ in the heads that put less than a tenth of their weight on the first token. Most of these
# heads are in layers without sink heads (see the colours in the figure). In layers with sink heads,
# $v_1$ is small in nearly all heads. So this control compares mostly layers, and decides nothing.
#
# In many models a few coordinates of the first token are huge: **massive activations** (Sun et al.
# 2024). If SmolLM2 has them, RMSNorm maps every first token to nearly the same vector, so the value
# is nearly the same, too. Why is it *small*? RMSNorm gives all tokens the same length, up to its
# gains. So the gains and $W_V$ must shrink the first token's direction. We measure none of this.


# %% Sinks
@lab.experiment
@torch.no_grad()
def sinks_have_small_values(run: Run):
    """SmolLM2's first token has a small value in sink heads. The second token's value there is
    at least half of an ordinary one.

    Predict: in the median sink head, how large is its value, relative to other tokens' values?
    """
    model, _, _ = language_model(run)
    config = model.config
    size = (run.pick(tiny=8, small=32, full=64), 64)
    ids = torch.randint(1000, config.vocab_size, size, device=run.device)
    outputs = model(ids, output_hidden_states=True)
    weights = weights_of(model, ids)  # (L, B, H, T, T)
    sharing = config.num_attention_heads // config.num_key_value_heads
    ratios = {0: [], 1: []}  # the place of the token -> (heads,) for each layer
    for i, layer in enumerate(model.model.layers):
        x = layer.input_layernorm(outputs.hidden_states[i])
        v = layer.self_attn.v_proj(x).unflatten(-1, (-1, config.head_dim))  # (B, T, Hkv, D)
        norms = v.norm(dim=-1).mean(0).repeat_interleave(sharing, -1)  # (T, H)
        for place in ratios:
            ratios[place].append(norms[place] / norms[2:].mean(0))
    sink = weights[:, :, :, 32:, 0].mean((1, 3)).flatten()  # (L·H,)
    ratio = torch.cat(ratios[0])  # (L·H,)
    control = torch.cat(ratios[1])
    sinks = sink > 0.5
    rest = sink < 0.1
    share = sinks.float().mean().item()
    run.measure("share of heads with more than half of their weight on it", share)
    run.measure("share of heads with less than a tenth", rest.float().mean())
    small = "half of an ordinary value"
    label = "sink heads: its value ÷ other values, median"
    run.measure(label, ratio[sinks].median(), expect_at_most=0.5, because=small, decides=True)
    near = "at least half of an ordinary value, and at most twice"
    label = "sink heads: the second token's value ÷ other values, median"
    second = control[sinks].median()
    run.measure(label, second, expect_between=(0.5, 2), because=near, decides=True)
    label = "heads with less than a tenth: its value ÷ other values, median"
    run.measure(label, ratio[rest].median())
    between = ratio[~sinks & ~rest].median()
    run.measure("heads in between: its value ÷ other values, median", between)
    deeper_figures.show_sinks(run, sink, ratio, config.num_hidden_layers, sharing)
    return (
        f"{100 * share:.0f} % of the heads are sink heads. The norm of the first token's value, "
        f"relative to other values, has a median of {ratio[sinks].median():.2f} in them, of "
        f"{ratio[rest].median():.2f} in heads that hardly look at it, and of {between:.2f} in the "
        "heads between."
    )


# %% [markdown]
# ## 11. Does the model need its sink?
# A small value can still matter. Suppose other values have the norm 1. A weight of 0.9 on a value
# of 0.2 adds 0.18, more than all other tokens together can add with the remaining 0.1. So remove
# it, in all heads of all layers at once, and measure the loss on Shakespeare's plays, from the
# ninth token of each text on. There are two ways:
#
# - **Remove the value.** Mask nothing, and leave $p_1 v_1$ out of each later token's output. In
#   `sinks.py`, two hooks in each layer do it.
# - **Hide the key.** Mask the first token. Its weight goes to the other tokens.
#
# We hide the key in two ways:
#
# - **From the third token on.** The second token has seen the first, so its vector isn't that of a
#   token that starts a text. Does it still become a sink? We measure its weight.
# - **From the second token on.** Nothing from the first token reaches a later one, and RoPE depends
#   only on distances. So the model computes the same as for the text *without* its first token.
#   That text starts with the second token, so we expect the second token to be the sink.
#
# The control hides the second token's key from the third token on. This token has little weight. So
# the control shows only what hiding a key costs by itself. Removing a value has no such control.
#
# Why can a small value matter? If it is nearly the same in all texts, later layers can expect it as
# a constant. Sun et al. set the huge coordinates to their means over other texts, and lose nothing:
# their models need the constant, not the token. But a value of 0 is also new to all later layers
# (section 9), and here it is 0 in all heads at once. We don't separate the two causes.


# %% Hidden sinks
@lab.experiment
@torch.no_grad()
def the_loss_grows_without_the_sinks_value(run: Run):
    """SmolLM2's loss grows without the first token's small value. Hiding this token's key from all
    later tokens is the same as deleting the token.

    Predict: the sink's value has a fifth of the usual norm. How much does the loss grow without it?
    """
    model, _, tokenizer = language_model(run)
    ids = head_patterns.random_texts(run, tokenizer)  # (B, 64), of Shakespeare's plays
    losses, weights = loss_on_text(model, ids)  # (B,), and the weights on two tokens
    with without_the_first_value(model):
        no_value = loss_on_text(model, ids)[0] - losses  # what each text gains, (B,)
    hidden_late, weights_late = loss_on_text(model, ids, (0, 2))
    hidden, weights_hidden = loss_on_text(model, ids, (0, 1))
    deleted = loss_on_text(model, ids[:, 1:], start=6)[0]
    control = loss_on_text(model, ids, (1, 2))[0] - losses
    from_third = hidden_late - losses
    from_second = hidden - losses
    clear = "three standard errors: chance alone reaches that in fewer than 1 of 200 runs"
    name = "loss added, value removed ÷ its standard error"
    run.measure(name, in_errors(no_value), expect_at_least=3, because=clear, decides=True)
    run.measure("loss added, key hidden from the third token on", from_third.mean())
    run.measure("loss added, second token's key hidden from the third on", control.mean())
    same = "the same computation: ten times the bound of one float32 product, for many layers"
    name = "loss, key hidden from the second token on − first token deleted"
    run.agree(name, hidden - deleted, at_most=1e-4, because=same, decides=True)
    table = [
        ["visible", *weights],
        ["hidden from the third token on", *weights_late],
        ["hidden from the second token on", *weights_hidden],
    ]
    columns = ["first token's key", "weight on the first token", "on the second token"]
    run.table("Mean weight of all heads, from the eighth token on", columns, table)
    most = "more than half of what the first token had"
    name = "weight on the second token, key hidden from the second token on"
    half = weights[0] / 2
    run.measure(name, weights_hidden[1], expect_at_least=half, because=most)
    added = {
        "value removed": no_value,
        "key hidden from the\nthird token on": from_third,
        "key hidden from the\nsecond token on": from_second,
        "second token's key\nhidden from the third on": control,
    }
    deeper_figures.show_added_losses(run, added)
    return (
        f"The loss of {losses.mean():.2f} grows by {with_error(no_value)} with the first token's "
        f"value removed, by {with_error(from_third)} with its key hidden from the third token on, "
        f"and by {with_error(from_second)} with it hidden from the second token on. The numbers "
        f"after ± are standard errors. The second token gets {weights_late[1]:.2f} of the weight "
        f"with the key hidden from the third token on, and {weights_hidden[1]:.2f} with it hidden "
        "from the second on."
    )


# %% [markdown]
# ## What to remember
# - Division by $\sqrt d$ keeps the softmax soft, if queries and keys have variance 1.
# - A KV cache has the keys and values of earlier tokens; positions must go on. `is_causal=True` is
#   aligned top-left: leave it out for one new token, and pass a mask for several.
# - A window saves memory only if hidden scores are never computed.
# - An online softmax needs no score matrix: in the forward pass, memory becomes linear. For the
#   backward pass, tiles must be recomputed. A kernel that also tiles the queries saves traffic.
# - A high score doesn't prove that a head is needed: another may do the same. Silence it, and
#   compare with other heads of the same layers.
# - In sink heads the first token's value is small, and still the loss grows without it. If this
#   token is hidden from all later ones, the second token becomes the sink.
#
# **Read on**: Beltagy et al. 2020, *Longformer* · Milakov & Gimelshein 2018, *Online normalizer
# calculation for softmax* · Dao et al. 2022, *FlashAttention* · Michel et al. 2019, *Are Sixteen
# Heads Really Better than One?* · Xiao et al. 2023 on sinks · Sun et al. 2024, *Massive Activations
# in Large Language Models* · Derrida 1981, *Random-Energy Model* · Rabe & Staats 2021,
# *Self-attention Does Not Need O(n²) Memory*. Next: LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
