# %% [markdown]
# # LLM06+ · Attention, deeper
# Why scores are divided, what a cached query sees, attention for long texts, and heads that rest.
#
# **You will be able to** predict the entropy of untrained attention; let each query look at a
# window of keys, with work linear in the text's length; compute attention exactly and never hold
# the score matrix, as FlashAttention does; measure what a head is worth, and what a sink hands
# over.
# **Builds on** LLM06. **Takes** 25 minutes to read and a minute to run (`tiny`, 2 cores).

# %% Imports
import math
from functools import partial
from statistics import median
from typing import Any

from labs.kit import Lab, Run, assets, seconds_paired, tolerance
from labs.kit.measure import peak_bytes
from labs.llm06_attention import deeper_figures, recall
from labs.llm06_attention.lesson import (
    accuracy,
    attention,
    attention_weights,
    causal_mask,
    head_scores,
    language_model,
    masked_softmax,
    patterns,
    trained,
    weights_of,
)

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
# $\sqrt{2 \ln n}$, which is 3.3 for 256 keys, the largest score alone takes nearly all the weight.
# This is the frozen phase of the random energy model (Derrida 1981). The lead of the largest score
# is exponential with mean $\sqrt d/\sqrt{2 \ln n}$, which gives
#
# $$H \approx \frac{\pi^2}{6}\sqrt{\frac{2 \ln n}{d}}$$
#
# The query makes a hard choice before anything is learned. Such a softmax has nearly no gradient.


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
# If an output ignores a token, its derivative with respect to that token is exactly 0. So the
# Jacobian of causal attention must be a lower triangle. Autograd can compute all of it.


# %% Jacobian
@lab.experiment
def no_gradient_reaches_the_future(run: Run):
    """No output has a gradient towards a later token, if the mask comes before the softmax."""
    past = causal_mask(16, 16)
    x = torch.randn(16, 8, dtype=torch.float64)
    future = torch.arange(16) > torch.arange(16)[:, None]  # without the mask under test
    ways = {
        "before": lambda x: attention(x, x, x, past),
        "after": lambda x: ((x @ x.mT).softmax(-1) * past) @ x,
    }
    slopes = {}
    for name, f in ways.items():
        jacobian = torch.func.jacrev(lambda x, f=f: f(x).sum(-1))(x)  # (Tq, Tk, D)
        slopes[name] = jacobian.abs().amax(-1)  # (Tq, Tk)
    ahead = slopes["before"][future].max()
    run.check("largest towards the future", ahead, at_most=0, because="no path", decides=True)
    because = "so a gradient would be seen; rounding gives 1e-16"
    behind = slopes["before"][~future].min()
    run.check("smallest towards the past", behind, at_least=1e-9, because=because)
    leak = slopes["after"][future].median()
    name = "masked after the softmax: median towards the future"
    run.check(name, leak, at_least=1e-9, because=because, decides=True)


# %% [markdown]
# ## 3. The trap of is_causal
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
# ## 4. Attention alone sees a set
# Nothing in the formula depends on *where* a key stands. Shuffle the tokens, and the outputs are
# the same, shuffled alike. Two things end this: a causal mask, which lets later tokens see more,
# and positions, such as RoPE (LLM05b).


# %% Order
@lab.experiment
def attention_alone_sees_a_set(run: Run):
    """Shuffled tokens give shuffled outputs; a causal mask or positions put an end to that."""
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


# %% [markdown]
# ## 5. A sliding window
# $T$ queries on $T$ keys make $T^2$ scores. If each query looks only at itself and the $w - 1$ keys
# before it, $Tw$ scores are enough (Longformer, Beltagy et al. 2020). Information still travels
# far: $L$ layers reach $L(w - 1)$ tokens back.
#
# A mask alone saves nothing, because hidden scores are computed before they are hidden. To save
# work, gather for each query its own $w$ keys. Real kernels work in blocks and copy less.


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
def a_window_needs_linear_work(run: Run):
    """Attention on gathered windows equals the masked one, with work linear in the length."""
    q, k, v = torch.randn(3, 1, 2, 50, 16, dtype=torch.float64)
    band = sliding_window_mask(50, 50, 8)
    error = local_attention(q, k, v, 8) - attention(q, k, v, band)
    run.agree("gathered − masked", error, decides=True)
    flops = {}

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, sliding_window_mask(len(q), len(k), 32))

    ways = {"masked": masked, "windowed": partial(local_attention, window=32)}
    for name, f in ways.items():
        for length in (512, 1024):
            with FlopCounterMode(display=False) as counter:
                q, k, v = torch.zeros(3, length, 16)
                f(q, k, v)
            flops[name, length] = counter.get_total_flops()
    growth = {name: flops[name, 1024] / flops[name, 512] for name in ways}
    run.check("FLOPs for twice the length ÷ before, masked", growth["masked"], equals=4.0)
    what = "FLOPs for twice the length ÷ before, windowed"
    run.check(what, growth["windowed"], equals=2.0, decides=True)


