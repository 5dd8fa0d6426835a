# %% [markdown]
# # LLM06+ · Attention, deeper
# Why scores are divided, how a model writes with a cache, attention for long texts, and what heads
# and sinks are worth.
#
# **You will be able to** predict the entropy of untrained attention; write with a cache; let each
# query look at a window of keys, with memory linear in the text's length; compute attention exactly
# and never hold the score matrix, as FlashAttention does; measure what a head is worth, and what a
# sink does.
# **Builds on** LLM06. **Takes** 35 minutes to read and a minute and a half to run (`tiny`, 2
# cores).

# %% Imports
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from labs.kit import Lab, Run, assets, seconds_paired, tolerance
from labs.kit.measure import peak_bytes
from labs.llm06_attention import deeper_figures, head_patterns, recall
from labs.llm06_attention.attention_maps import (
    attention_weights,
    jobs,
    language_model,
    patterns,
    weights_of,
)
from labs.llm06_attention.lesson import (
    AttentionOnly,
    attention,
    causal_mask,
    head_scores,
    masked_softmax,
)
from labs.llm06_attention.training import train_on_recall

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM06+")
lab.argument("--model", help="a Llama-like model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. Why the scores are divided
# How widely does an untrained query look? Its **entropy** answers: $H = -\sum_i p_i \ln p_i$ for
# the weights $p_i$. If $n$ keys share the weight evenly, $H = \ln n$. In general, about $e^H$ keys
# share it.
#
# Sample $n$ normal scores $s_i$ with variance 1, as the division by $\sqrt d$ gives. Let
# $Z = \sum_i e^{s_i}$ and $p_i = e^{s_i}/Z$. Then $H = \ln Z - \sum_i p_i s_i$. For many keys, $Z$
# approaches $n\,\text{E}[e^s] = n\sqrt e$, and $\sum_i p_i s_i$ approaches
# $\text{E}[s e^s]/\text{E}[e^s] = 1$. So
#
# $$H \approx \ln n - \frac{1}{2}$$
#
# The next term is $(e + 1)/(2n)$. For 256 keys $H$ is 5.05, and an even spread has 5.55. An
# untrained query looks almost everywhere.
#
# Without the division the scores have a standard deviation of $\sqrt d$. When it is far above
# $\sqrt{2 \ln n}$, which is 3.3 for 256 keys, the largest score alone takes nearly all the weight:
# the frozen phase of the random energy model (Derrida 1981). Then only the two largest scores
# count. Let $\Delta$ be their difference, and $h(\Delta)$ the entropy of two keys whose scores
# differ by $\Delta$. The difference of the two largest of $n$ normal numbers is nearly exponential,
# here with the mean $m = \sqrt d/\sqrt{2 \ln n}$. If $m$ is large, the exponential density falls so
# slowly that it is still about $1/m$ where $h$ has reached 0. So
#
# $$H \approx \frac{1}{m} \int_0^\infty h(\Delta)\,d\Delta
# = \frac{\pi^2}{6}\sqrt{\frac{2 \ln n}{d}}$$
#
# The query makes a hard choice before anything is learned. The slope of a weight over its own score
# is $p(1 - p)$. For weights near 0 or 1 it is nearly 0: hardly any gradient passes the softmax.


# %% Entropy
def entropy(scores: Tensor) -> Tensor:
    """Return the entropy in nats of the softmax over the last axis."""
    return scores.logsumexp(-1) - (scores.softmax(-1) * scores).sum(-1)


@lab.experiment
def scaling_keeps_the_entropy(run: Run):
    """Divided by √d, the weights' entropy is ln n − ½ at four widths; undivided it collapses.

    Predict: 256 keys, d = 1,024, nothing trained. How many keys share the weight without √d?
    """
    n = 256
    rows = []
    distances = []
    for d in (16, 64, 256, 1024):
        scores = torch.randn(64, 32, d) @ torch.randn(64, d, n)  # (sets of keys, queries, keys)
        divided = entropy(scores / math.sqrt(d)).mean(-1)  # one mean for each set of keys
        undivided = entropy(scores).mean().item()
        noise = 4 * divided.std().item() / math.sqrt(len(divided))
        distances.append(abs(divided.mean().item() - math.log(n) + 0.5) - noise)
        theory = math.pi**2 / 6 * math.sqrt(2 * math.log(n) / d)
        rows.append([d, divided.mean().item(), undivided, theory])
    run.table("Entropy (nats)", ["d", "divided", "undivided", "theory for large d"], rows)
    because = "twice the next term of the expansion, (e + 1)/2n"
    what = "divided: |entropy − (ln n − ½)| beyond four standard errors"
    run.check(what, distances, at_most=(math.e + 1) / n, because=because, decides=True)
    because = "twice the theory; an even spread has 5.55"
    what = "undivided: entropy at d = 1,024"
    run.check(what, rows[-1][2], at_most=2 * rows[-1][3], because=because, decides=True)
    run.figure(
        deeper_figures.entropies(rows, math.log(n) - 0.5),
        "entropy",
        "Entropy of the weights of 256 keys, nothing trained.",
        alt="Two lines over the width: one stays at 5.05, the other falls along the theory.",
    )
    shared = math.exp(rows[-1][1])
    alone = math.exp(rows[-1][2])
    return f"At d = 1,024 about {shared:.0f} keys share the weight, and {alone:.1f} without √d."


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

    Predict: the mask comes after the softmax. To how many of the later tokens is there a gradient?
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
    because = "so a gradient would be seen; rounding gives 1e-16"
    behind = slopes["before"][~future].min()
    run.check("smallest towards the past", behind, at_least=1e-9, because=because)
    leak = slopes["after"][future].min()
    name = "masked after the softmax: smallest towards the future"
    run.check(name, leak, at_least=1e-9, because=because, decides=True)
    return (
        f"Masked too late, every output has a gradient to every later token: at least {leak:.1g}."
    )


# %% [markdown]
# ## 3. Write with a cache
# A model that writes adds one token at a time. Without a cache, step $t$ computes all $t$ queries
# again, with $t^2$ scores, and needs only the last row of them. With a cache it computes one query,
# one key and one value, appends key and value to the earlier ones, and needs $t$ scores.
#
# Two details matter. The first step is usually the prompt: many new tokens at once, and among them
# the mask must still be causal. And positions must go on: with RoPE, the token at step $t$ is
# rotated as number $t$, although it is alone in its batch. Its key is stored rotated, because its
# position never changes.


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


def write(q: Tensor, k: Tensor, v: Tensor, prompt: int, counts: bool) -> Tensor:
    """Return the outputs of all tokens: the prompt at once, then one by one, with RoPE.

    Without `counts`, each step rotates its tokens as if they were the first of a text.
    """
    outputs = []
    cache = None
    start = 0
    for size in (prompt, *[1] * (q.shape[-2] - prompt)):
        new = slice(start, start + size)
        first = start if counts else 0
        queries = recall.rope(q[..., new, :], start=first)
        keys = recall.rope(k[..., new, :], start=first)
        output, cache = attend_with_cache(queries, keys, v[..., new, :], cache)
        outputs.append(output)
        start += size
    return torch.cat(outputs, -2)


@lab.experiment
def a_cache_changes_no_output(run: Run):
    """Written token by token with a cache, the outputs equal those of the full text.

    Predict: each step rotates its token as the first one. Does the output change?
    """
    q, k, v = torch.randn(3, 2, 3, 40, 16, dtype=torch.float64)  # (B, H, T, D) each
    expected = attention(recall.rope(q), recall.rope(k), v, causal_mask(40, 40))
    run.agree("with a cache − at once", write(q, k, v, 30, True) - expected, decides=True)
    wrong = (write(q, k, v, 30, False) - expected).abs()
    because = "the same computation: rounding is 1e-16"
    name = "always at position 0: largest change in the prompt"
    run.check(name, wrong[..., :30, :].max(), at_most=1e-12, because=because)
    because = "the values are of size 1"
    name = "always at position 0: largest change after the prompt"
    run.check(name, wrong[..., 30:, :].max(), at_least=0.1, because=because, decides=True)
    return "Only the tokens after the prompt are wrong: a test of the prompt alone finds nothing."


# %% [markdown]
# ## 4. The trap of is_causal
# PyTorch's `is_causal=True` aligns its triangle *top-left*. With a cache, the new query is the
# last position, but this mask treats it as the first.


# %% Alignment of the mask
@lab.experiment
def is_causal_aligns_top_left(run: Run):
    """With `is_causal=True`, a new query on cached keys sees only the first key.

    Predict: one new query, 64 cached keys, `is_causal=True`. How wrong is the output?
    """
    q, k, v = torch.randn(3, 32, 8, 64, 16, dtype=torch.float64)  # (B, H, T, D) each
    new = q[:, :, -1:]  # one query and a full cache
    trusting = F.scaled_dot_product_attention(new, k, v, is_causal=True)
    masked = F.scaled_dot_product_attention(new, k, v, causal_mask(1, 64))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, -1:]
    run.agree("its output − the first value", trusting - v[:, :, :1], decides=True)
    run.agree("with our mask: output − the last output without a cache", masked - expected)
    error = (trusting - expected).square().mean().sqrt()
    because = "v₁ − Σpv has the variance 1 − 2/64 + Σp²; its root is 1.004, ± 0.011 over samples"
    what = "root mean square error; a value's standard deviation is 1"
    run.check(what, error, at_least=0.9, because=because, decides=True)
    return f"The error is {error:.2f} times the standard deviation of a value: all wrong."


