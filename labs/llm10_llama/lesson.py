# %% [markdown]
# # LLM10 · Build a tiny LLaMA from scratch
# Every part of a LLaMA put together, compared with the real one, trained, saved and talked to.
#
# **You will be able to** write a LLaMA: its attention, cache, blocks, generation and training step;
# predict its parameters and its first loss; load a real model's weights into it; train it on any
# text, and judge the loss by what counted n-grams reach; save it so that others can open it.
# **Builds on** LLM05a, LLM05b and LLM06, and LLM08's loop. **Takes** 45 minutes to read, three
# hours with the exercises, a minute to run at `tiny` on 2 cores.

# %% Imports
import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

from labs.kit import Lab, Results, Run, assets, tolerance
from labs.llm01_inference import called
from labs.llm04_tokenization import BPE
from labs.llm10_llama import figures, parts, probes, samples, training_figures
from labs.llm10_llama.conversion import as_they_are, from_transformers, renamed, to_transformers
from labs.llm10_llama.ladder import RUNGS, beside, beside_nanogpt, corpus, judged_on, nats, rungs
from labs.llm10_llama.parts import Config, choose, mix, padded_mask, parameters, random_tokens
from labs.llm10_llama.publishing import facts, save
from labs.llm10_llama.text_file import check_corpus
from labs.llm10_llama.training import Parts, require_below, sizes, trained
from labs.shared.small_gpt import lr_at

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

lab = Lab("LLM10")
lab.before_run(assets.check_model)
lab.before_run(check_corpus)
logging.disable_progress_bar()

# %% [markdown]
# ## 1. The model, drawn
# A LLaMA (Touvron et al. 2023) reads a text and scores every possible next token. The symbols: $V$
# tokens in the vocabulary, vectors of width $d$, $L$ blocks, $H$ query heads of width $D = d/H$,
# $H_\text{kv}$ key-value heads, a feed-forward width $d_\text{ff}$. `Config` has them, by default
# $d = 96$, $L = 4$; `tiny` trains 64 and 3, `small` 128 and 2. A batch has $B$ texts of $T$ tokens;
# in training, $T$ is `context`.
#
# - **Embedding.** Row $i$ of a matrix $E$, $V \times d$, is the vector of token $i$.
# - **Blocks.** Each adds two **branches** to the vector $x$: attention, then the feed-forward part.
#   A branch reads the normed $x$, and its output is added to $x$ itself.
# - **Output.** A last norm, then a product with a row for each token: $V$ scores, the **logits**.
#
# Norms are RMSNorm, the feed-forward part is SwiGLU: LLM05a's, in faster code. `parts.py` has both,
# `Config`, the masks and the table of angles. No matrix has a bias. Two changes
# against the first LLaMA are possible. Queries can be **grouped**, as in LLM06: at `tiny`, 4 heads
# share 2. The model can be **tied** (Press & Wolf 2017): then the output's matrix is $E$ itself.
#
# The shape alone gives the number of parameters. $W_q$ and $W_o$ have $d \cdot HD$ entries each,
# $W_k$ and $W_v$ have $d \cdot H_\text{kv}D$ each. SwiGLU has three matrices. A norm has $d$ gains:
#
# $$N = Vd + L\left(2d\,(H + H_\text{kv})\,D + 3d\,d_\text{ff} + 2d\right) + d$$
#
# Untied, the output adds $Vd$. Take a tied model with $V = 10$, $d = 4$, $L = 1$, $H = 2$,
# $H_\text{kv} = 1$, $D = 2$ and $d_\text{ff} = 6$. The embedding has 10 · 4 = 40, the block 2 · 4 ·
# 3 · 2 = 48 for attention, 3 · 4 · 6 = 72 for SwiGLU and 8 gains, the last norm 4. So $N = 172$.


# %% 1. The model, drawn
@lab.experiment
def the_model_as_a_drawing(run: Run):
    """The drawing has the shape of the model that this run trains, and each part's parameters.

    Predict: which part has the most parameters: embedding, attention, feed-forward or norms?
    """
    config, _ = sizes(run)
    counts = probes.predicted_parameters(config)
    total = sum(counts.values())
    run.measure("parameters, by a formula that section 4 checks", total)
    figures.model(run, config, counts)
    largest = max(counts, key=lambda part: counts[part])
    return f"The largest part is {largest}, with {counts[largest] / total:.0%} of {total:,}."