# %% [markdown]
# ## 6. Softmax in tiles
# The scores are the largest thing in attention: 256 MiB a head in float32 at $T$ = 8,192. The time
# they cost is mostly **memory traffic**. The matrix products of one head need $4T^2D$ operations.
# Without tiles, the scores travel to memory and back several times: written by the product, read
# and written by the softmax, read again by the second product. That is at least $16T^2$ bytes in
# float32, so $D/4$ operations per byte. A processor that can do more operations in the time of one
# byte waits for its memory.
#
# A softmax can be computed **online**, one tile of keys at a time (Milakov & Gimelshein 2018). The
# scores of a tile stay in the processor's cache. For each query, store three things: the largest
# score $m$ so far, the sum $\ell$ of $e^{s - m}$, and the sum $o$ of values under these weights.
#
# A tile may bring a larger maximum $m'$. The stored sums refer to the old one, so rescale them:
#
# $$\ell \leftarrow e^{m - m'}\,\ell, \qquad o \leftarrow e^{m - m'}\,o$$
#
# At the end, $o/\ell$ is the output, exactly. Take the scores 1, then 3. First $\ell = 1$. Then
# $m' = 3$ and $\ell = e^{1 - 3} + 1$, which is $(e^1 + e^3)/e^3$. FlashAttention (Dao et al. 2022)
# does this in one kernel.


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
    """Attention in tiles equals the library's, also for scores whose exponential overflows."""
    q, k, v = torch.randn(3, 2, 3, 100, 16, dtype=torch.float64)
    for scale in (1, 300):  # at 300 the scores reach thousands, and e to that power is no float
        library = F.scaled_dot_product_attention(q * scale, k, v)
        error = tiled_attention(q * scale, k, v) - library
        what = f"tiles − library, scores times {scale}"
        run.agree(what, error, 1e-12 * scale, decides=True)


@lab.experiment
def tiles_need_linear_memory(run: Run):
    """In tiles, the memory of attention grows linearly with the length instead of quadratically.

    Predict: which of the three is fastest for long texts: by hand, in tiles, or PyTorch's kernel?
    """
    sizes = run.pick(tiny=[128, 512, 1024, 2048], small=[512, 2048, 4096], full=[512, 4096, 8192])
    fused = F.scaled_dot_product_attention
    ways = {"by hand": attention, "tiles": tiled_attention, "fused": fused}
    times = {name: [] for name in ways}
    peaks = {name: [] for name in ways}
    ratios = {name: [] for name in ways}
    for name, f in ways.items():
        for length in run.progress(sizes, name):
            qkv = torch.randn(3, 1, 4, length, 64)  # (q, k and v, B, H, T, D)
            peaks[name].append(peak_bytes(partial(f, *qkv)) / 2**20)
            qkv = qkv.to(run.device)
            with run.accelerator.autocast(), torch.no_grad():
                ours, theirs = seconds_paired(partial(f, *qkv), partial(fused, *qkv), 7)
            times[name].append(1000 * median(ours))
            ratios[name].append(median(a / b for a, b in zip(ours, theirs, strict=True)))
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
        deeper_figures.costs(sizes, times, peaks),
        "cost",
        "Three ways to the same output: 4 heads of 64, no mask, forward. Time on the run's device "
        "in its precision, memory on the CPU in float32.",
        alt="Two line plots on log scales over the length, of time and of memory, for attention by "
        "hand, in tiles and fused.",
    )
    shown = ", ".join(f"{name} {line[-1]:.0f} ms" for name, line in times.items())
    return f"At T = {sizes[-1]:,}: {shown}."


# %% [markdown]
# ## 7. What is a head worth?
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
    pairs = recall.circuit(tokens)
    rows = []
    without_both = []
    worths = []
    sentences = []
    for i, name in enumerate(("previous token", "induction")):
        lost = []
        for seed in run.seeds(3):
            model = trained(run, 2, 2, seed)[0]
            scores = head_scores(patterns(model, tokens)[i], pairs[i]).tolist()
            reached = {}
            for heads in ((), (0,), (1,), (0, 1)):
                masks = [recall.PAST.expand(2, -1, -1).clone() for _ in range(2)]  # (H, T, T)
                masks[i][list(heads)] = False
                reached[heads] = accuracy(model, tokens, masks)
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
    because = "several times the spread over the seeds"
    what = "smallest loss of a previous-token head − largest of an induction head"
    gap = min(worths[0]) - max(worths[1])
    run.measure(what, gap, expect_at_least=0.1, because=because, decides=True)
    because = "no better than one layer"
    run.check("accuracy without both heads of a layer", without_both, at_most=0.2, because=because)
    return f"In accuracy, {' and '.join(sentences)}."


# %% [markdown]
# ## 8. SmolLM2's weights, by hand
# If our code computes the attention weights of a real model, nothing about them is hidden. All it
# takes is the input of a layer, its two matrices, and RoPE with the model's own base.