# %% [markdown]
# ## 5. Attention alone sees a set
# Nothing in the formula depends on *where* a key stands. Shuffle the tokens, and the outputs are
# the same, shuffled alike. Two things end this: a causal mask, which lets later tokens see more,
# and positions, such as RoPE (LLM05b).


# %% Order
@lab.experiment
def attention_alone_sees_a_set(run: Run):
    """Shuffled tokens give shuffled outputs; a causal mask or positions put an end to that.

    Predict: "dog bites man" and "man bites dog", no mask, no positions. Does "bites" differ?
    """
    x = torch.randn(64, 32, dtype=torch.float64)
    order = torch.randperm(64)
    ways = {
        "no mask, no positions": lambda x: attention(x, x, x),
        "causal": lambda x: attention(x, x, x, causal_mask(64, 64)),
        "rotary positions": lambda x: attention(recall.rope(x), recall.rope(x), x),
    }
    changes = {name: (f(x[order]) - f(x)[order]).abs().max() for name, f in ways.items()}
    run.agree("change, no mask, no positions", changes["no mask, no positions"], decides=True)
    for name in ("causal", "rotary positions"):
        because = "the values are of size 1"
        run.check(f"change, {name}", changes[name], at_least=0.01, because=because, decides=True)
    return "Without mask and positions, a token's output is the same in any order of the others."