# %% [markdown]
# ## 2. Positions: a turn
# Attention treats the tokens that it sees as a set. **RoPE** (Su et al. 2021) turns, or rotates,
# queries and keys by an angle that grows with their position. A vector of width $D$ has $D/2$ pairs
# of coordinates. At position $t$, pair $i$ is turned by $t\,\theta^{-2i/D}$; $\theta$ is 10,000.
# With $D = 4$, position 3 turns pair 0 by 3 radians, pair 1 by $3 \cdot 10{,}000^{-1/2} = 0.03$.
#
# Turn $(1, 0)$ by 90° and you get $(0, 1)$. Write $(a, b)$ as the complex number $a + bj$,
# $j^2 = -1$. A turn by the angle $\varphi$ is a product with $\cos\varphi + j\sin\varphi$: for 90°,
# $1 \cdot j = j$. Only $m - n$ enters the product of a query at $m$ and a key at $n$ (LLM05b).
#
# We turn coordinates 0 and 1 together, then 2 and 3, as Meta's code does. PyTorch's complex numbers
# are two neighbours, too, so a view is enough. transformers turns $i$ with $i + D/2$ (section 7).


# %% 2. Positions
@lab.exercise(
    level=2,
    hints=(
        "Pair 0 has the coordinates 0 and 1: give the last axis the shape (D/2, 2).",
        "torch.view_as_complex reads (..., D/2, 2) as (..., D/2): multiply by turns.",
        "view_as_real, then the shape of x. bfloat16 has no complex type: x.float() before.",
    ),
)
def turn(x: Tensor, turns: Tensor) -> Tensor:
    """Turn queries or keys, (B, T, H, D), by complex numbers, (T, 1, D/2); the dtype stays."""
    wide = x.float() if x.dtype == torch.bfloat16 else x
    pairs = wide.view(*x.shape[:-1], -1, 2)  # (B, T, H, D/2, 2)
    turned = torch.view_as_complex(pairs) * turns  # (B, T, H, D/2)
    return torch.view_as_real(turned).view(x.shape).to(x.dtype)


# %% [markdown]
# ## 3. Attention with a cache
# A model that writes adds one token at a time. Keys and values of earlier tokens don't change, so
# we store them in a **cache**. The first step, called **prefill**, brings the entire prompt.
#
# Two details are easy to get wrong. Our cache stores turned keys, so a key is turned by its own
# position *before* it is stored. And the next token's position is the number of tokens in the
# cache, not 0. We make room for all tokens once: `torch.cat` would copy all of the cache at each
# step.
#
# The layer projects, splits into heads, turns, stores, and attends. `extend(k, v)` is
# `cache.extend` with the layer's number filled in: it stores the new keys and values, and returns
# all that the layer has so far. `self.mix` is PyTorch's attention (LLM06). Say the cache holds 3
# tokens and we add 2; 4 query heads of width 16 share 2 key-value heads. New queries are
# $4 \times 2 \times 16$, and `extend` returns $2 \times 5 \times 16$ keys and values. The first new
# query sees four keys, the second five.