# %% SmolLM2
@lab.experiment
@torch.no_grad()
def our_weights_are_smollm2s(run: Run):
    """Our code computes SmolLM2's attention weights from what enters each of its layers."""
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
    because = "otherwise positions wouldn't matter"
    run.check("largest without RoPE", max(errors["without"]), at_least=0.1, because=because)


# %% [markdown]
# ## 9. Silence the induction heads of SmolLM2
# LLM06 found heads of SmolLM2 that look at what followed last time. Does the model need them? Text
# that repeats shows it: the second half of repeated random tokens can only be predicted by looking
# back. Silence the ten heads with the highest induction scores, and measure the loss there. The
# control silences ten other heads, sampled at random, five times.


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


@lab.experiment
@torch.no_grad()
def smollm2_copies_with_induction_heads(run: Run):
    """Without its ten best induction heads, SmolLM2 predicts repetitions worse than without others.

    Predict: ten of 270 heads are silenced. How much does the loss grow, if ln V is 10.8?
    """
    model, _, _ = language_model(run)
    size = (run.pick(tiny=8, small=32, full=64), 32)
    half = torch.randint(1000, model.config.vocab_size, size, device=run.device)
    ids = half.repeat(1, 2)  # (B, 64)
    query, key = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    pairs = ((key == query - 31) & (query >= 32)).to(run.device).expand(len(ids), -1, -1)
    scores = torch.stack([head_scores(layer, pairs) for layer in weights_of(model, ids)])  # (L, H)
    order = scores.flatten().argsort(descending=True).tolist()
    heads = scores.shape[1]
    places = [divmod(index, heads) for index in order]
    complete = loss_without(model, ids, [])
    without_best = loss_without(model, ids, places[:10])
    others = []
    for _ in range(5):
        chosen = torch.randperm(len(places) - 10)[:10] + 10
        others.append(loss_without(model, ids, [places[i] for i in chosen.tolist()]))
    rows = [["no head", complete], ["the ten best", without_best], ["ten others", median(others)]]
    run.table("Loss on the second half (nats)", ["silenced", "loss"], rows)
    because = "the worst of five random choices"
    gap = without_best - max(others)
    what = "loss without the ten best − the largest without ten others"
    run.measure(what, gap, expect_at_least=0, because=because, decides=True)
    return (
        f"The loss is {complete:.2f} with all heads, {without_best:.2f} without the ten best, and "
        f"{median(others):.2f} without ten others."
    )


# %% [markdown]
# ## 10. What does a sink hand over?
# LLM06 showed that many heads of SmolLM2 put most of their weight on the first token. Xiao et al.
# (2023) call it a sink: a place for weight that must go somewhere. A head's contribution is
# $\sum_j p_j v_j$, so weight on the first token adds little if its **value is small**. We measure
# the norm of each head's value of the first token, relative to the mean norm of the other tokens'
# values. The control is the second token. A small value is not no effect: a weight of 0.9 on a
# value of 0.2 still adds 0.18. To learn the effect, one would have to remove it.


# %% Sinks
@lab.experiment
@torch.no_grad()
def sinks_have_small_values(run: Run):
    """In SmolLM2, heads that put most weight on the first token find a small value there.

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
    share = sinks.float().mean().item()
    run.measure("share of heads with more than half of their weight on it", share)
    because = "half of an ordinary value"
    what = "its value ÷ other values, median of those heads"
    run.measure(what, ratio[sinks].median(), expect_at_most=0.5, because=because, decides=True)
    because = "an ordinary token has an ordinary value"
    what = "the second token's value ÷ other values, median of the same heads"
    run.measure(
        what, control[sinks].median(), expect_between=(0.7, 1.4), because=because, decides=True
    )
    run.figure(
        deeper_figures.sinks(sink.tolist(), ratio.tolist()),
        "sinks",
        "Each point is a head of the model, on random tokens.",
        alt="A scatter plot: the more weight on the first token, the smaller its value.",
    )
    return (
        f"{100 * share:.0f} % of the heads are sinks. Their value of the first token has "
        f"{ratio[sinks].median():.2f} times the norm of other values."
    )


# %% [markdown]
# ## What to remember
# - Division by $\sqrt d$ keeps the softmax of an untrained model soft.
# - `is_causal=True` is aligned top-left. With a cache, pass a mask.
# - A window saves work only if hidden scores are never computed.
# - An online softmax needs no score matrix: memory becomes linear. A kernel that also tiles the
#   queries saves traffic.
# - A high score doesn't prove that a head is needed. Silence it and measure.
#
# **Read on**: Beltagy et al. 2020, *Longformer* · Milakov & Gimelshein 2018, *Online normalizer
# calculation for softmax* · Dao et al. 2022, *FlashAttention* · Xiao et al. 2023 on sinks. Next:
# LLM07, LoRA.

# %%
if __name__ == "__main__":
    lab.main()