# %% [markdown]
# ## 6. A sliding window
# $T$ queries on $T$ keys make $T^2$ scores. If each query looks only at itself and the $w - 1$ keys
# before it, $Tw$ scores are enough (Longformer, Beltagy et al. 2020). Information still travels
# far: $L$ layers reach $L(w - 1)$ tokens back.
#
# A mask alone saves nothing, because hidden scores are computed before they are hidden. So gather
# for each query its own $w$ keys. The first figure below shows it for six tokens and $w = 3$.
# Before the text stand $w - 1$ empty keys, which are masked. `unfold` returns all windows of
# neighbouring keys as a view, without copying them. The product of a query with its window has $w$
# scores instead of $T$. Real kernels work in blocks.


# %% A sliding window
@lab.exercise(
    level=2,
    hints=(
        "The queries are the last tq of tk positions: at which position is the first one?",
        "Subtract each key's position from each query's: what does a negative distance mean?",
        "A window of w holds the distances 0 to w − 1, its own key among them.",
    ),
)
def sliding_window_mask(tq: int, tk: int, window: int) -> Tensor:
    """Return (Tq, Tk), True for a query's own key and the `window` − 1 before it.

    The queries are the last Tq of Tk positions.
    """
    query = torch.arange(tk - tq, tk)[:, None]
    distance = query - torch.arange(tk)  # (Tq, Tk)
    return (distance >= 0) & (distance < window)


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

    Predict: 4,096 tokens, windows of 32 keys. How much faster than with a mask is it?
    """
    run.figure(
        deeper_figures.window(6, 3),
        "window",
        "The same scores twice. Masked, T² scores are computed and most are hidden. Gathered, each "
        "query has w scores; hatched cells lie before the text.",
        alt="Left: a square of scores with a band along the diagonal. Right: the band as a table "
        "with a row for each query and three columns.",
    )
    q, k, v = torch.randn(3, 1, 2, 50, 16, dtype=torch.float64)
    band = sliding_window_mask(50, 50, 8)
    error = local_attention(q, k, v, 8) - attention(q, k, v, band)
    run.agree("gathered − masked", error, decides=True)
    sizes = (2048, 4096)
    ways: dict[str, Any] = {
        "masked": lambda q, k, v: attention(q, k, v, sliding_window_mask(len(q), len(k), 32)),
        "windowed": partial(local_attention, window=32),
    }
    peaks = {}
    growth = {}
    for name, f in ways.items():
        peaks[name] = [peak_bytes(partial(f, *torch.randn(3, size, 16))) for size in sizes]
        growth[name] = math.log2(peaks[name][1] / peaks[name][0])
    because = "T² scores"
    what = "masked: exponent of the memory"
    run.check(what, growth["masked"], at_least=1.9, because=because, decides=True)
    because = "T·w keys, values and scores"
    what = "windowed: exponent of the memory"
    run.check(what, growth["windowed"], at_most=1.1, because=because, decides=True)
    qkv = torch.randn(3, sizes[-1], 16)
    slow = partial(ways["masked"], *qkv)
    fast = partial(ways["windowed"], *qkv)
    masked, windowed = seconds_paired(slow, fast, 5)
    ratio = median(a / b for a, b in zip(masked, windowed, strict=True))
    run.measure("time, masked ÷ windowed, T = 4,096", ratio, timed=True)
    return (
        f"At T = 4,096, windows need {peaks['windowed'][1] / 2**20:.0f} MiB instead of "
        f"{peaks['masked'][1] / 2**20:.0f} MiB, and {ratio:.1f} times less time."
    )


# %% [markdown]
# ## 7. Softmax in tiles
# The scores are the largest thing in attention: 256 MiB a head in float32 at $T$ = 8,192. They also
# cost **memory traffic**. The matrix products of one head need $4T^2D$ operations. Without tiles,
# the scores travel to memory and back several times: written by the product, read and written by
# the softmax, read again by the second product. That is at least $16T^2$ bytes in float32, so $D/4$
# operations per byte: 16 for heads of 64. A processor that can do more operations in the time of
# one byte waits for its memory. In bfloat16 the same count gives 32, and NVIDIA's data sheet of the
# H100 has 989 TFLOP/s and 3.35 TB/s, nearly 300. On a CPU the limit is lower, and the gain in time
# can be small: compare the times below.
#
# A softmax can be computed **online**, one tile of keys at a time (Milakov & Gimelshein 2018). For
# each query, store three things: the largest score $m$ so far, the sum $\ell$ of $e^{s - m}$, and
# the sum $o$ of values under these weights.
#
# A tile may bring a larger maximum $m'$. The stored sums refer to the old one, so rescale them:
#
# $$\ell \leftarrow e^{m - m'}\,\ell, \qquad o \leftarrow e^{m - m'}\,o$$
#
# At the end, $o/\ell$ is the output, exactly. Take the scores 1, then 3. First $\ell = 1$. Then
# $m' = 3$ and $\ell = e^{1 - 3} + 1$, which is $(e^1 + e^3)/e^3$.
#
# A tile of our code has the scores of *all* queries on 32 keys, and each tile rewrites $o$. So what
# falls is the memory, not the traffic. FlashAttention (Dao et al. 2022) tiles the queries, too. A
# tile's scores and sums then stay in the fast memory of the processor, and one kernel does all.


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

    Predict: a score of 1,000 comes in the last tile. What happens to the sums before it?
    """
    q, k, v = torch.randn(3, 2, 3, 100, 16, dtype=torch.float64)
    for scale in (1, 300):
        library = F.scaled_dot_product_attention(q * scale, k, v)
        if scale > 1:
            largest = (scale * q @ k.mT).max() / math.sqrt(q.shape[-1])
            because = "e to 710 overflows float64"
            run.check("largest score", largest, at_least=710, because=because, decides=True)
        error = tiled_attention(q * scale, k, v) - library
        what = f"tiles − library, scores times {scale}"
        run.agree(what, error, tolerance(torch.float64), decides=True)
    return "e to the difference of the maxima shrinks them, in float64 often to 0."