# %% 3. Attention with a cache
class KVCache:
    """Room for keys and values in each layer, (B, H_kv, room, D), filled from the front."""

    def __init__(self, layers: int, shape: tuple[int, int, int, int], like: Tensor):
        self.keys = [like.new_zeros(shape) for _ in range(layers)]
        self.values = [like.new_zeros(shape) for _ in range(layers)]
        self.filled = [0] * layers  # tokens that each layer has stored
        self.room = shape[2]

    @lab.exercise(
        level=2,
        hints=(
            "The new tokens belong behind those that this layer has: self.filled[layer].",
            "Write k and v into the room from there, and count the new tokens of this layer alone.",
            "Return the filled part: the room behind it has no tokens yet.",
        ),
    )
    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, H_kv, T, D) twice; return all that the layer has then, (B, H_kv, Tk, D) twice.

        If there is no room for T more, raise a ValueError and change nothing.
        """
        start = self.filled[layer]
        end = start + k.shape[2]
        if end > self.room:
            raise ValueError(f"{end} tokens don't fit into room for {self.room}")
        self.keys[layer][:, :, start:end] = k
        self.values[layer][:, :, start:end] = v
        self.filled[layer] = end
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class Attention(nn.Module):
    """Query heads on as many or fewer key-value heads; the matrices are named as in Llama."""

    def __init__(self, d_model: int, heads: int, kv_heads: int):
        super().__init__()
        self.head_dim = d_model // heads
        self.mix: Callable[..., Tensor] = mix
        self.q_proj = nn.Linear(d_model, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, d_model, bias=False)

    @lab.exercise(
        level=3,
        hints=(
            "Project, name the heads (B, T, H, D), turn, and only then transpose to (B, H, T, D).",
            "Queries and keys are turned, values aren't; turned keys go into the cache.",
            "self.mix(q, k, v, mask) gives (B, H, T, D): transpose, flatten, end with o_proj.",
        ),
    )
    def forward(self, x: Tensor, turns: Any = None, extend: Any = None, mask: Any = None) -> Tensor:
        """Attend, (B, T, d) -> (B, T, d).

        `turns`, (T, 1, D/2), is for `turn`; None: no positions. `extend` stores new keys and values
        and returns all of them; None: no cache. `mask` is for `self.mix`; None: causal.
        """
        heads = (*x.shape[:2], -1, self.head_dim)
        q = self.q_proj(x).view(heads)  # (B, T, H, D)
        k = self.k_proj(x).view(heads)  # (B, T, H_kv, D)
        v = self.v_proj(x).view(heads)  # (B, T, H_kv, D)
        if turns is not None:
            q = turn(q, turns)
            k = turn(k, turns)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, H, T, D)
        if extend is not None:
            k, v = extend(k, v)  # (B, H_kv, Tk, D), with those of earlier tokens
        y = self.mix(q, k, v, mask)  # (B, H, T, D)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # (B, T, H·D) -> (B, T, d)


# %% [markdown]
# ## 4. Assembly
# A block is Pre-Norm: each branch norms its input, and its output is added to the vector that came
# in. So a path of additions leads from the embedding to the output. `Llama.forward` embeds, passes
# all blocks, norms, and multiplies by the output's matrix. With a cache of 3 tokens, the next token
# has position 3: `self.turns(3, T, device)` is what `turn` needs for $T$ positions from there. With
# `last`, only the last token is normed and scored, because generation needs no other logits.
# **Prompts of different lengths** are padded on the left, so each ends with a real token, and
# `padded_mask` hides the padding. The padding shifts positions, but not the distances that RoPE
# depends on.
#
# Tied means one **parameter** at both ends: not two equal copies, nor two parameters on one
# storage. Its gradient is the sum of both ends', and an optimizer moves it once.


# %% 4. Assembly
class Block(nn.Module):
    """Attention and a feed-forward part, each behind a norm and added to what came in."""

    def __init__(self, c: Config):
        super().__init__()
        self.input_layernorm = c.norm(c.d_model, c.eps)
        self.self_attn = Attention(c.d_model, c.heads, c.kv_heads)
        self.post_attention_layernorm = c.norm(c.d_model, c.eps)
        self.mlp = c.ffn(c.d_model, c.d_ff)

    @lab.exercise(
        level=1,
        hints=(
            "Norm x with input_layernorm, attend, and add the result to x, not to the normed x.",
            "The second branch starts from the new x: post_attention_layernorm, then mlp.",
            "self.self_attn takes turns, extend and mask as they are.",
        ),
    )
    def forward(self, x: Tensor, turns: Any, extend: Any = None, mask: Any = None) -> Tensor:
        """Add both branches, (B, T, d) -> (B, T, d); the other arguments are for attention."""
        x = x + self.self_attn(self.input_layernorm(x), turns, extend, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """A LLaMA of a given shape: (B, T) tokens -> (B, T, V) logits of the token after each."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = config.norm(config.d_model, config.eps)
        self.lm_head = nn.Linear(config.d_model, config.vocabulary, bias=False)
        for matrix in (p for p in self.parameters() if p.dim() == 2):
            nn.init.normal_(matrix, std=config.std)
        if config.tied:
            self.tie()

    def turns(self, start: int, length: int, device: torch.device) -> Tensor | None:
        """Return what `turn` takes for the positions from `start` on, (length, 1, D/2)."""
        return parts.rotations_from(self.config, start, length, device)

    def cache(self, batch: int, room: int) -> KVCache:
        """Return an empty cache for `batch` texts of up to `room` tokens."""
        shape = (batch, self.config.kv_heads, room, self.config.head_dim)
        return KVCache(self.config.layers, shape, self.embed_tokens.weight.detach())

    @lab.exercise(
        level=1,
        hints=(
            "Two layers can have the same nn.Parameter as their weight: assign it.",
            "Which of the two should stay? The embedding's numbers hold for both.",
            "Neither .data nor .copy_() nor a new nn.Parameter: one object under two names.",
        ),
    )
    def tie(self) -> None:
        """Make lm_head's matrix the embedding: one parameter at both ends."""
        self.lm_head.weight = self.embed_tokens.weight

    @lab.exercise(
        level=3,
        hints=(
            "Embed, pass all blocks one after the other, norm, and end with lm_head.",
            "start is cache.filled[0] before the blocks, 0 without a cache: self.turns(start, T, "
            "device). With a cache, block i gets extend = partial(cache.extend, i).",
            "mask = padded_mask(padding, T, start + T); with last, cut x[:, -1:] before the norm.",
        ),
    )
    def forward(self, tokens: Tensor, cache: Any = None, padding: Any = None, last=False) -> Tensor:
        """Return the logits after each token, (B, T) -> (B, T, V).

        The cache has the tokens before them, and gets the new ones. `padding` is (B,), the number
        of padding tokens at the left of each text. With `last`, return only the last, (B, 1, V).
        """
        length = tokens.shape[1]
        start = 0 if cache is None else cache.filled[0]
        turns = self.turns(start, length, tokens.device)
        mask = None if padding is None else padded_mask(padding, length, start + length)
        x = self.embed_tokens(tokens)  # (B, T, d)
        for i, block in enumerate(self.layers):
            extend = None if cache is None else partial(cache.extend, i)
            x = block(x, turns, extend, mask)
        if last:
            x = x[:, -1:]
        return self.lm_head(self.norm(x))


