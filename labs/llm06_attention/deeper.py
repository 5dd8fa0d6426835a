# %% [markdown]
# # LLM06+ · Attention, deeper
# Attention for long texts: a window that needs linear work, tiles that need linear memory.
#
# **You will be able to** let each query look at a window of keys, with work linear in the text's
# length; compute attention exactly and never hold the score matrix, as FlashAttention does.
# **Builds on** LLM06, whose attention and masked softmax it imports. **Takes** ten minutes to read,
# half a minute to run (`tiny`, 2 cores).

# %% Imports
import math
from functools import partial
from statistics import median
from typing import Any

from labs.kit import Lab, Run, seconds_paired
from labs.kit.measure import peak_bytes
from labs.llm06_attention.lesson import attention, masked_softmax

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

lab = Lab("LLM06+")

# %% [markdown]
# ## 1. A sliding window
# $T$ queries on $T$ keys make $T^2$ scores. If every query looks at itself and the $w - 1$ keys
# before it, $Tw$ are enough (Longformer, Beltagy et al. 2020), and $L$ layers still reach
# $L(w - 1)$ back. A mask alone saves nothing, for what it hides has been computed; to save, lay
# before each query its own $w$ keys. (Real kernels do so in blocks, to copy less.)


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
    """(Tq, Tk), True for a query's own key and the `window` − 1 before it; aligned bottom-right."""
    distance = torch.arange(tk - tq, tk)[:, None] - torch.arange(tk)  # (Tq, Tk)
    return (distance >= 0) & (distance < window)


def local_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention under `sliding_window_mask` with T·w scores; (..., T, D) each."""
    k, v = (F.pad(x, (0, 0, window - 1, 0)).unfold(-2, window, 1) for x in (k, v))  # (..., T, D, w)
    index = torch.arange(q.shape[-2], device=q.device)[:, None] + torch.arange(window).to(q.device)
    scores = (q.unsqueeze(-2) @ k).squeeze(-2) / math.sqrt(q.shape[-1])  # (..., T, w)
    weights = masked_softmax(scores, index >= window - 1)  # nothing comes before the first key
    return (v @ weights.unsqueeze(-1)).squeeze(-1)  # (..., T, D)


@lab.experiment
def a_window_needs_linear_work(run: Run):
    """A window's own keys give what its mask gives on the whole, in matrix products linear in T."""
    q, k, v = torch.randn(3, 1, 2, 50, 16, dtype=torch.float64)
    band = sliding_window_mask(50, 50, 8)
    error = local_attention(q, k, v, 8) - attention(q, k, v, band)
    run.agree("the same as the mask", error, decides=True)
    counts, window = [], partial(local_attention, window=32)
    for f, t in ((attention, 512), (attention, 1024), (window, 512), (window, 1024)):
        with FlopCounterMode(display=False) as counter:
            q, k, v = torch.zeros(3, t, 16)
            f(q, k, v)
        counts.append(counter.get_total_flops())
    run.check("masked: twice the T, times the FLOPs", counts[1] / counts[0], equals=4.0)
    what = "windowed: twice the T, times the FLOPs"
    run.check(what, counts[3] / counts[2], equals=2.0, decides=True)