def cost(run: Run, f: Any, length: int) -> tuple[float, float]:
    """Return peak memory in MiB, and time relative to PyTorch's kernel, timed in turn."""
    qkv = torch.randn(3, 1, 4, length, 64)  # (q, k and v, B, H, T, D)
    peak = peak_bytes(partial(f, *qkv)) / 2**20
    qkv = qkv.to(run.device)
    fused = partial(F.scaled_dot_product_attention, *qkv)
    with run.accelerator.autocast(), torch.no_grad():
        ours, theirs = seconds_paired(partial(f, *qkv), fused, 7)
    return peak, median(a / b for a, b in zip(ours, theirs, strict=True))


@lab.experiment
def tiles_need_linear_memory(run: Run):
    """In tiles, the memory of attention grows linearly with the length instead of quadratically.

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
    because = "T² scores"
    run.check("by hand: exponent of the memory", growth["by hand"], at_least=1.9, because=because)
    because = "T·D and T·block"
    what = "tiles: exponent of the memory"
    run.check(what, growth["tiles"], at_most=1.1, because=because, decides=True)
    for name in ("by hand", "tiles"):
        run.measure(f"time of {name} ÷ fused, T = {sizes}", ratios[name], timed=True)
    run.figure(
        deeper_figures.costs(sizes, ratios, peaks),
        "cost",
        "Three ways to the same output: 4 heads of 64, no mask, forward. Time on the run's device "
        "in its precision, each way in turn with the fused kernel; memory on the CPU in float32.",
        alt="Two line plots over the length, of time and of memory, for attention by hand, "
        "in tiles and fused.",
    )
    memory = peaks["by hand"][-1] / peaks["tiles"][-1]
    return (
        f"At T = {sizes[-1]:,}, attention by hand takes {ratios['by hand'][-1]:.1f} times as long "
        f"as PyTorch's kernel, and our tiles {ratios['tiles'][-1]:.1f} times. Tiles need "
        f"{memory:.0f} times less memory than attention by hand."
    )


# %% [markdown]
# ## 8. What is a head worth?
# LLM06 found the two heads that do the recall, in a model with one head in each layer. Give each
# layer *two* heads and silence one of them. If the head with the highest score does the job alone,
# the accuracy collapses. If the other head can do it too, nothing happens. In large models many
# heads can be removed at little cost (Michel et al. 2019).


# %% Silenced heads
@lab.experiment
def a_score_is_not_a_worth(run: Run):
    """Without its best previous-token head recall suffers; an induction head has a spare.

    Predict: with two heads in each layer, what does silencing one of them cost?
    """
    tokens = recall.recall_batch(1000).to(run.device)
    rows = []
    without_both = []
    worths = []
    sentences = []
    for i, (name, pairs) in enumerate(recall.circuit(tokens).items()):
        lost = []
        for seed in run.seeds(3):
            model = train_on_recall(run, AttentionOnly, 2, 2, seed)[0]
            scores = head_scores(patterns(model, tokens)[i], pairs).tolist()
            reached = {}
            for heads in ((), (0,), (1,), (0, 1)):
                masks = [recall.PAST.expand(2, -1, -1).clone() for _ in range(2)]  # (H, T, T)
                masks[i][list(heads)] = False
                reached[heads] = recall.accuracy(model, tokens, masks)
            for head in (0, 1):
                row = [seed, i + 1, name, head + 1, scores[head], reached[(head,)], reached[()]]
                rows.append(row)
            lost.append(reached[()] - reached[(scores.index(max(scores)),)])
            without_both.append(reached[(0, 1)])
        run.measure(f"{name}: accuracy lost without the head of the highest score", lost)
        worths.append(lost)
        sentences.append(f"the best {name} head is worth {median(lost):.2f}")
    columns = ["seed", "layer", "job", "head", "score", "accuracy without it", "with all"]
    run.table("Two heads in each layer, one silenced", columns, rows)
    gap = min(worths[0]) - max(worths[1])
    spread = max(max(lost) - min(lost) for lost in worths)
    because = "the jobs differ by more than the seeds"
    what = "gap between the two jobs' losses ÷ largest range over the seeds"
    run.measure(what, gap / spread, expect_at_least=1, because=because, decides=True)
    because = "no better than one layer"
    run.check("accuracy without both heads of a layer", without_both, at_most=0.2, because=because)
    return f"In accuracy, {' and '.join(sentences)}."


# %% [markdown]
# ## 9. SmolLM2's weights, by hand
# If our code computes the attention weights of a real model, nothing about them is hidden. All it
# takes is the input of a layer, its two matrices, and RoPE with the model's own base.


# %% SmolLM2
@lab.experiment
@torch.no_grad()
def our_weights_are_smollm2s(run: Run):
    """Our code computes SmolLM2's attention weights from what enters each of its layers.

    Predict: leave out RoPE. By how much does the most different weight change?
    """
    model, ids, _ = language_model(run)
    seen = model(ids, output_attentions=True, output_hidden_states=True)
    turn = partial(recall.rope, base=model.config.rope_parameters["rope_theta"])
    errors = {"with RoPE": [], "without": []}
    for i, layer in enumerate(model.model.layers):
        x = layer.input_layernorm(seen.hidden_states[i])
        part = layer.self_attn
        matrices = (part.q_proj.weight, part.k_proj.weight, model.config.head_dim)
        for name, position in (("with RoPE", turn), ("without", nn.Identity())):
            difference = attention_weights(x, *matrices, position) - seen.attentions[i]
            errors[name].append(difference.abs().max())
    what = "largest difference, with RoPE"
    run.agree(what, max(errors["with RoPE"]), tolerance(torch.float32), decides=True)
    without = max(errors["without"])
    because = "otherwise positions wouldn't matter"
    run.check("largest without RoPE", without, at_least=0.1, because=because, decides=True)
    return f"Without RoPE, a weight changes by up to {without:.2f}: from nearly all to nothing."


# %% [markdown]
# ## 10. Silence heads of SmolLM2
# LLM06 found heads of SmolLM2 that look at what followed last time, and heads that look at the
# previous token. Does the model need them? Text that repeats shows it: the second half of repeated
# random tokens can only be predicted by looking back. Silence the ten heads with the highest scores
# for a job, and measure the loss there. The control silences as many other heads *of the same
# layers*, sampled at random, three times. If that costs as much, the knock-out decides nothing: any
# ten heads of these layers may matter. The control is needed, as a head that outputs 0 is a state
# that the layers after it hardly know from training, and they may fail for that reason alone. A
# loss above $\ln V$, 10.8 for SmolLM2, is worse than a uniform guess: such a model is sure of wrong
# tokens.


# %% Silenced heads of SmolLM2
@torch.no_grad()
def loss_without(model: Any, ids: Tensor, heads: list[tuple[int, int]]) -> float:
    """Return the loss on the second half of the texts with some (layer, head) silenced."""
    width = model.config.head_dim
    handles = []
    for layer, head in heads:
        part = slice(head * width, (head + 1) * width)

        def silence(_: Any, inputs: tuple[Tensor], part: slice = part) -> tuple[Tensor]:
            mixed = inputs[0].clone()  # (B, T, H·D)
            mixed[..., part] = 0
            return (mixed,)

        projection = model.model.layers[layer].self_attn.o_proj
        handles.append(projection.register_forward_pre_hook(silence))
    try:
        logits = model(ids).logits[:, ids.shape[1] // 2 : -1]  # (B, T/2 − 1, V)
    finally:
        for handle in handles:
            handle.remove()
    targets = ids[:, ids.shape[1] // 2 + 1 :]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()


def others_of_the_same_layers(chosen: list[tuple[int, int]], heads: int) -> list[tuple[int, int]]:
    """Sample as many other (layer, head) in each layer, or all if there are fewer."""
    others = []
    for layer in sorted({layer for layer, _ in chosen}):
        rest = [head for head in range(heads) if (layer, head) not in chosen]
        order = torch.randperm(len(rest))[: heads - len(rest)].tolist()
        others += [(layer, rest[i]) for i in order]
    return others


@lab.experiment
@torch.no_grad()
def smollm2_repeats_with_its_induction_heads(run: Run):
    """SmolLM2 repeats far worse without ten induction heads than without others of their layers.

    Predict: ten of 270 heads are silenced. How much does the loss grow, if ln V is 10.8?
    """
    model, _, _ = language_model(run)
    ids = head_patterns.repeated_tokens(run, model)  # (B, 64)
    weights = weights_of(model, ids)  # (L, B, H, T, T)
    pairs = jobs(ids)
    heads = weights.shape[2]
    complete = loss_without(model, ids, [])
    rows = [["no head", complete, complete]]
    for job in ("induction", "previous token"):
        scores = torch.stack([head_scores(layer, pairs[job]) for layer in weights])  # (L, H)
        order = scores.flatten().argsort(descending=True).tolist()
        best = [divmod(index, heads) for index in order[:10]]
        lost = loss_without(model, ids, best)
        others = [
            loss_without(model, ids, others_of_the_same_layers(best, heads)) for _ in range(3)
        ]
        rows.append([f"ten {job} heads", lost, max(others)])
        if job == "induction":
            because = "twice the worst of three random choices"
            what = "loss added by the ten best ÷ most added by others of the same layers"
            added = (lost - complete) / max(max(others) - complete, 1e-3)
            run.measure(what, added, expect_at_least=2, because=because, decides=True)
    columns = ["silenced", "loss", "worst loss without others of the same layers"]
    run.table("Loss on the second half (nats)", columns, rows)
    previous, beside = rows[2][1:]
    decided = previous - complete > 2 * (beside - complete)
    return (
        f"The loss of {complete:.2f} grows to {rows[1][1]:.2f} without ten induction heads, and to "
        f"{rows[1][2]:.2f} without others of their layers. Without ten previous-token heads it "
        f"grows to {previous:.2f}, and without others of their layers to {beside:.2f}: "
        + ("these heads are needed, too." if decided else "this knock-out decides nothing.")
    )


# %% [markdown]
# ## 11. What does a sink hand over?
# LLM06 showed that many heads of SmolLM2 put most of their weight on the first token. Xiao et al.
# (2023) call it a sink: a place for weight that must go somewhere. A head's contribution is
# $\sum_j p_j v_j$, so a **small value** makes the first token's contribution small. We measure the
# norm of each head's value of the first token, relative to the mean norm of the other tokens'
# values. There are two controls: the second token, and the heads that put less than a tenth of
# their weight on the first token. The two groups of heads mostly stand in different layers, and
# three query heads share a value. So this compares them, and doesn't say what makes a value small.


# %% Sinks
@lab.experiment
@torch.no_grad()
def sinks_have_small_values(run: Run):
    """SmolLM2's first token has a small value in sinks, an ordinary one in heads that ignore it.

    Predict: the value of the first token relative to other tokens' values. Larger or smaller?
    """
    model, _, _ = language_model(run)
    config = model.config
    size = (run.pick(tiny=8, small=32, full=64), 64)
    ids = torch.randint(1000, config.vocab_size, size, device=run.device)
    seen = model(ids, output_hidden_states=True)
    weights = weights_of(model, ids)  # (L, B, H, T, T)
    sharing = config.num_attention_heads // config.num_key_value_heads
    ratios = {0: [], 1: []}  # the place of the token -> (heads,) for each layer
    for i, layer in enumerate(model.model.layers):
        x = layer.input_layernorm(seen.hidden_states[i])
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
    because = "half of an ordinary value"
    what = "sinks: its value ÷ other values, median"
    run.measure(what, ratio[sinks].median(), expect_at_most=0.5, because=because, decides=True)
    ordinary = {"expect_between": (0.7, 1.4), "because": "within √2 of an ordinary value"}
    what = "sinks: the second token's value ÷ other values, median"
    run.measure(what, control[sinks].median(), decides=True, **ordinary)
    what = "heads with less than a tenth: its value ÷ other values, median"
    run.measure(what, ratio[rest].median(), decides=True, **ordinary)
    run.figure(
        deeper_figures.sinks(sink.tolist(), ratio.tolist()),
        "sinks",
        "Each point is a query head of the model, on random tokens. Query heads that share a "
        "key-value head share its value, and have the same height.",
        alt="A scatter plot. On the left, heads with little weight on the first token, at a ratio "
        "of about 1; on the right, heads with most of their weight there, at about 0.2.",
    )
    return (
        f"{100 * share:.0f} % of the heads are sinks. Their value of the first token has "
        f"{ratio[sinks].median():.2f} times the norm of other values, and "
        f"{ratio[rest].median():.2f} times in heads that hardly look at it."
    )


# %% [markdown]
# ## 12. Does the model need its sink?
# A small value is not no effect. Say that other values have the norm 1. A weight of 0.9 on a value
# of 0.2 adds 0.18, more than all other tokens together can add with the remaining 0.1. So remove
# it, in all heads at once, and measure the loss on English text. There are two ways:
#
# - **Remove the value.** Keep all weights, and leave $p_1 v_1$ out of each later token's output.
# - **Hide the key.** Mask the first token. Its weight goes to the other tokens.
#
# From which query on? If the first token is hidden from the third token on, no other token is like
# it. If it is hidden from the second token on, the second sees only itself, as a first token does.
# The control hides the second token from the third on.


# %% Hidden sinks
@torch.no_grad()
def loss_on_text(model: Any, ids: Tensor, hidden: tuple[int, int] | None = None) -> float:
    """Return the loss from the eighth token on; `hidden`: a key and the first query without it."""
    length = ids.shape[1]
    mask = causal_mask(length, length, ids.device)
    if hidden is not None:
        key, query = hidden
        mask[query:, key] = False
    lowest = torch.finfo(torch.float32).min
    bias = torch.zeros(mask.shape, device=ids.device).masked_fill(~mask, lowest)  # (T, T)
    logits = model(ids, attention_mask=bias.expand(len(ids), 1, -1, -1)).logits[:, 7:-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 8:].flatten()).item()


@contextmanager
def without_the_first_value(model: Any) -> Iterator[None]:
    """Leave the first token's value out of the outputs of all later tokens."""
    firsts = {}
    handles = []
    sharing = model.config.num_attention_heads // model.config.num_key_value_heads
    width = model.config.head_dim
    for layer in model.model.layers:
        part = layer.self_attn

        def remove(_: Any, _inputs: Any, v: Tensor, part: Any = part) -> Tensor:
            firsts[part] = v[:, 0]  # (B, Hkv·D)
            return torch.cat((torch.zeros_like(v[:, :1]), v[:, 1:]), 1)

        def restore(_: Any, inputs: tuple[Tensor], part: Any = part) -> tuple[Tensor]:
            own = firsts[part].unflatten(-1, (-1, width)).repeat_interleave(sharing, 1).flatten(1)
            return (torch.cat((own[:, None], inputs[0][:, 1:]), 1),)  # the first token sees itself

        handles.append(part.v_proj.register_forward_hook(remove))
        handles.append(part.o_proj.register_forward_pre_hook(restore))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@lab.experiment