@lab.experiment
def tied_is_one_parameter(run: Run):
    """Tied, one matrix serves at both ends: counted once, and with both ends' gradients.

    Predict: which share of this run's model would a second matrix at the output add?
    """
    config, _ = sizes(run)
    model = Llama(config).double()
    apart = Llama(replace(config, tied=False)).double()
    for name, net in (("tied", model), ("untied", apart)):
        count = sum(probes.predicted_parameters(net.config).values())
        run.check(f"parameters, {name}", parameters(net), equals=count, decides=True)
        shared = net.lm_head.weight is net.embed_tokens.weight
        run.check(f"both ends are one parameter, {name}", shared, equals=net is model, decides=True)
    apart.load_state_dict(model.state_dict())
    tokens = random_tokens(config, 4, 17)
    each = probes.gradients(apart, tokens)
    ends = (each["embed_tokens.weight"], each["lm_head.weight"])
    tied = probes.gradients(model, tokens)["embed_tokens.weight"]
    run.agree("tied gradient − the sum of both ends' gradients", tied - sum(ends), decides=True)
    share = (ends[0].norm() / ends[1].norm()).item()
    run.check("gradient, entrance ÷ exit", share, at_least=0.01, because="both ends contribute")
    more = parameters(apart) / parameters(model) - 1
    return f"A second matrix at the output would add {more:.0%} to this run's model."


# %% [markdown]
# ## 5. Writing
# Generation repeats three steps: compute logits, choose a token, append it. `choose` divides the
# logits by the temperature, keeps the fewest top tokens whose probabilities add up to at least $p$,
# and samples one of them (LLM01).
#
# The first call reads the prompt into an empty cache; each later call brings one token. The model
# was trained on no larger distance than its context, so a cache has room for `context` tokens at
# most. If the next token doesn't fit, we start a new cache, and the model reads the last
# `context // 2` tokens into it. Half, so that this is rare. With a context of 8 and a prompt of
# 6, tokens 0 to 5, the calls read:
#
# | call | reads tokens | then the cache has | its first token, `first` |
# |---|---|---|---|
# | 1 | 0 to 5 | 0 to 5 | 0 |
# | 2, 3 | 6, then 7 | 0 to 7, so it is full | 0 |
# | 4 | 5 to 8, into a new cache | 5 to 8 | 5 |
#
# Tokens before `first` are dropped, so `padding - first` tokens of padding are left; below 0, none.