# %% [markdown]
# ## 2. Softmax without the whole row
# The scores are the largest thing in attention, 256 MiB a head in float32 at $T$ = 8,192. But a
# softmax can be computed **online**, one tile of keys at a time (Milakov & Gimelshein 2018). Keep
# for each query the largest score $m$ so far, the sum $\ell$ of $e^{s - m}$ over the scores $s$,
# and the sum $o$ of values under these weights.
#
# When a tile brings a larger maximum $m'$, what was kept refers to the old one, so correct it
# before the new terms are added:
#
# $$\ell \leftarrow e^{m - m'}\,\ell, \qquad o \leftarrow e^{m - m'}\,o$$
#
# In the end $o/\ell$ is the answer, exactly. Take the scores 1, then 3: first $\ell = 1$; then
# $m' = 3$ and $\ell = e^{1 - 3} + 1$, which is $(e^1 + e^3)/e^3$. So does FlashAttention (Dao et
# al. 2022).


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
    """Attention without a mask that never holds more than (..., Tq, block) scores."""
    top = q.new_full((*q.shape[:-1], 1), -math.inf)  # (..., Tq, 1)
    total = torch.zeros_like(top)
    mixed = q.new_zeros((*q.shape[:-1], v.shape[-1]))  # (..., Tq, Dv)
    for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
        scores = q @ keys.mT / math.sqrt(q.shape[-1])  # (..., Tq, block)
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))  # (..., Tq, 1)
        shrink, weights = (top - new_top).exp(), (scores - new_top).exp()
        total = total * shrink + weights.sum(-1, keepdim=True)  # (..., Tq, 1)
        mixed = mixed * shrink + weights @ values  # (..., Tq, Dv)
        top = new_top
    return mixed / total


@lab.experiment
def tiles_need_linear_memory(run: Run):
    """Tiles give the same answer in memory linear in T; the fused kernel, made of them, is fast."""
    q, k, v = torch.randn(3, 2, 3, 100, 16, dtype=torch.float64)
    for scale in (1, 300):  # at 300 the scores reach thousands, and e to that power is no float
        error = tiled_attention(q * scale, k, v) - F.scaled_dot_product_attention(q * scale, k, v)
        what = f"tiles less the library, {scale}-fold scores"
        run.agree(what, error, 1e-12 * scale, decides=True)
    sizes = run.pick(tiny=[128, 512, 1024, 2048], small=[512, 2048, 4096], full=[512, 4096, 8192])
    fused, (fig, axes) = F.scaled_dot_product_attention, plt.subplots(1, 2)
    for name, f in (("by hand", attention), ("tiles", tiled_attention), ("fused", fused)):
        times, peaks, ratios = [], [], []
        for t in run.progress(sizes, name):
            qkv = torch.randn(3, 1, 4, t, 64)  # (q, k and v, B, H, T, D)
            peaks.append(peak_bytes(partial(f, *qkv)) / 2**20)
            qkv = qkv.to(run.device)
            with run.accelerator.autocast(), torch.no_grad():
                ours, theirs = seconds_paired(partial(f, *qkv), partial(fused, *qkv), 7)
            times.append(1000 * median(ours))
            ratios.append(median(a / b for a, b in zip(ours, theirs, strict=True)))
        axes[0].loglog(sizes, times, "o-", label=name)
        axes[1].loglog(sizes, peaks, "o-")
        growth = math.log(peaks[-1] / peaks[-2]) / math.log(sizes[-1] / sizes[-2])
        bounds: dict[str, Any] = {"by hand": {"at_least": 1.9}, "tiles": {"at_most": 1.1}}
        if name in bounds:  # the fused kernel's memory is its author's choice
            what = f"{name}: memory grows as T to the"
            how = {"because": "T² scores, or T·D and T·block", "decides": name == "tiles"}
            run.check(what, growth, **bounds[name], **how)
            what = f"time, {name} over fused, {sizes}"
            run.measure(what, ratios, expect_at_least=1, timed=True, decides=True)
    for ax, title in zip(axes, ("time (ms)", "most memory held (MiB)"), strict=True):
        ax.set(xlabel="length T", title=title, xticks=sizes, xticklabels=sizes)
        ax.minorticks_off()
    axes[0].legend()
    run.figure(
        fig,
        "cost",
        "Three ways to the same answer: 4 heads of 64, no mask, forward. Time "
        "on the run's device in its precision, memory on the CPU in float32.",
        alt="Two line plots on log scales over the length, of time and of memory, for "
        "attention by hand, in tiles and fused.",
    )


# %% [markdown]
# ## What surprised
# The fused kernel isn't always the faster one: see your own figure. **Read on**: Beltagy et al.
# 2020, *Longformer* · Milakov & Gimelshein 2018, *Online normalizer calculation for softmax* · Dao
# et al. 2022, *FlashAttention*. Next: LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