@torch.no_grad()
def smollm2_needs_its_sink(run: Run):
    """SmolLM2 needs the first token, in spite of its small value, unless the second takes over.

    Predict: which costs more, to remove the sink's value or to hide its key?
    """
    model, _, tokenizer = language_model(run)
    text = torch.tensor(tokenizer(assets.shakespeare()[:50_000]).input_ids)
    rows = run.pick(tiny=8, small=32, full=64)
    starts = torch.randint(len(text) - 64, (rows, 1))
    ids = text[starts + torch.arange(64)].to(run.device)  # (B, 64)
    complete = loss_on_text(model, ids)
    hidden = loss_on_text(model, ids, (0, 2)) - complete
    taken_over = loss_on_text(model, ids, (0, 1)) - complete
    control = loss_on_text(model, ids, (1, 2)) - complete
    with without_the_first_value(model):
        removed = loss_on_text(model, ids) - complete
    because = "twice the control, and clearly more than none"
    least = max(2 * abs(control), 0.1)
    what = "loss added without the first token's"
    run.measure(f"{what} value", removed, expect_at_least=least, because=because, decides=True)
    run.measure(f"{what} key", hidden, expect_at_least=least, because=because, decides=True)
    run.measure("loss added without the second token's key", control)
    because = "less than half of the loss of a hidden sink"
    name = f"{what} key, if the second sees only itself"
    run.measure(name, taken_over, expect_at_most=hidden / 2, because=because, decides=True)
    return (
        f"The loss of {complete:.2f} grows by {removed:.2f} without the value of the first token, "
        f"and by {hidden:.2f} with its key hidden from the third token on. With the key of the "
        f"second token hidden in its place, it grows by {control:.2f}. With the first key hidden "
        f"from the second token, too, it grows by {taken_over:.2f}."
    )


# %% [markdown]
# ## What to remember
# - Division by $\sqrt d$ keeps the softmax of an untrained model soft.
# - A cache has the keys and values of earlier tokens; positions must go on. `is_causal=True` is
#   aligned top-left, so pass a mask.
# - A window saves memory only if hidden scores are never computed.
# - An online softmax needs no score matrix: memory becomes linear. A kernel that also tiles the
#   queries saves traffic.
# - A high score doesn't prove that a head is needed. Silence it, and compare with other heads of
#   the same layers.
# - A sink's value is small, and still the model relies on it. A second token that sees only itself
#   takes over the role.
#
# **Read on**: Beltagy et al. 2020, *Longformer* · Milakov & Gimelshein 2018, *Online normalizer
# calculation for softmax* · Dao et al. 2022, *FlashAttention* · Michel et al. 2019, *Are Sixteen
# Heads Really Better than One?* · Xiao et al. 2023 on sinks. Next: LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