# %% 5. Writing
@lab.exercise(
    level=3,
    hints=(
        "cache = model.cache(B, min(context, prompt + new)), fresh = the prompt. Then a loop: "
        "model(fresh, cache, …), choose, append to ids; the new token is fresh.",
        "If cache.filled[0] + fresh.shape[1] > cache.room: a new cache with room for context, "
        "first = ids.shape[1] - context // 2, fresh = ids[:, first:].",
        "The model counts padding from the cache's first token: pass padding - first, last=True.",
    ),
)
def generate(model: Llama, ids: Tensor, new: int, choose=parts.greedily, padding=None) -> Tensor:
    """Return `new` tokens after each text: (B, T) -> (B, new).

    If the prompt is longer than the context, the model reads its end. `choose` takes (B, V) logits
    and returns (B,) tokens. `padding` is (B,), the padding at the left of each text. Call the model
    in `torch.inference_mode()`. Clone the result after that block: training can't use its tensors.
    """
    context = model.config.context
    prompt = ids.shape[1]
    first = max(0, prompt - context)  # the first token of ids that is in the cache
    fresh = ids[:, first:]
    with torch.inference_mode():
        cache = model.cache(len(ids), min(context, prompt + new))
        for _ in range(new):
            if cache.filled[0] + fresh.shape[1] > cache.room:
                cache = model.cache(len(ids), context)
                first = ids.shape[1] - context // 2
                fresh = ids[:, first:]
            hidden = None if padding is None else padding - first
            logits = model(fresh, cache, hidden, last=True)[:, -1].float()  # (B, V)
            fresh = choose(logits)[:, None]  # (B, 1)
            ids = torch.cat((ids, fresh), 1)
    return ids[:, prompt:].clone()  # outside of inference mode, so that gradients may use it


@lab.experiment
def no_logit_sees_the_future(run: Run):
    """No logit has a gradient to a later token; a cache and padding leave the logits as they are.

    Predict: the gradient of a logit to a later token's vector: very small, or exactly 0?
    """
    model = Llama(Config(50, d_model=48, layers=3, heads=6, kv_heads=2, d_ff=128, std=0.2)).double()
    tokens = random_tokens(model.config, 2, 20)
    slopes = probes.slopes_between(model, tokens)  # (place, token that it may depend on)
    future = torch.arange(20) > torch.arange(20)[:, None]
    run.check("largest slope to the future", slopes[future].max(), at_most=0, decides=True)
    because = "each place sees itself and all before"
    run.check("least slope to the past", slopes[~future].min(), at_least=1e-6, because=because)
    figures.slopes(run, slopes.numpy())
    with torch.no_grad():
        logits = model(tokens)
        for name, cuts in (("one by one", [1] * 20), ("prefill, then steps", [9, 1, 1, 7, 2])):
            cache = model.cache(2, 20)
            pieces = [model(piece, cache) for piece in tokens.split(cuts, 1)]
            run.agree(f"with a cache, {name}", torch.cat(pieces, 1) - logits, 1e-10, decides=True)
        probes.compare_padding(run, model, tokens)
    return f"It is exactly 0. To itself and to earlier tokens: {slopes[~future].min():.1g} or more."


# %% [markdown]
# ## 6. The first loss
# If all $V$ tokens were equally likely, the loss would be $\ln V$. Untrained, a model's loss is
# higher, because its logits are noise. After the last norm a token's vector has the squared length
# $d$. A logit is its product with a row of $d$ entries of standard deviation $\sigma$, and has the
# variance $d\sigma^2$. The loss is $\ln \sum_i e^{l_i}$ minus the target's logit. That logit is 0
# on average. The sum is nearly $V$ times the mean of $e^l$: $e^{s^2/2}$ for variance $s^2$.
#
# $$\text{loss} \approx \ln V + \frac{d\sigma^2}{2}$$
#
# For $V = 257$, $d = 96$, $\sigma = 0.05$ this is $5.55 + 0.12 = 5.67$. It holds while $d\sigma^2$
# is small, here at most 0.47. For large logits, the largest alone decides the sum. A first loss far
# above the formula says that the initialisation or a scale is wrong. It doesn't find every bug: a
# model that sees the future starts like a sound one (LLM10+).
#
# Tied, the vector contains the row of the token just read, and meets that row again at the output.
# So this token's logit is larger, by about $d\sigma$ times the cosine of the two. The branches
# lower the cosine: in four models from 0.78 at $\sigma = 0.01$ to 0.09 at 0.07, so the logit was
# 0.6 to 0.8. It is one of 257: in the mean of 160 models the loss grew by at most 0.002.


# %% 6. The first loss
@lab.experiment
def the_first_loss_is_predicted(run: Run):
    """The first loss is ln V plus half the variance of a logit, for all values of σ tried.

    Predict: PyTorch starts an embedding with σ = 1. What is a tied model's first loss then?
    """
    first_loss = partial(probes.first_loss, Llama)
    stds = (0.001, 0.01, 0.02, 0.03, 0.05, 0.07)
    losses = {}
    for name, tied in (("untied", False), ("tied", True)):
        # ε near 0: beside vectors as small as the smallest σ makes, 1e-5 would count
        losses[name] = [first_loss(Config(257, std=std, tied=tied, eps=1e-15)) for std in stds]
        probes.judge_first_losses(run, name, losses[name], stds)
    default = probes.first_loss(lambda c: probes.with_torchs_defaults(Llama(c)), Config(257))
    because = "a row of σ = 1 meets itself: a logit of nearly d = 96 for the token just read"
    run.check("PyTorch's own start, tied: loss", default, at_least=0.8 * 96, because=because)
    figures.first_losses(run, losses, stds, partial(probes.predicted_first_loss, 257, 96))
    return f"It is {default:.0f}: each token is predicted to repeat. A uniform guess costs 5.55."


# %% [markdown]
# ## 7. The real one
# Is it a LLaMA? Then `LlamaForCausalLM` with our weights must return our logits, and vice versa.
# Our modules have the same names as those of transformers, which turns $i$ with $i + D/2$. Row $i$
# of a head's part of $W_q$ or $W_k$ makes coordinate $i$, so we move the rows: first the even ones,
# then the odd. With $D = 6$, rows 0 1 2 3 4 5 become 0 2 4 1 3 5. Then we load LLM01's
# SmolLM2-135M, whose weights were rounded to 4 bits; we compute in float32. It has 30 blocks, $d$ =
# 576 and 9 query heads on 3. A wrong year isn't our code's fault: transformers writes the same.


# %% 7. The real one
@lab.experiment
def ours_equals_transformers(run: Run):
    """Our model equals LlamaForCausalLM with the same weights, in its logits and its gradients.

    Predict: we forget to reorder the rows of W_q and W_k. Does loading fail, or what happens?
    """
    config = Config(101, d_model=48, layers=3, heads=6, kv_heads=2, d_ff=136, std=0.2)
    because = "both compute angles in float32; in float32, sums have another order, too"
    for dtype in (torch.float64, torch.float32):
        ours = Llama(config).to(dtype)
        tokens = random_tokens(config, 3, 50)
        for gain in (p for p in ours.parameters() if p.dim() == 1):
            nn.init.uniform_(gain, 0.5, 2.0)  # they start as 1, which would prove nothing
        theirs = to_transformers(ours).eval()
        want = theirs(tokens).logits.detach()
        back = from_transformers(theirs, Llama)
        name = str(dtype).removeprefix("torch.")
        run.agree(f"logits, {name}", ours(tokens) - want, 1e-4, because, decides=True)
        run.agree(f"logits and back, {name}", back(tokens) - want, 1e-4, because, decides=True)
        mine = renamed(probes.gradients(ours, tokens), config.head_dim)
        its = probes.gradients(theirs, tokens)
        off = [((mine[key] - its[key]).norm() / its[key].norm()).item() for key in its]
        name = f"gradients, {name}: largest relative difference of a parameter's"
        run.check(name, max(off), at_most=1e-4, because=because, decides=True)
    wrong = from_transformers(theirs, Llama, as_they_are)
    off = (wrong(tokens) - want).abs().max().item()
    run.check("rows not reordered: largest difference", off, at_least=0.5, because="other weights")
    return f"There is no error: every shape fits. The logits are off by up to {off:.1f}."


@lab.experiment
@torch.no_grad()
def smollm2_lives_in_our_model(run: Run):
    """With SmolLM2's weights, our model returns its logits and writes its greedy text.

    Predict: our 30 blocks sum float32 numbers in another order. Largest error ÷ largest logit?
    """
    path = assets.pretrained(run.options.model, run.online)
    theirs: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    ours = from_transformers(theirs, Llama)
    new = run.pick(tiny=16, small=48, full=128)
    rows = []
    off = []
    unlike = 0
    for text in ("Shakespeare was born in", "The three primary colours are"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        want = theirs(ids).logits
        off.append(((ours(ids) - want).abs().max() / want.abs().max()).item())
        ours_wrote = generate(ours, ids, new)
        unlike += int((ours_wrote != probes.greedy_text(theirs, ids, new)).sum())
        rows.append([text, tokenizer.decode(ours_wrote[0])])
    because = "rounding in tens of layers"
    run.check("logits: |difference| ÷ largest", off, at_most=1e-4, because=because, decides=True)
    run.check("greedy tokens unlike theirs", unlike, equals=0, decides=True)
    run.table(f"Our code with the weights of {called(run)}", ["prompt", "text"], rows)
    return f"The logits differ by at most {max(off):.0e} of the largest one."


# %% [markdown]
# ## 8. Training
# The text is Shakespeare's plays, 5 MB, or `--corpus FILE`. Tokens are bytes, or LLM04's BPE with
# `--merges N`; one more marks the end of a text. The last tenth is for validation; `tiny` uses
# 65,536 tokens of it.
#
# **What does a loss mean?** Compare it with counting. A **bigram** model predicts a token from the
# one before it, a trigram model from the two before it, by their counts in the training text. In a
# new text some pairs have the count 0, so counts are smoothed (Witten & Bell 1991). If a history
# $h$ was seen $c$ times, followed by $k$ different tokens, the counts get the share $c/(c + k)$,
# and the next shorter history the rest. A history never seen leaves all to the shorter one; below
# the unigram is $1/V$:
#
# $$p(w \mid h) = \frac{c(h, w) + k(h)\,p(w \mid \text{shorter } h)}{c(h) + k(h)}$$
#
# Say "Q" was seen 9 times, always before "u". Then $p(\text{u}) = (9 + 1 \cdot p_0(\text{u}))/10$,
# with the unigram's $p_0$. The losses of 1-grams to 5-grams are a ladder, and each is a rung. In a
# short run our model reads only a part of the training text, and at the start of each validation
# window it lacks the text before it. The counts have both. Better smoothing would lower the rungs,
# though. A loss below a rung beats these counts; one above it doesn't show that counting is better.
# Losses closer than 0.02 count as level.
#
# **The loop** is LLM08's at its core, without micro-batches and clipping. Take $B$ windows of
# $T + 1$ tokens from anywhere in the text: the first $T$ are read, the last $T$ are the targets.
# Muon (Jordan et al. 2024) updates the blocks' matrices, AdamW the embedding and the gains; LLM10+
# explains Muon. Their rates rise for a twentieth of the steps and then fall to nearly zero.
# `backward` is Accelerate's; `training.py` has the rest. At `small` the windows come roughly in
# the order of the text, so the last ones are near the validation text, which helps the model.


# %% 8. Training
@lab.exercise(
    level=2,
    hints=(
        "Split (B, T + 1) into inputs tokens[:, :-1] and targets tokens[:, 1:].",
        "cross_entropy takes logits (B·T, V) and targets (B·T,).",
        "backward(loss), then step() and zero_grad() of each optimizer; return loss.detach().",
    ),
)
def training_step(model: nn.Module, optimizers: Any, tokens: Tensor, backward: Any) -> Tensor:
    """Update the model once on (B, T + 1) tokens; return the loss before the update, detached.

    `backward(loss)` computes the gradients; they are empty before the step, and must be after it.
    """
    logits = model(tokens[:, :-1])  # (B, T, V)
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    backward(loss)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


def training_loop(step_once, model, optimizers, steps, total, batch, set_rates, backward, after):
    """Call step_once, the exercise above, for each step.

    `steps` are the numbers still to do, of `total`. `set_rates(optimizers, share)` scales each
    optimizer's peak, `batch()` draws windows, `after` logs and saves checkpoints.
    """
    for step in steps:
        set_rates(optimizers, lr_at(step, total, total // 20))
        tokens = batch()  # (B, T + 1)
        loss = step_once(model, optimizers, tokens, backward)
        after(step, loss, tokens)


PARTS = Parts(Llama, training_step, generate, choose, training_loop)  # training.py calls these


@lab.experiment
def the_loss_passes_the_rungs(run: Run):
    """The loss falls below those of unigrams, bigrams and trigrams, counted in the same text.

    Predict: does it also reach the 4-grams, the 5-grams, or neither?
    """
    config, _ = sizes(run)
    result = trained(run, PARTS)
    loss = nats(result.model, judged_on(run), config.context)
    run.measure("nats per token", loss)
    lines = {"uniform": math.log(config.vocabulary), **rungs(run)}
    for name in RUNGS[:3]:
        require_below(run, name, lines[name] - loss)
    lines |= beside_nanogpt(run, loss)
    training_figures.show(run, result, lines, loss)
    return f"{loss:.3f} nats; {beside(rungs(run), loss)}."


@lab.experiment
def it_learns_to_spell(run: Run):
    """Most words that the model writes are words of its text; with letters mixed, far fewer are.

    Predict: from how many steps on is every second word one of them?
    """
    texts = samples.written(trained(run, PARTS))
    shares = {steps: samples.known_words(run, text) for steps, (_, text) in texts.items()}
    last = max(texts)
    run.measure("share of known words", shares[last], expect_at_least=0.5, decides=True)
    mixed = samples.shares_if_mixed(run, texts[last][1])
    because = "five standard errors of a share, for the 70 words of a sample"
    gap = shares[last] - mean(mixed)
    name = "that − the share if the sample's letters are mixed"
    run.measure(name, gap, expect_at_least=0.3, because=because, decides=True)
    figures.samples(run, texts, shares)
    since = samples.known_since(shares, 0.5)
    return f"Half of the words or more are known: {since}. With letters mixed: {mean(mixed):.0%}."


# %% [markdown]
# ## 9. For others to open
# In Hugging Face's form a model is a folder: weights in safetensors, `config.json`, the tokenizer,
# and a **model card** (Mitchell et al. 2019): what it is, what it was trained on, how good it is,
# and what it is not for. `invoke chat LLM10` talks to it; it only continues your text.


# %% 9. For others to open
@lab.experiment
@torch.no_grad()
def others_can_open_it(run: Run):
    """Saved with a card, the model opens without our code, and writes the same text.

    Predict: which files does such a folder need?
    """
    model = trained(run, PARTS).model
    text = corpus(run)
    folder = run.folder / "model"
    if not run.accelerator.is_main_process:
        return ""
    save(model, text, folder, **facts(run, model, text))
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = copy.deepcopy(model).cpu()
    prompt = "ROMEO\nWhat say you to this? — "
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    run.check("the tokenizer returns the text", tokenizer.decode(ids[0]), equals=prompt)
    same = ids[0].tolist() == BPE(text.merges).encode(prompt)
    run.check("its ids are LLM04's", same, equals=True, decides=True)
    off = (theirs(ids).logits - ours(ids)) / ours(ids).abs().max()
    run.agree("logits: |difference| ÷ largest", off, tolerance(torch.float32), decides=True)
    off = generate(ours, ids, 24) - probes.greedy_text(theirs, ids, 24)
    run.agree("greedy tokens, theirs − ours", off, 0, "the same model", decides=True)
    samples.show_probabilities(run, ours, tokenizer, PARTS)
    return f"{folder} has {', '.join(sorted(path.name for path in folder.iterdir()))}."


# %% [markdown]
# ## What to remember
# - A LLaMA is an embedding, blocks of two branches each, a norm and an output matrix.
# - Positions enter by a rotation of queries and keys. Our cache stores rotated keys.
# - Compare with a reference before you train: logits, gradients, text. Wrong layouts fit, too.
# - A first loss on the formula and a falling curve prove little. Ask what counting would reach.
# - A model is complete when others can open it and its card says what it is not for.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Report what this run's model reached."""
    loss = results.value("the_loss_passes_the_rungs", "nats per token")
    return f"## In this run\nThe loss is {loss:.3f} nats per token. Now try `invoke chat LLM10`."


# %% [markdown]
# **Read on**: Touvron et al. 2023, *LLaMA* · Karpathy's nanoGPT and nanochat · Shannon 1951 on
# n-grams and people. `benchmarks/nanogpt.py` runs nanoGPT's CPU recipe beside ours. **Deeper**:
# LLM10+ plants bugs, replaces parts, explains Muon, and tunes this model to reply.

# %%
if __name__ == "__main__":
    lab.main()
