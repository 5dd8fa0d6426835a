# %% [markdown]
# # LLM10 · A tiny LLaMA from scratch
# Every part of a LLaMA put together, proven equal to the real one, trained, saved and talked to.
#
# **You will be able to** write a LLaMA of which every line is known to you; foretell its first loss
# and its parameters; load a real model's weights into it and get that model's text; train it to a
# loss that means something; decode with a cache; save it so that others can open it. **Builds on**
# all labs before, above all norms and gates (LLM05a), attention (LLM06) and BPE (LLM04). **Takes**
# an hour and a half to read, two minutes to run (`tiny`, 2 cores). Its deeper part, LLM10+, shows
# what a step pays for its pages of memory, how the matrices lie there, and what each part is worth.

# %% Imports
import copy
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from labs.course.cards import WRONG_USAGE
from labs.kit import (
    Card,
    Checkpoints,
    Lab,
    Results,
    Run,
    assets,
    on_one_thread,
    seconds_paired,
    stop_on_nan,
    tolerance,
)
from labs.llm01_inference import called, draw, top_p
from labs.llm04_tokenization import BPE
from labs.llm05a_normalization import RMSNorm, SwiGLU
from labs.llm06_attention import causal_mask
from labs.llm10_llama import figures, view_data
from labs.llm10_llama.corpus import Text, open_text, prompt_of, tokenizer_of, witten_bell
from labs.llm10_llama.memory import keep_memory
from labs.llm10_llama.options import declare_options
from labs.shared.small_gpt import lr_at

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging

lab = Lab("LLM10")
declare_options(lab)
DOUBLE = torch.float64

# %% [markdown]
# ## 1. The parts
# A LLaMA (Touvron et al. 2023) is a decoder: token ids in, for each place a score for every token
# that might come next. We write $V$ for the size of the vocabulary, $d$ for the width of the
# vectors, $L$ for the number of layers, $H$ for query heads of width $D = d/H$, $H_\text{kv}$ for
# key-value heads, $B$ for the texts of a batch and $T$ for their length. On its way a token is
#
# - **embedded**: row $i$ of a matrix $E$ ($V \times d$) is the vector of token $i$;
# - changed by $L$ **blocks**, each of which adds two **branches** to the vector $x$: first it
#   becomes $x + \text{attention}(\text{norm}(x))$, then $x + \text{ffn}(\text{norm}(x))$;
# - normed once more and compared with a row for each token, which gives $V$ **logits**.
#
# Norms are RMSNorm, the feed-forward part is SwiGLU: both you wrote in LLM05a, and we import them.
# Attention is grouped-query attention, as in LLM06, by PyTorch's kernel, which you proved equal to
# yours. No matrix has a bias. Where the last matrix *is* $E$, the model is **tied** (Press & Wolf
# 2017).
#
# Positions are **RoPE** (Su et al. 2021): a query and a key are cut into pairs of coordinates, and
# at position $t$ pair $i$ is turned by the angle $t\,\theta^{-2i/D}$, with $\theta$ = 10,000. Turn
# $(1, 0)$ by 90° and it is $(0, 1)$. A pair $(a, b)$ is the complex number $a + bj$ (with
# $j^2 = -1$), and turning it by an angle $\varphi$ is *one* multiplication: with
# $\cos\varphi + j\sin\varphi$. The products $q \cdot k$ then depend on distances alone (LLM05b).
#
# **Which coordinates make a pair?** The paper, and Meta's own LLaMA, take neighbours: 0 and 1, 2
# and 3. `transformers` takes $i$ and $i + D/2$, and so did LLM06. Either works if it is kept to
# from the beginning, but weights that were trained in one layout are noise in the other. A row of
# $W_q$ makes one coordinate, so that reordering rows of $W_q$ and $W_k$ converts: with $D = 6$, the
# rows 0 1 2 3 4 5 of each head become 0 2 4 1 3 5. We use neighbours: they are complex numbers as
# they lie.


# %% 1. Positions
@cache
@torch.inference_mode(False)  # or training couldn't use a table that writing has made
def rotations(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """(length, 1, D/2), complex: at position t pair i is turned by t · theta^(−2i/D)."""
    t, twice_i = torch.arange(length, dtype=DOUBLE), torch.arange(0, head_dim, 2)
    angle = t[:, None] * theta ** (-twice_i / head_dim)  # (length, D/2)
    return torch.polar(torch.ones_like(angle), angle)[:, None].to(device, torch.complex64)


def turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate (B, T, H, D) by (T, 1, D/2): coordinates 2i and 2i + 1 are one complex number."""
    wide = x.float() if x.dtype == torch.bfloat16 else x  # there is no complex bfloat16
    pairs = torch.view_as_complex(wide.view(*x.shape[:-1], -1, 2))  # (B, T, H, D/2)
    return torch.view_as_real(pairs * turns).view(x.shape).to(x.dtype)


@lab.exercise(
    level=2,
    hints=(
        "The first axis holds the heads one after another, D rows each: unflatten it.",
        "In a head, row 2i goes to i and row 2i + 1 to i + D/2: (H, D/2, 2) has them side by side.",
        "unflatten(0, (-1, head_dim // 2, 2)), swap axes 1 and 2, flatten(0, 2).",
    ),
)
def to_halves(rows: Tensor, head_dim: int) -> Tensor:
    """(H·D, …) -> (H·D, …): each head's pairs (2i, 2i + 1) become (i, i + D/2)."""
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def to_neighbours(rows: Tensor, head_dim: int) -> Tensor:
    """The way back: find out where `to_halves` puts each row, and fetch it from there."""
    return rows[to_halves(torch.arange(len(rows)), head_dim).argsort()]


# %% [markdown]
# ## 2. Attention with a cache
# The $T$ new queries see the keys of the tokens before and their own up to them. When a text is
# written token by token, keys and values of all earlier tokens would be the same as the step
# before, so they are kept (LLM01). `transformers` appends to them, which copies all of them each
# time; we make room once and fill it. A step may bring one token or many: the **prefill** brings
# the prompt. A key is turned by its own position *before* it is kept, so the next token's position
# is the number of those in the cache, not 0.


# %% 2. Attention with a cache
class KVCache:
    """Room for keys and values in each layer, (B, H_kv, room, D), filled from the front."""

    def __init__(self, layers: int, shape: tuple[int, int, int, int], like: Tensor):
        self.keys, self.values = ([like.new_zeros(shape) for _ in range(layers)] for _ in range(2))
        self.filled, self.room = [0] * layers, shape[2]  # tokens that each layer holds

    @lab.exercise(
        level=2,
        hints=(
            "The new ones belong behind those that this layer holds already: self.filled[layer].",
            "Write k and v into the room from there, and count the new tokens of this layer alone.",
            "Return the filled part: the room behind it holds nothing that may be looked at.",
        ),
    )
    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep (B, H_kv, T, D) twice; return all that the layer holds then, (B, H_kv, Tk, D) twice.

        Raises:
            ValueError: where there is no room for T more; then nothing changes.
        """
        start, end = self.filled[layer], self.filled[layer] + k.shape[2]
        if end > self.room:
            raise ValueError(f"{end} tokens don't fit into room for {self.room}")
        self.keys[layer][:, :, start:end], self.values[layer][:, :, start:end] = k, v
        self.filled[layer] = end
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, the queries the last: (B, H, Tq, D), (B, H_kv, Tk, D) twice -> as q."""
    tq, tk = q.shape[-2], k.shape[-2]
    mask = causal_mask(tq, tk, q.device) if 1 < tq < tk else None  # is_causal aligns top-left
    how = {"is_causal": 1 < tq == tk, "enable_gqa": q.shape[1] != k.shape[1]}
    if not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(q, k, v, mask, **how)
    # On a CPU in float32: its kernel takes some five times as long backwards in bfloat16.
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, **how)


class Attention(nn.Module):
    """Query heads on as many or fewer key-value heads; the matrices are named as in Llama."""

    def __init__(self, d_model: int, heads: int, kv_heads: int):
        super().__init__()
        self.head_dim = d_model // heads
        self.mix: Callable[[Tensor, Tensor, Tensor], Tensor] = mix
        self.q_proj = nn.Linear(d_model, heads * self.head_dim, bias=False)
        self.k_proj, self.v_proj = (
            nn.Linear(d_model, kv_heads * self.head_dim, bias=False) for _ in range(2)
        )
        self.o_proj = nn.Linear(heads * self.head_dim, d_model, bias=False)

    @lab.exercise(
        level=3,
        hints=(
            "Project, name the heads (B, T, H, D), turn, and only then transpose to (B, H, T, D).",
            "Queries and keys are turned, values aren't; turned keys go into the cache.",
            "self.mix shares key-value heads by itself; merge its answer and end with o_proj.",
        ),
    )
    def forward(
        self, x: Tensor, turns: Tensor | None = None, extend: Callable[..., Any] | None = None
    ) -> Tensor:
        """(B, T, d) -> (B, T, d).

        Args:
            turns: what `turn` takes, (T, 1, D/2); None: no positions.
            extend: keeps new keys and values, and returns all of them; None: there is no cache.
        """
        projections, heads = (self.q_proj, self.k_proj, self.v_proj), (*x.shape[:2], -1)
        q, k, v = (f(x).view(*heads, self.head_dim) for f in projections)  # (B, T, H, D)
        if turns is not None:
            q, k = turn(q, turns), turn(k, turns)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, H, T, D)
        if extend is not None:
            k, v = extend(k, v)
        return self.o_proj(self.mix(q, k, v).transpose(1, 2).flatten(2))  # (B, T, H·D) -> (B, T, d)


# %% [markdown]
# ## 3. Assembly
# LLM05a's RMSNorm says what the layer does; in training it costs more than it should, because
# autograd goes back through each of its six steps. So here is its derivative in one go. With the
# gain $\gamma$, $r = 1/\sqrt{\text{mean}(x^2) + \varepsilon}$ and $y = \gamma r x$, entry by entry:
#
# $$
# \begin{aligned}
# dx &= r\,\gamma\,dy - x\,r^3\,\text{mean}(x\,\gamma\,dy) \\
# d\gamma &= \sum_\text{tokens} x\,r\,dy
# \end{aligned}
# $$
#
# (It is LLM05a's formula; only the passes over memory were counted.) And `F.silu` is one kernel
# where LLM05a's silu is two. Both are proven equal to what they replace, in section 6 and in
# LLM10+.


# %% 3. Assembly
class LeanRMSNorm(torch.autograd.Function):
    """RMSNorm of (..., d) in few passes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
        r = (size.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, gain, r)
        return (x * r).mul_(gain)

    @staticmethod
    def backward(ctx: Any, dy: Tensor):
        x, gain, r = ctx.saved_tensors
        product = dy * x
        share = (product @ gain)[..., None] * (r**3 / x.shape[-1])  # r³·mean(x·γ·dy)
        dx = (dy * gain).mul_(r).addcmul_(x, share, value=-1)
        return dx, r.flatten() @ product.flatten(0, -2), None


class Norm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return LeanRMSNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Gated(SwiGLU):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass(frozen=True)
class Config:
    """A Llama's shape; `norm` and `ffn` make the layers for vectors of width d."""

    vocabulary: int
    d_model: int = 96
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    d_ff: int = 256
    context: int = 64  # tokens it is trained to look back on
    theta: float | None = 10_000.0  # None: no positions
    eps: float = 1e-5
    tied: bool = True
    std: float = 0.05  # of every entry of every matrix, at the beginning
    norm: Callable[[int, float], nn.Module] = Norm
    ffn: Callable[[int, int], nn.Module] = Gated

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.input_layernorm = c.norm(c.d_model, c.eps)
        self.self_attn = Attention(c.d_model, c.heads, c.kv_heads)
        self.post_attention_layernorm = c.norm(c.d_model, c.eps)
        self.mlp = c.ffn(c.d_model, c.d_ff)

    def forward(self, x: Tensor, turns: Tensor | None, extend: Any = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turns, extend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """(B, T) tokens -> (B, T, V) logits of the token after each."""

    def __init__(self, config: Config):
        super().__init__()
        self.config, c = config, config
        self.embed_tokens = nn.Embedding(c.vocabulary, c.d_model)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = c.norm(c.d_model, c.eps)
        self.lm_head = nn.Linear(c.d_model, c.vocabulary, bias=False)
        for matrix in (p for p in self.parameters() if p.dim() == 2):
            nn.init.normal_(matrix, std=c.std)
        if c.tied:  # last, so that what was drawn for the embedding holds for both
            self.lm_head.weight = self.embed_tokens.weight

    def turns(self, start: int, length: int, device: torch.device) -> Tensor | None:
        """(length, 1, D/2): the rotations of the positions from `start` on."""
        if self.config.theta is None:
            return None
        most = max(self.config.context, start + length)
        table = rotations(most, self.config.head_dim, self.config.theta, device)
        return table[start : start + length]

    def forward(self, tokens: Tensor, cache: KVCache | None = None, last: bool = False) -> Tensor:
        """With a cache the tokens stand behind those that it holds; `last`: (B, 1, V) only."""
        start = 0 if cache is None else cache.filled[0]
        turns = self.turns(start, tokens.shape[1], tokens.device)
        x = self.embed_tokens(tokens)  # (B, T, d)
        for i, layer in enumerate(self.layers):
            x = layer(x, turns, None if cache is None else partial(cache.extend, i))
        return self.lm_head(self.norm(x[:, -1:] if last else x))

    def cache(self, batch: int, room: int) -> KVCache:
        size = (batch, self.config.kv_heads, room, self.config.head_dim)
        return KVCache(self.config.layers, size, self.embed_tokens.weight.detach())


# %% [markdown]
# ## 4. The first loss
# Untrained, a model should know nothing: $V$ equally likely tokens, a loss of $\ln V$. It is a
# little more. Let $h$ be the vector that meets the last matrix; after the norm its square length is
# $d$. A logit is $h \cdot e$ with a row $e$ whose $d$ entries have the standard deviation $\sigma$
# ("std" in the code), so it has variance $s^2 = d\sigma^2$. The loss is $\ln \sum_i \exp(l_i)$ over
# all logits $l_i$ minus the target's logit, whose mean is 0; and the mean of $\exp$ of a normal
# variable is $\exp(s^2/2)$. So, for $V$ large,
#
# $$\text{loss} \approx \ln V + \frac{d\sigma^2}{2}$$
#
# Tied, one logit is not like the others: that of the token itself. If $h$ still points along the
# token's own row $e$, whose length is about $\sigma\sqrt d$, its **own logit** $o = h \cdot e$ is
# $\sqrt d \cdot \sigma\sqrt d = d\sigma$: an untrained tied model thinks that each token comes
# twice! In the sum of $V$ terms one is $\exp(o)$ then:
#
# $$
# \text{loss} \approx
# \ln\left((V - 1)\exp\left(\frac{d\sigma^2}{2}\right) + \exp(o)\right) - \frac{o}{V}
# $$
#
# for targets drawn evenly. Does $h$ point there? A branch begins with a norm, so what it adds
# doesn't depend on how long $x$ is: entries of about $(\sigma\sqrt d)^2$, after two matrices,
# beside the embedding's of $\sigma$. They are small only where $d\sigma$ is small against 1: so $o$
# rises as $d\sigma$, then falls behind, and is hardly worth a thought in the sum. But where the
# branches' last matrices begin at 0, as some recipes have it, $o$ is $d\sigma$ in full: for
# $d = 96$ and $\sigma = 0.05$ that is 4.8, and $e^{4.8} = 121$ terms.
#
# A first loss far from the formula is the cheapest alarm that there is: a wrong init, a wrong
# scale, a target that leaks.


# %% 4. The first loss
def random_tokens(config: Config, batch: int, length: int) -> Tensor:  # (B, T)
    return torch.randint(config.vocabulary, (batch, length))


def silence(model: Llama) -> Llama:
    """Let every branch add 0: its last matrix is 0."""
    for name, matrix in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(matrix)
    return model


MODELS = 8  # that each first loss is the mean of


@torch.no_grad()
def first_loss(config: Config, change: Callable[[Llama], Llama]) -> list[float]:
    """Of untrained models on random tokens: their loss, the formula's, and the mean own logit."""
    v, spread, found = config.vocabulary, config.d_model * config.std**2, []
    for _ in range(MODELS):
        model, tokens = change(Llama(config)), random_tokens(config, 16, config.context + 1)
        x, logits = tokens[:, :-1], model(tokens[:, :-1])
        own = logits.gather(-1, x[..., None]).double()  # (B, T, 1)
        formula = torch.tensor(math.log(v) + spread / 2)
        if config.tied:
            terms = (v - 1) * math.exp(spread / 2) + own.exp()
            formula = (terms.log() - own / v).mean()
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        found.append([loss.item(), formula.item(), own.mean().item()])
    return [mean(column) for column in zip(*found, strict=True)]


@lab.experiment
def the_first_loss_is_foretold(run: Run):
    """The first loss is ln V plus half the variance of a logit; a large own logit comes on top.

    Predict: V = 257, d = 96, σ = 0.05, tied, silent branches. ln V is 5.55; and the first loss?
    """
    stds, rows, found = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05), [], {}
    cases = {
        "untied": (False, lambda model: model),
        "tied": (True, lambda model: model),
        "tied, branches silent": (True, silence),
    }
    for name, (tied, change) in cases.items():
        # with ε next to nothing: beside vectors as small as the smallest σ makes, it would count
        configs = [Config(257, std=std, tied=tied, eps=1e-15) for std in stds]
        found[name] = [first_loss(config, change) for config in configs]
        off = [abs(loss - formula) for loss, formula, _ in found[name]]
        because = "a mean over 8 models' 257 rows varies by s/√(8·257) at most: 0.011 at σ = 0.05"
        run.check(f"{name}: loss less formula", off, at_most=0.03, because=because, decides=True)
        rows += [[name, std, *one] for std, one in zip(stds, found[name], strict=True)]
    run.table("The first loss (nats)", ["", "σ", "loss", "formula", "own logit"], rows)
    parts = {
        name: [one[2] / (96 * std) for one, std in zip(found[name], stds, strict=True)]
        for name in cases
    }
    because = "|h| is √d, |e| is σ√d but for 1/√(2d) = 7 % from row to row"
    off = [abs(x - 1) for x in parts["tied, branches silent"]]
    run.check("own logit over d·σ, silent: off 1", off, at_most=0.05, because=because)
    run.measure("own logit over d·σ, tied, smallest σ", parts["tied"][0], expect_at_least=0.9)
    large, because = parts["tied"][-1], "d·σ is 4.8"
    run.measure("own logit over d·σ, tied, σ = 0.05", large, expect_at_most=0.5, because=because)
    stranger = max(abs(one[2]) for one in found["untied"])
    because = "five standard errors, 0.011 each at σ = 0.05: it is a logit like all others"
    run.check("own logit, untied", stranger, at_most=0.055, because=because)
    fig = figures.first_losses(stds, found, math.log(257))
    run.figure(
        fig,
        "first_loss",
        "Measured on random tokens, and what the formulas say.",
        alt="Line plot of the first loss over σ: for three kinds of model the formula's line "
        "and measured points; a dotted line marks ln V.",
    )
    plain, silent = (found[name][-1] for name in ("tied", "tied, branches silent"))
    return (
        f"At σ = 0.05 the tied model starts at {plain[0]:.2f}, its own logit {plain[2]:.1f}; with "
        f"silent branches at {silent[0]:.2f}, its own logit {silent[2]:.1f}."
    )


# %% [markdown]
# ## 5. Tying, and every parameter
# A block has $2dHD$ numbers in $W_q$ and $W_o$, $2dH_\text{kv}D$ in $W_k$ and $W_v$,
# $3d\,d_\text{ff}$ in the gated feed-forward part and $2d$ in its norms. With the last norm and,
# tied, one matrix $V \times d$:
#
# $$N = Vd + L\left(2d\,(H + H_\text{kv})\,D + 3d\,d_\text{ff} + 2d\right) + d$$
#
# Tied means one **storage**, not two equal copies. Its gradient is the sum of what comes from both
# ends. And the order matters: initialise, then tie, then measure. `nn.Linear` draws its matrix by a
# rule of its own (evenly up to $1/\sqrt d$), `nn.Embedding` with $\sigma = 1$; a model that ties
# first and initialises by layer afterwards gets whichever came last.


# %% 5. Tying
def expected_parameters(c: Config) -> int:
    """Return the number of parameters by the configuration: embedding, layers, norms, output."""
    heads = 2 * (c.heads + c.kv_heads) * c.head_dim  # of queries and output, of keys and values
    layer = c.d_model * (heads + 3 * c.d_ff + 2)  # two norms
    ends = c.vocabulary * c.d_model * (1 if c.tied else 2)
    return ends + c.layers * layer + c.d_model


def parameters(model: nn.Module) -> int:
    """How many numbers are learned; what is shared counts once."""
    return sum(p.numel() for p in model.parameters())


@lab.experiment
def tied_is_one_storage(run: Run):
    """Tied, one matrix serves at both ends: counted once, drawn once, with both ends' gradients."""
    for c in (Config(257), Config(257, tied=False), Config(1025, 128, 6, 8, 2, 344)):
        name = f"d {c.d_model}, {c.kv_heads} key-value heads, {'' if c.tied else 'un'}tied"
        count = parameters(Llama(c))
        run.check(f"parameters, {name}", count, equals=expected_parameters(c), decides=c.tied)
    c = Config(257, 48, 2)
    model, apart = Llama(c).double(), Llama(replace(c, tied=False)).double()
    shared, n = model.embed_tokens.weight, c.vocabulary * c.d_model
    one = model.lm_head.weight.data_ptr() == shared.data_ptr()
    run.check("both ends are one storage", one, equals=True, decides=True)
    twice = apart.lm_head.weight.data_ptr() == apart.embed_tokens.weight.data_ptr()
    run.check("both ends are one storage, untied", twice, equals=False, because="the partner")
    off, because = abs(shared.std().item() / c.std - 1), "five standard errors, 1/√(2·V·d) each"
    run.check(
        "σ after tying, relative error",
        off,
        at_most=5 / math.sqrt(2 * n),
        because=because,
        decides=True,
    )
    apart.load_state_dict(model.state_dict())
    tokens = random_tokens(c, 4, 17)

    def slopes(net: Llama, *of: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the loss to some of its parameters."""
        loss = F.cross_entropy(net(tokens[:, :-1]).mT, tokens[:, 1:])
        return torch.autograd.grad(loss, of)

    (both,) = slopes(model, shared)
    entrance, exit = slopes(apart, apart.embed_tokens.weight, apart.lm_head.weight)
    run.agree("its gradient, less the sum of both ends'", both - (entrance + exit), decides=True)
    share = (entrance.norm() / exit.norm()).item()
    run.check("the entrance's part, in the exit's", share, at_least=0.01, because="the partner")
    return f"Tying saves {n:,} of {parameters(apart):,} parameters here."


# %% [markdown]
# ## 6. The real one
# Is it a LLaMA? Then `transformers`' LlamaForCausalLM with our weights must give our logits, and we
# its with its weights. Our modules bear the same names; only the rows of $W_q$ and $W_k$ are
# reordered. A model that loads weights in the wrong layout raises no error at all: every shape
# fits.
#
# Logits alone don't prove a backward pass by hand, such as our norm's: so the gradients of a loss
# are compared as well, matrix by matrix, rows reordered.
#
# If that works for random numbers, it works for real ones: SmolLM2-135M (in its 4-bit release,
# dequantised) has 30 layers, $d = 576$, 9 query heads on 3, $\theta$ = 100,000, $V$ = 49,152.
# Section 7 loads it as soon as our model can write, and lets both write.


# %% 6. The real one
PREFIX, TURNED = "model.", ("q_proj.weight", "k_proj.weight")


def renamed(tensors: dict[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """Weights of ours, or their gradients, by transformers' names and in its layout."""
    return {
        name if name.startswith("lm_head") else PREFIX + name: (
            to_halves(one, head_dim) if name.endswith(TURNED) else one
        )
        for name, one in tensors.items()
    }


def to_transformers(model: Llama) -> Any:
    """The same model as transformers' LlamaForCausalLM."""
    c, end = model.config, model.config.vocabulary - 1
    theirs: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocabulary,
            hidden_size=c.d_model,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            num_key_value_heads=c.kv_heads,
            head_dim=c.head_dim,
            intermediate_size=c.d_ff,
            max_position_embeddings=c.context,
            rms_norm_eps=c.eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.theta},
            tie_word_embeddings=c.tied,
            initializer_range=c.std,
            bos_token_id=end,
            eos_token_id=end,
        )
    )
    # not in the model's configuration: its embedding of a padding token would get no gradient
    theirs.generation_config.pad_token_id = end
    weights = renamed(model.state_dict(), c.head_dim)
    theirs.to(model.embed_tokens.weight.dtype).load_state_dict(weights)
    return theirs


def what_ours_has_not(t: Any) -> str:
    """In words, of a model's configuration; empty where it is a Llama as ours."""
    if t.model_type != "llama":
        return f"the architecture {t.model_type!r}"
    found = {
        "biases": t.attention_bias or t.mlp_bias,
        "heads that aren't d/H wide": t.head_dim * t.num_attention_heads != t.hidden_size,
        f"the activation {t.hidden_act!r}": t.hidden_act != "silu",
        "positions that aren't plain RoPE": t.rope_parameters["rope_type"] != "default",
    }
    return ", ".join(name for name, there in found.items() if there)


def from_transformers(
    theirs: Any, convert: Callable[[Tensor, int], Tensor] = to_neighbours
) -> Llama:
    """Our model with the weights of a LlamaForCausalLM.

    Raises:
        Card: for another kind, or a Llama with what ours hasn't.
    """
    t = theirs.config
    if foreign := what_ours_has_not(t):
        why = f"Ours is a plain Llama; this one has {foreign}."
        raise Card("Its weights have no place in our model.", why, "another --model", WRONG_USAGE)
    config = Config(
        t.vocab_size,
        t.hidden_size,
        t.num_hidden_layers,
        t.num_attention_heads,
        t.num_key_value_heads,
        t.intermediate_size,
        t.max_position_embeddings,
        t.rope_parameters["rope_theta"],
        t.rms_norm_eps,
        t.tie_word_embeddings,
        t.initializer_range,
    )
    with torch.device("meta"):  # no time for numbers that will be replaced
        model = Llama(config)
    weights = {}
    for name, weight in theirs.state_dict().items():
        turned = name.endswith(TURNED)
        weights[name.removeprefix(PREFIX)] = convert(weight, config.head_dim) if turned else weight
    model.load_state_dict(weights, assign=True)
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def gradients(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """Of the loss on (B, T + 1) tokens, by the parameters' names."""
    out = model(tokens[:, :-1])
    logits = out if isinstance(out, Tensor) else out.logits
    named = dict(model.named_parameters())
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return dict(zip(named, torch.autograd.grad(loss, [*named.values()]), strict=True))


@lab.experiment
def ours_equals_transformers(run: Run):
    """Our model equals LlamaForCausalLM with its weights: logits, both ways, and gradients.

    Predict: and if the rows of W_q and W_k keep the other layout's order: an error, or what?
    """
    config = Config(101, 48, 3, 6, 2, 136, std=0.2)
    for dtype, bound in ((DOUBLE, 1e-4), (torch.float32, 1e-4)):
        ours, tokens = Llama(config).to(dtype), random_tokens(config, 3, 50)
        for gain in (p for p in ours.parameters() if p.dim() == 1):
            nn.init.uniform_(gain, 0.5, 2.0)  # they start as 1, and would prove nothing
        theirs = to_transformers(ours).eval()
        back, because = from_transformers(theirs), "its angles are computed in float32"
        name, want = str(dtype)[6:], theirs(tokens).logits.detach()
        run.agree(
            f"our weights in theirs, {name}", ours(tokens) - want, bound, because, decides=True
        )
        run.agree(f"and back in ours, {name}", back(tokens) - want, bound, because, decides=True)
        same = all(
            torch.equal(a, b) for a, b in zip(ours.parameters(), back.parameters(), strict=True)
        )
        run.check(f"the round trip keeps every bit, {name}", same, equals=True)
        mine, its = renamed(gradients(ours, tokens), config.head_dim), gradients(theirs, tokens)
        off = [((mine[name] - its[name]).norm() / its[name].norm()).item() for name in its]
        run.check(
            f"gradients, {name}: each one's relative difference",
            max(off),
            at_most=bound,
            because=because,
            decides=True,
        )
    wrong = from_transformers(theirs, lambda rows, _: rows)
    off = (wrong(tokens) - want).abs().max().item()
    because = "the partner: of the size of the logits themselves"
    run.check("rows not reordered: largest difference", off, at_least=0.5, because=because)
    return f"Rows in the wrong order raise no error: the logits are off by up to {off:.1f}."


# %% [markdown]
# ## 7. Writing
# To write is to choose a token, append it, and go on (LLM01). A **temperature** $\tau$ divides the
# logits: below 1 sharpens, 0 means the likeliest token. **Top-p** keeps the fewest likeliest tokens
# that hold a share $p$, and draws among them. In this order: first the temperature, which changes
# the shares, then the cut.
#
# The model was trained to look back $T$ tokens (its **context**). When the cache has that many, we
# begin anew with the last half of the context: simple, and nothing is ever farther than in
# training.
#
# A step for one token is little arithmetic and, in a small model, mostly Python's and PyTorch's own
# bookkeeping. Part of that is for gradients; `torch.inference_mode` leaves out what `no_grad` still
# keeps, such as whose view a tensor is. (In a large model the step is mostly reading; LLM10+ lays
# the matrices out for it.)


# %% 7. Writing
@lab.exercise(
    level=1,
    hints=(
        "At temperature 0 there is nothing to draw: which token is the likeliest?",
        "Divide the logits first; LLM01's top_p sets what is cut to -inf.",
        "LLM01's draw(logits) draws from their softmax and returns (..., 1): take [..., 0].",
    ),
)
def choose(logits: Tensor, temperature: float = 1.0, p: float = 1.0) -> Tensor:
    """(..., V) -> (...): draw a token from the top p at this temperature; at 0 the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    return draw(top_p(logits / temperature, p))[..., 0]


greedily = partial(choose, temperature=0)


def generate(
    model: Llama, ids: Tensor, new: int, choose: Callable[[Tensor], Tensor] = greedily
) -> Tensor:
    """`new` ids after each of (B, T): (B, new)."""
    context = model.config.context
    ids, start = ids[:, -context:], min(ids.shape[1], context)
    with torch.inference_mode():
        fresh, kept = ids, model.cache(len(ids), min(context, start + new))
        for _ in range(new):
            if kept.filled[0] + fresh.shape[1] > kept.room:  # full: begin anew with the last half
                kept, fresh = model.cache(len(ids), context), ids[:, -(context // 2) :]
            fresh = choose(model(fresh, kept, last=True)[:, -1].float())[:, None]
            ids = torch.cat((ids, fresh), 1)
    return ids[:, start:].clone()  # one that gradients may know again


@torch.no_grad()
def generate_slowly(model: Llama, ids: Tensor, new: int) -> Tensor:
    """The same, greedily and without a cache: the whole text is read for each token."""
    start = ids.shape[1]
    for _ in range(new):
        ids = torch.cat((ids, greedily(model(ids)[:, -1:])), 1)
    return ids[:, start:]


@lab.experiment
@torch.no_grad()
def smollm2_lives_in_our_model(run: Run):
    """4-bit SmolLM2's weights in our model give its logits and its greedy text.

    Predict: 30 layers of float32 sums, in another order: how many digits of a logit are alike?
    """
    logging.disable_progress_bar()
    path = assets.pretrained(run.options.model, run.online)
    theirs: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    theirs.generation_config.eos_token_id = None  # as long for both, whatever they write
    tokenizer = AutoTokenizer.from_pretrained(path)
    ours, new = from_transformers(theirs), run.pick(tiny=16, small=48, full=128)
    run.check("parameters", parameters(ours), equals=sum(p.numel() for p in theirs.parameters()))
    rows, wrong, offs = [], 0, []
    for text in ("Shakespeare was born in", "The three primary colours are"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        want = theirs(ids).logits
        offs.append(((ours(ids) - want).abs().max() / want.abs().max()).item())
        how = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new}
        text_ids = theirs.generate(ids, attention_mask=torch.ones_like(ids), **how)
        written = generate(ours, ids, new)
        wrong += (written != text_ids[:, ids.shape[1] :]).sum().item()
        rows.append([text, tokenizer.decode(written[0])])
    because = "tens of layers of float32 rounding"
    run.check(
        "logits: largest difference, of the largest logit",
        max(offs),
        at_most=tolerance(torch.float32) * 10,
        because=because,
        decides=True,
    )
    run.check("greedy tokens unlike theirs", wrong, equals=0, decides=True)
    run.table(f"Written by our model, with {called(run)}'s weights", ["prompt", "text"], rows)
    return f"The logits differ by at most {max(offs):.0e} of the largest one."


# %% [markdown]
# ## 8. Can it learn, does it peek, does the cache lie?
# Three tests before any training worth the name. **It can learn**: one batch of random tokens,
# shown again and again, must be learned by heart. There is nothing to generalise; if the loss
# doesn't fall to nearly nothing, something between the loss and a weight is cut. How far can it
# fall? Where two rows of the batch begin alike and go on differently, no model can know which it
# is in: that sets a **floor**, the entropy of what follows each beginning that occurs.
#
# **It doesn't peek**: the gradient of place $t$'s logits to the vectors of later tokens is exactly
# 0, as nothing was added. **The cache tells the truth**: whatever is read at once and whatever step
# by step, the logits are the same up to rounding.


# %% 8. Can it learn
def floor_of(tokens: Tensor) -> float:
    """The least loss on rows (B, T + 1): the entropy of the next token, given its row so far."""
    follow: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in tokens.tolist():
        for t in range(1, len(row)):
            follow[tuple(row[:t])].append(row[t])
    counts = [np.unique(one, return_counts=True)[1] for one in follow.values()]
    return float(-sum((c * np.log(c / c.sum())).sum() for c in counts)) / tokens[:, 1:].numel()


@lab.experiment
def one_batch_is_learned_by_heart(run: Run):
    """One batch of random tokens can be learned by heart, down to the floor that it sets itself.

    Predict: rows of 32 random tokens out of 16: how far above 0 is the least possible loss?
    """
    config = Config(16, 48, 2, context=32, d_ff=128)
    steps, over, floors = run.pick(tiny=150, small=300, full=300), [], []
    for seed in run.seeds(3):
        torch.manual_seed(seed)
        tokens = random_tokens(config, 32, 33)
        model = Llama(config)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2, betas=(0.9, 0.95), weight_decay=0)
        for step in run.progress(range(steps), f"one batch, seed {seed}"):
            optimizer.param_groups[0]["lr"] = 1e-2 * min(1, (step + 1) / 10, 2 - 2 * step / steps)
            loss = F.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        floors.append(floor_of(tokens))
        over.append(loss.item() - floors[-1])
    because = "a hundredth of ln 16: what is left when each answer has 0.97 of the probability"
    run.check("loss above the floor", over, at_most=0.03, because=because, decides=True)
    run.check(
        "loss above the floor, the least", over, at_least=-1e-4, because="no model is below it"
    )
    return (
        f"From {math.log(16):.2f} to {median(over):.4f} nats above the floor, which is at "
        f"{median(floors):.3f}."
    )


# %% 8. Does it peek
@lab.experiment
def no_logit_sees_the_future(run: Run):
    """No logit has a gradient to a later token's vector; with a cache, the logits are the same.

    Predict: the slope of a logit to a later token's vector: very small, or exactly 0?
    """
    config = Config(50, 48, 3, 6, 2, 128, std=0.2)
    model, tokens = Llama(config).double(), random_tokens(config, 2, 20)
    vectors: list[Any] = []
    hook = model.embed_tokens.register_forward_hook(lambda _m, _i, out: vectors.append(out))
    logits = model(tokens)
    hook.remove()
    slopes = torch.stack(
        [
            torch.autograd.grad(logits[0, t].square().sum(), vectors[0], retain_graph=True)[0][0]
            .abs()
            .amax(-1)
            for t in range(20)
        ]
    )  # (place, token that it may depend on)
    future = torch.arange(20) > torch.arange(20)[:, None]
    run.check("largest slope to the future", slopes[future].max(), at_most=0, decides=True)
    because = "the partner: each place sees itself and all before"
    run.check("least slope to the past", slopes[~future].min(), at_least=1e-6, because=because)
    with torch.no_grad():
        for name, cuts in (("one by one", [1] * 20), ("prefill, then steps", [9, 1, 1, 7, 2])):
            kept = model.cache(2, 20)
            parts = [model(part, kept) for part in tokens.split(cuts, 1)]
            run.agree(f"with a cache, {name}", torch.cat(parts, 1) - logits, 1e-10, decides=True)
        lost = model.cache(2, 20)
        model(tokens[:, :9], lost)
        lost.filled = [0] * config.layers  # as if nothing had been read
        off = (model(tokens[:, 9:10], lost) - logits[:, 9:10]).abs().max()
        run.check("with an emptied cache", off, at_least=0.01, because="the partner")
    short = Llama(Config(50, 48, 3, 6, 2, 128, std=0.2))
    prompt = tokens[:1, :5]
    wrong = (generate(short, prompt, 40) != generate_slowly(short, prompt, 40)).sum()
    because = "rounding in float32, 1e-6 of a logit, is far less than two random ones are apart"
    run.check("greedy tokens that the cache changes", wrong, at_most=0, because=because)
    past = slopes[~future].min().item()
    return f"No slope to the past is below {past:.1g}; to the future each is 0, exactly."


# %% [markdown]
# ## 9. A text as numbers
# The default text is Shakespeare's plays (5 MB, embedded); `--corpus FILE` takes anyone's. Ids are
# **bytes**, which for English text are its characters, so that any text can be read and nothing has
# to be learned first; with `--merges N` they are LLM04's BPE, trained on the beginning of the text.
# One id more, the last, is for the end of a text. The first nine tenths are to learn from, the last
# tenth to be judged by, as in nanoGPT (Karpathy 2022). The file isn't read into memory but mapped:
# a batch touches the pages that it needs, and a gigabyte costs no more than a megabyte.
#
# Every loss below is in **nats per token**, on text that wasn't trained on, cut into windows of the
# model's context: the first token of a window is guessed from one token alone, the last from $T$.
# (Vocabularies can be compared only per byte, LLM01.)


# %% 9. A text as numbers
@cache
def corpus(run: Run) -> Text:
    """What --corpus names, or the embedded plays."""
    return open_text(run.options.corpus, run.options.merges, run.settings.outputs)


@torch.no_grad()
def nats(model: nn.Module, ids: Any, length: int) -> float:
    """The loss on all of `ids` but the first, in windows of `length`: nats per token."""
    ids, device = torch.from_numpy(ids.astype(np.int64)), next(model.parameters()).device
    whole = (len(ids) - 1) // length * length
    parts = [(ids[:whole].view(-1, length), ids[1 : whole + 1].view(-1, length))]
    if whole < len(ids) - 1:  # what is left, as a window of its own
        parts.append((ids[None, whole:-1], ids[None, whole + 1 :]))
    total = 0.0
    for x, y in parts:
        some = max(1, 2**13 // length)
        for a, b in zip(x.split(some), y.split(some), strict=True):
            logits = model(a.to(device)).float()
            total += F.cross_entropy(logits.mT, b.to(device), reduction="sum").item()
    return total / (len(ids) - 1)


# %% [markdown]
# ## 10. What counting can do
# A loss means nothing alone. **Uniform**: $\ln V$. **Unigram**: how frequent each token is.
# **Bigram, trigram**: how frequent it is after the last one, the last two. Counted in the training
# text and asked about another, a count may be 0, so counts are **smoothed**. We take Witten &
# Bell's way (1991): after a history $h$ that was seen $c(h)$ times, followed by $t(h)$ different
# tokens, the chance of something new is taken to be $t/(c + t)$, and shared out as the next shorter
# history says:
#
# $$p(w \mid h) = \frac{c(h, w) + t(h)\,p(w \mid \text{shorter } h)}{c(h) + t(h)}$$
#
# After "Q" seen 9 times, always with "u": $t = 1$, and $p(\text{u}) = (9 + p_0(\text{u}))/10$,
# where $p_0$ is the shorter history's. At the bottom stands $1/V$. It has nothing to tune, and sums
# to one. Longer histories go on helping, for a while: so the ladder has two rungs more, of four and
# five tokens.


# %% 10. What counting can do
RUNGS = ("unigram", "bigram", "trigram", "4-gram", "5-gram")
TINYSHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"  # SHA-256
NANOGPT = 1.88  # nats, its README's figure on that text for a CPU, over 20 batches


@cache
def rungs(run: Run) -> list[float]:
    return witten_bell(corpus(run).train, judged_on(run), corpus(run).vocabulary)


def judged_on(run: Run) -> Any:
    """The validation text; at tiny its first 64 Ki tokens, of a huge one its first mebi."""
    return corpus(run).validation[: run.pick(tiny=2**16, small=2**20, full=2**20)]


# %% [markdown]
# ## 11. What pulls the weights
# **AdamW** (Loshchilov & Hutter 2019) moves each number by about the learning rate, whatever its
# gradient's size. **Muon** (Jordan et al. 2024) treats a matrix as what it is, a map: its momentum
# $M = U S V^\top$ (its singular value decomposition, LLM07) is replaced by $U V^\top$, so that
# *every direction moves alike*, the strong and the rare. $U V^\top$ can be computed without the
# decomposition. Scale $M$ so that no singular value exceeds 1, then apply five times
#
# $$
# \begin{aligned}
# X &\leftarrow a X + b\,(X X^\top) X + c\,(X X^\top)^2 X \\
# (a, b, c) &= (3.4445, -4.7750, 2.0315)
# \end{aligned}
# $$
#
# which acts on each singular value $s$ as the polynomial $a s + b s^3 + c s^5$ and brings nearly
# all into 0.7 … 1.2: 0.01 goes to 0.034, 0.118, 0.40, 1.09, 0.70. Embeddings and norms aren't maps:
# they keep AdamW. The price is 5 · 3 products a step for each matrix, so that Muon wants large
# batches.
#
# **Weight decay** pulls weights towards 0. A norm's gain is near 1 for a reason and is spared; a
# matrix that serves twice must be pulled once.


# %% 11. What pulls the weights
@lab.exercise(
    level=2,
    hints=(
        "model.parameters() gives a shared matrix once already; state_dict() gives it twice.",
        "Matrices have two axes, gains and biases one: p.dim() tells, names need not be known.",
        "Leave out what has requires_grad False; two dicts with params and weight_decay.",
    ),
)
def decay_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: what is trained of the matrices, with this `weight_decay`, then
    the rest (gains, biases), with 0. Each parameter once."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """(count, m, n): nearly U Vᵀ for each matrix U S Vᵀ, its singular values about 0.7 to 1.2."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # X Xᵀ is the smaller one then
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445
        )
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices; those of one shape are treated together. In float32, where bfloat16 is slow
    (torch.optim.Muon would use it)."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        del closure  # others' optimizers may take one
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Any]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for (rows, columns), matrices in shapes.items():
                ahead: list[Tensor] = []
                for p in matrices:
                    if not self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                    momentum = self.state[p]["momentum"]
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                    ahead.append(p.grad.lerp(momentum, group["momentum"]))  # Nesterov's
                moves = orthogonal(torch.stack(ahead)).unbind()
                size = group["lr"] * math.sqrt(max(1, rows / columns))
                for p, move in zip(matrices, moves, strict=True):
                    p.add_(move, alpha=-size)


# %% [markdown]
# ## 12. Training
# A step: draw $B$ windows of $T + 1$ tokens from anywhere in the training text; the first $T$ are
# read, the last $T$ are the answers, each one place on. The learning rate rises for a twentieth of
# the steps and then falls in a straight line to nearly 0. With $N$ processes each takes its part of
# the same batch, and Accelerate averages the gradients, so that $N$ train as one. A run that is
# killed goes on from its last checkpoint when it is started again.
#
# The yardstick is nanoGPT's recipe for a CPU (Karpathy 2022): 0.80 million parameters, 2,000 steps
# of 12 windows of 64 tokens, by AdamW; it publishes a loss of 1.88 on its "tinyshakespeare".
# `small` is our answer, of 0.47 million and 550 steps of 32 such windows: on that file it came to
# 1.66, over the whole validation text. `benchmarks/nanogpt.py` runs both there, in turn, and tells
# seconds.
#
# What makes the difference? In *loss*: LLM10+ takes Muon, the larger $\sigma$ and some parts out
# again; not told apart are a learning rate that is higher at first and falls to nothing (theirs to
# a tenth), fewer and larger batches, and no learned positions. In *time*: at $6N$ a token, ours is
# $3.2 \cdot 10^{12}$ operations, theirs $7.4 \cdot 10^{12}$, so that half the seconds are first of
# all half the work; a better recipe reaches more with less. Steps get cheaper, too (LLM10+), and
# are taken by two processes of one thread each, theirs by one of two. Theirs was never meant as a
# record: it is written to be understood, and stops nine times to estimate its loss.


# %% 12. Training
@dataclass(frozen=True)
class Recipe:
    """`steps` of `batch` windows; learning rates of the matrices and of all else."""

    steps: int
    batch: int
    muon: float | None = 0.02  # None: AdamW for the matrices, too
    adamw: float = 0.006


@dataclass(frozen=True)
class Trained:
    model: Llama
    losses: list[float]  # nats per token, on the batch before each step
    seen: dict[str, Any]  # what `watch` returned, by steps done
    seconds: float


HEADLINE = Config(0), Recipe(550, 32)  # benchmarks/nanogpt.py runs it beside nanoGPT's recipe


def sizes(run: Run) -> tuple[Config, Recipe]:
    """What this run trains; the vocabulary is the text's."""
    return run.pick(
        tiny=(Config(0, 64, 3, 4, 2, 176), Recipe(400, 32)),
        small=HEADLINE,
        full=(Config(0, 384, 6, 6, 6, 1024, context=256), Recipe(3000, 64)),
    )


def optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    ends = {id(model.embed_tokens.weight), id(model.lm_head.weight)}
    groups = decay_groups(model, 0.0)  # tiny and small see less than the plays once: no need of it
    inner = [p for p in groups[0]["params"] if id(p) not in ends] if recipe.muon else []
    kept = {id(p) for p in inner}
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in kept]
    adamw = torch.optim.AdamW(groups, recipe.adamw, betas=(0.9, 0.95), fused=True)
    return [adamw, Muon(inner, recipe.muon)] if recipe.muon else [adamw]


def facts_of(config: Config) -> dict[str, Any]:
    return {name: getattr(value, "__name__", value) for name, value in vars(config).items()}


@on_one_thread
@torch.enable_grad()  # an experiment that needs no gradients may be the first to need a model
def train(
    run: Run,
    name: str,
    config: Config,
    text: Text,
    recipe: Recipe,
    seed: int,
    watch: Callable[[Llama], Any] | None = None,
    at: tuple[int, ...] = (),
) -> Trained:
    """Train a model; `watch` is called after each number of steps in `at`."""
    keep_memory()  # why: LLM10+
    depends_on = {**facts_of(config), **vars(recipe), "text": text.sha256, "watched": list(at)}
    kept = {"depends_on": depends_on, "steps": recipe.steps}
    checkpoints = Checkpoints(run, f"{name}, seed {seed}", **kept)
    torch.manual_seed(seed)
    model = Llama(config)
    net, *pulls = run.accelerator.prepare(model, *optimizers(model, recipe))
    rates = [[group["lr"] for group in one.param_groups] for one in pulls]
    draws, losses, seen = torch.Generator().manual_seed(seed), [], {}
    checkpoints.include(draws=draws, losses=losses, seen=seen)
    for step in run.progress(range(checkpoints.resume(), recipe.steps), f"{name}, seed {seed}"):
        share = lr_at(step, recipe.steps, recipe.steps // 20)
        for one, its in zip(pulls, rates, strict=True):
            for group, most in zip(one.param_groups, its, strict=True):
                group["lr"] = most * share
        tokens = run.share(text.batch(recipe.batch, config.context, draws)).to(run.device)
        logits = net(tokens[:, :-1]).flatten(0, 1)  # (B·T, V)
        loss = F.cross_entropy(logits, tokens[:, 1:].flatten())
        losses.append(stop_on_nan(run, loss, step, tokens))
        run.accelerator.backward(loss)
        for one in pulls:
            one.step()
            one.zero_grad()
        run.log({f"{name}/loss": losses[-1]}, step)
        if watch and step + 1 in at:
            seen[str(step + 1)] = watch(model)
        checkpoints.save_if_due(step + 1)
    checkpoints.save(recipe.steps)
    model = run.accelerator.unwrap_model(net, keep_fp32_wrapper=False)
    return Trained(model, losses, seen, checkpoints.seconds)


# %% [markdown]
# ## 13. Down the ladder
# Now the training itself. Watch the loss pass the rungs: what can be had by knowing frequencies
# comes first, then pairs, then what no short history holds. From time to time the model writes,
# after a newline, at temperature 0.8 within the top 0.95.
#
# **Try it**: point at the curve below where it passes the bigrams, then at the trigrams, and read
# what the model wrote there. Where does it learn to spell words, and where to end its lines?


# %% 13. Down the ladder
def config_of(run: Run) -> Config:
    return replace(sizes(run)[0], vocabulary=corpus(run).vocabulary)


def excerpts(ids: Any, count: int, length: int = 2**10) -> Any:
    """Pieces of `length` tokens, from a text's first to its last at even distances, joined.

    What is looked at often must be short; but a text's beginning is not like the whole.
    """
    starts = np.linspace(0, max(len(ids) - length, 0), count).astype(int)
    return np.concatenate([ids[at : at + length] for at in starts])


def looked_at(run: Run) -> Any:
    """What of the validation text is looked at on the way: pieces, of a short one all."""
    ids, pieces = judged_on(run), run.pick(tiny=8, small=16, full=64)
    return ids if len(ids) <= 4 * pieces * 2**10 else excerpts(ids, pieces)


@cache
def trained(run: Run) -> Trained:
    """The run's model; what is seen on the way is its validation loss and a sample."""
    config, recipe, text, part = config_of(run), sizes(run)[1], corpus(run), looked_at(run)
    start = torch.tensor([[10]], device=run.device)  # a newline

    def look(model: Llama) -> list[Any]:
        ids = generate(model, start, 120, partial(choose, temperature=0.8, p=0.95))[0].tolist()
        return [nats(model, part, config.context), text.decode(ids)]

    at = tuple(sorted({max(1, recipe.steps * 2**i // 2**7) for i in range(8)}))
    return train(run, "the model", config, text, recipe, run.seed, look, at)


def in_a_line(text: str, most: int = 66) -> str:
    """The beginning of a text as Python shows it, at most so many letters; no escape is halved."""
    shown = ""
    for letter in text:
        escaped = repr(letter)[1:-1]
        if len(shown) + len(escaped) > most - 2:
            break
        shown += escaped
    return f"“{shown}”"


LOSS = "nats per token, this model"


@lab.experiment
def the_loss_passes_every_rung(run: Run):
    """The loss falls below what unigrams, bigrams and trigrams can reach, one after the other.

    Predict: counting alone, with Witten & Bell's smoothing: how low do 5-grams get?
    """
    steps, text, result = rungs(run), corpus(run), trained(run)
    loss = nats(result.model, judged_on(run), config_of(run).context)
    run.measure(LOSS, loss)
    for name, rung in zip(RUNGS[:3], steps[:3], strict=True):
        gap = rung - loss
        if run.options.corpus is None and not text.merges:
            because = "at tiny the least gap is 0.2, and seeds differ by 0.01"
            run.check(f"nats below the {name}", gap, at_least=0.0, because=because, decides=True)
        else:  # of another text nobody knows
            run.measure(f"nats below the {name}", gap, expect_at_least=0.0, decides=True)
    for name, rung in zip(RUNGS[3:], steps[3:], strict=False):
        run.measure(f"nats below the {name}", rung - loss)
    rows = [
        ["uniform", math.log(text.vocabulary)],
        *zip(RUNGS, steps, strict=False),
        ["this model", loss],
    ]
    columns = ["", "nats per token", "bits per byte"]
    bits = math.log(2) * text.bytes_per_token
    whole, part = len(judged_on(run)), len(looked_at(run))
    title = f"On {whole:,} tokens of the last tenth of {text.name}"
    run.table(title, columns, [[*row, row[1] / bits] for row in rows])
    tokens = sizes(run)[1].steps * sizes(run)[1].batch * config_of(run).context
    speed = tokens / result.seconds
    run.measure("tokens per second in training", speed, timed=True)
    work = 6 * parameters(result.model) * speed / 1e9
    run.measure("of matrices, at 6·N operations a token", work, unit="GFLOP/s", timed=True)
    wrote = [[int(n), one[0], in_a_line(one[1])] for n, one in result.seen.items()]
    some = f"{part:,} of the {whole:,} tokens, in pieces"
    over = f"all {whole:,} tokens" if part == whole else some
    title = f"What it wrote on the way, and its loss over {over}"
    run.table(title, ["steps", "nats per token", "after a newline"], wrote)
    lines = dict(rows[:-1])
    if text.sha256 == TINYSHAKESPEARE:
        lines["nanoGPT, published"] = NANOGPT
    watched = {int(n): one[0] for n, one in result.seen.items()}
    fig = figures.descent(result.losses, watched, lines, tokens // sizes(run)[1].steps)
    caption = f"Loss in training, and in validation over {over}"
    run.figure(
        fig,
        "descent",
        f"{caption}; dotted: what counting gives, over all of them.",
        alt="Line plot of the training and validation loss over tokens seen on a log scale, "
        "with a dotted line for each counting model.",
    )
    recipe = sizes(run)[1]
    warm_up = recipe.steps // 20
    peak = recipe.muon or recipe.adamw
    rates = [peak * lr_at(step, recipe.steps, warm_up) for step in range(recipe.steps)]
    run.view("curve", "training", *view_data.curve(result.losses, rates, result.seen, lines))
    ahead = [f"{name}s ({x:.3f})" for name, x in zip(RUNGS, steps, strict=False) if x < loss]
    still = f"still ahead: {', '.join(ahead)}" if ahead else "nothing that counts is ahead of it"
    return f"{loss:.3f} nats after {tokens:,} tokens, where trigrams have {steps[2]:.3f}; {still}."


# %% [markdown]
# ## 14. What it has learned
# Nobody told the model what a vowel is. Its embedding has a row for each letter; letters that occur
# in like places should lie in like directions. And its heads: what do they look at?


# %% 14. What it has learned
VOWELS, CONSONANTS = b"aeiou", b"bcdfghjklmnpqrstvwxyz"


def looks(model: Llama, ids: Tensor) -> Tensor:
    """Attention weights (L, B, H, T, T): what heads answer whose values are a unit matrix."""
    found: list[Tensor] = []

    def see(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ones = torch.eye(k.shape[2], device=k.device).expand(*k.shape[:3], -1)
        found.append(mix(q.float(), k.float(), ones))
        return mix(q, k, v)

    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    for attention in attentions:
        attention.mix = see
    model(ids)
    for attention in attentions:
        attention.mix = mix
    return torch.stack(found)


@lab.experiment
@torch.no_grad()
def letters_find_their_kind(run: Run):
    """The rows of like letters come to lie alike: vowels with vowels, capitals with capitals."""
    model = trained(run).model
    rows = F.normalize(model.embed_tokens.weight.float().cpu(), dim=-1)

    def likeness(a: bytes, b: bytes) -> float:
        found = [rows[x] @ rows[y] for x in a for y in b if x != y]
        return mean(float(x) for x in found)

    capitals = (VOWELS + CONSONANTS).upper()
    among, across = likeness(VOWELS, VOWELS), likeness(VOWELS, CONSONANTS)
    run.measure(
        "cosine, vowel and vowel less vowel and consonant",
        among - across,
        expect_at_least=0.05,
        decides=True,
    )
    big = likeness(capitals, capitals) - likeness(capitals, VOWELS + CONSONANTS)
    run.measure(
        "cosine, capitals among themselves less with small letters",
        big,
        expect_at_least=0.05,
        decides=True,
    )
    shown = b"\n ,.;:'!?" + VOWELS + CONSONANTS + capitals
    points = rows[list(shown)]
    points = points - points.mean(0)
    flat = points @ torch.linalg.svd(points, full_matrices=False).Vh[:2].T  # (letters, 2)
    fig = figures.letters(flat.numpy(), shown, VOWELS + VOWELS.upper())
    run.figure(
        fig,
        "letters",
        "Rows of the embedding: vowels orange, other letters blue.",
        alt="Letters placed in a plane by the first two principal axes of their embedding rows.",
    )
    sentence = b"To be, or not to be: that is the "
    ids = torch.tensor([list(sentence)], device=run.device)
    weights = looks(model, ids)[:, 0]  # (L, H, T, T)
    back = weights.diagonal(-1, -2, -1).mean(-1)  # (L, H): on the character before
    layer, head = divmod(int(back.argmax()), weights.shape[1])
    share = f"{back.max():.0%} of its weight on the character before"
    title = f"Layer {layer + 1}, head {head + 1}: {share}"
    fig = figures.attention(weights[layer, head].cpu().numpy(), sentence, title)
    run.figure(
        fig,
        "looks",
        "Attention weights of the head that looks most one character back.",
        alt="Heat map of attention weights, query by key, with the characters of a sentence "
        "on both axes.",
    )
    return f"The head that looks most one character back puts {share}."


# %% [markdown]
# ## 15. The cache pays
# Without a cache the $n$-th token reads $n$ tokens again. With one it reads itself; only attention
# still looks at $n$ keys. So the gain grows with the length. Its price is $2LH_\text{kv}D$ numbers
# of 4 bytes for each token.


# %% 15. The cache pays
@lab.experiment
def the_cache_pays_more_the_longer(run: Run):
    """Writing with a cache gets faster, compared with reading all again, the longer the text.

    Predict: 256 tokens, with and without: how many times faster?
    """
    lengths = run.pick(
        tiny=[32, 64, 128, 256], small=[64, 128, 256, 496], full=[128, 256, 512, 1024]
    )
    config = Config(257, 128, 4, 4, 2, 344, context=2 * lengths[-1])
    model, gains, speeds = Llama(config).to(run.device), [], []
    prompt = random_tokens(config, 1, 4).to(run.device)
    for n in run.progress(lengths, "lengths"):
        calls = partial(generate, model, prompt, n), partial(generate_slowly, model, prompt, n)
        a, b = seconds_paired(*calls, run.pick(tiny=1, small=3, full=3))
        gains.append(median(y / x for x, y in zip(a, b, strict=True)))
        speeds.append((n / median(a), n / median(b)))
    run.measure(f"times faster at {lengths} tokens", gains, timed=True)
    run.measure(
        "growth of that, shortest to longest",
        gains[-1] / gains[0],
        expect_at_least=1.5,
        because="the n-th token costs the work of one, or of n",
        timed=True,
        decides=True,
    )
    kept = model.cache(1, lengths[-1])
    size = sum(x.nbytes for x in (*kept.keys, *kept.values))
    want = 2 * config.layers * config.kv_heads * config.head_dim * lengths[-1] * 4
    run.check("bytes of the cache", size, equals=want, because="2·L·H_kv·D·T·4")
    with_cache, without = zip(*speeds, strict=True)
    fig = figures.speeds(lengths, {"with a cache": with_cache, "without": without})
    run.figure(
        fig,
        "cache",
        f"{parameters(model):,} parameters, on the run's device, float32.",
        alt="Line plot of tokens per second over the number of new tokens, one curve with a "
        "cache and one without.",
    )
    return f"From {gains[0]:.1f} to {gains[-1]:.1f} times faster at {lengths[-1]} tokens."


# %% [markdown]
# ## 16. For others to open
# A model that only its author can open is no model. In Hugging Face's form it is a folder: weights
# in safetensors, `config.json`, the tokenizer, and a **model card** (Mitchell et al. 2019), which
# says what it is, what it was trained on, how good it is and what it is not for. Then anybody's
# `AutoModelForCausalLM.from_pretrained` opens it, without a line of our code. So does LLM01:
#
# `invoke lab LLM01 -- --model outputs/LLM10/<time>/model`
#
# `invoke chat LLM10` lets it continue your text.


# %% 16. For others to open
def save(model: Llama, text: Text, folder: Path, **facts: Any) -> None:
    """Write the model, its tokenizer and its card."""
    to_transformers(copy.deepcopy(model).cpu()).save_pretrained(folder)
    tokenizer_of(text).save_pretrained(folder)
    kind = f"bytes and {len(text.merges):,} merges" if text.merges else "bytes"
    template = Path(figures.__file__).with_name("model_card.md")
    card = {**vars(model.config), **facts, "parameters": parameters(model), "kind": kind}
    card |= {"text": text.name, "sha256": text.sha256}
    card["prompt"] = json.dumps(prompt_of(text), ensure_ascii=False)  # quoted, as in Python
    text_of_it = template.read_text(encoding="utf-8").format(**card)
    (folder / "README.md").write_text(text_of_it, encoding="utf-8")


@lab.experiment
@torch.no_grad()
def others_can_open_it(run: Run):
    """Saved in Hugging Face's form, the model opens without our code and writes the same."""
    model, text, folder = trained(run).model, corpus(run), run.folder / "model"
    if not run.accelerator.is_main_process:
        return ""
    loss, recipe = nats(model, judged_on(run), model.config.context), sizes(run)[1]
    facts = {"loss": loss, "bits": loss / math.log(2) / text.bytes_per_token, "seed": run.seed}
    facts |= {"judged": len(judged_on(run)) - 1, "trigram": rungs(run)[2], **vars(recipe)}
    save(model, text, folder, **facts)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, ours = AutoTokenizer.from_pretrained(folder), copy.deepcopy(model).cpu()
    prompt = "ROMEO\nWhat say you to this? — "
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    back = tokenizer.decode(ids[0]) == prompt == text.decode(ids[0].tolist())
    run.check("the tokenizer gives the text back", back, equals=True)
    want = ids[0].tolist() == (BPE(text.merges).encode(prompt))
    run.check("its ids are LLM04's", want, equals=True, decides=True)
    off = (theirs(ids).logits - ours(ids)).abs().max() / ours(ids).abs().max()
    run.check(
        "logits: largest difference, of the largest logit",
        off,
        at_most=tolerance(torch.float32),
        because="float32 rounding",
        decides=True,
    )
    theirs.generation_config.eos_token_id = None
    how = {"do_sample": False, "max_new_tokens": 24}
    text_ids = theirs.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, ids.shape[1] :]
    wrong = (generate(ours, ids, 24)[0] != text_ids).sum()
    run.check("greedy tokens unlike ours", wrong, at_most=0, decides=True)
    files = sorted(path.name for path in folder.iterdir())
    run.check(
        "pickles among its files",
        [name for name in files if name.endswith((".bin", ".pt"))],
        equals=[],
    )
    return f"{folder} has {', '.join(files)}. To go on: invoke lab LLM01 -- --model {folder}"


# %% [markdown]
# ## 17. Five planted bugs
# A broken model trains, and its loss falls: a slightly worse number is all that shows, and there is
# no better one to compare it with. So test for each fault by what it would *do*. Five models of one
# layer each have one of these bugs:


# %% 17. Five planted bugs
def _sees_ahead(model: Llama) -> None:
    for module in model.modules():
        if isinstance(module, Attention):
            module.mix = partial(F.scaled_dot_product_attention, enable_gqa=True)


def _forgets_where(model: Any) -> None:
    right = model.turns
    model.turns = lambda _start, *what: right(0, *what)


def _is_not_tied(model: Llama) -> None:
    model.lm_head.weight = nn.Parameter(model.embed_tokens.weight.detach().clone())


def _has_no_positions(model: Any) -> None:
    model.turns = lambda *_what: None


def _skips_the_last_norm(model: Llama) -> None:
    model.norm = nn.Identity()


BUGS: dict[str, Callable[[Llama], None]] = {
    "the future is seen": _sees_ahead,
    "with a cache, positions begin at 0 again": _forgets_where,
    "the two ends aren't tied": _is_not_tied,
    "there are no positions": _has_no_positions,
    "the last norm is missing": _skips_the_last_norm,
}


@lab.exercise(
    level=3,
    hints=(
        "Each bug does something: change the last token, swap the first two, read in two parts.",
        "Tied means one tensor, not equal ones. For the norm, look at what enters lm_head, by a "
        "hook: an untrained norm's answer has a mean square of 1.",
        "Without positions, one layer can't tell the order of earlier tokens: swap the first two "
        "and look at the last logits. With a cache, compare with reading all at once.",
    ),
)
def diagnose(model: Llama) -> str:
    """Which of BUGS an untrained model of one layer has, by its name; "" where it has none."""
    tokens = torch.arange(8)[None]
    changed, swapped = tokens.clone(), tokens.clone()
    changed[0, -1], swapped[0, :2] = 0, torch.tensor([1, 0])
    entering: list[Tensor] = []
    hook = model.lm_head.register_forward_pre_hook(lambda _m, inputs: entering.append(inputs[0]))
    with torch.no_grad():
        whole, ahead, order = model(tokens), model(changed), model(swapped)
        kept = model.cache(1, 8)
        parts = torch.cat([model(part, kept) for part in tokens.split(4, 1)], 1)
    hook.remove()
    if not torch.allclose(ahead[:, :-1], whole[:, :-1], atol=1e-5):
        return "the future is seen"
    if torch.allclose(order[:, -1], whole[:, -1], atol=1e-5):
        return "there are no positions"
    if not torch.allclose(parts, whole, atol=1e-4):
        return "with a cache, positions begin at 0 again"
    if model.lm_head.weight is not model.embed_tokens.weight:
        return "the two ends aren't tied"
    if abs(entering[0].square().mean() - 1) > 0.01:
        return "the last norm is missing"
    return ""


@lab.experiment
def a_bug_shows_where_one_looks(run: Run):
    """Five bugs hardly show in the first loss; each shows in an experiment that looks for it."""
    config, rows, right = Config(40, 32, 1, 4, 2, 88, std=0.15), [], []
    tokens = random_tokens(config, 64, 33)
    for name, plant in {"none": lambda _: None, **BUGS}.items():
        torch.manual_seed(run.seed)
        model = Llama(config)
        plant(model)
        found = diagnose(model)
        right.append(found == name.replace("none", ""))
        with torch.no_grad():
            loss = F.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:]).item()
        rows.append([name, loss, found or "none"])
    run.table("First losses, and what was found", ["planted", "first loss", "found"], rows)
    run.check("diagnoses that are right", sum(right), equals=len(rows), decides=True)
    losses = [row[1] for row in rows]
    far = max(abs(loss - losses[0]) for loss in losses) / losses[0]
    run.measure(
        "first losses: farthest from the sound one's",
        far,
        expect_at_most=0.2,
        because="a fifth: few would look twice",
        decides=True,
    )
    return f"The worst of five bugs changes the first loss by {far:.0%}."


# %% What surprised
@lab.closing
def closing(results: Results) -> str:
    """Return what surprised, in the numbers of this run."""
    said = (_start, _parity, _ladder, _letters, _writing, _bugs, _verdicts)
    return "\n\n".join(["## What surprised", *(part(results) for part in said)])


def _start(results: Results) -> str:
    """Report whether the branches drown the token that came in."""
    name = "the_first_loss_is_foretold"
    small = results.value(name, "own logit over d·σ, tied, smallest σ")
    large = results.value(name, "own logit over d·σ, tied, σ = 0.05")
    found = f"The token's own logit is {small:.0%} of d·σ at σ = 0.001, and {large:.0%} at σ = 0.05"
    if large > small / 2:
        return f"The untrained tied model expects each token twice. {found}."
    return (
        "The untrained tied model does *not* expect each token twice, although its two ends are "
        f"one matrix. {found}: there the branches drown the token that came in."
    )


def _parity(results: Results) -> str:
    """Report how far the model is from the library's, with rows in either order."""
    name = "ours_equals_transformers"
    gradient = results.value(name, "gradients, float64: each one's relative difference")
    wrong = results.value(name, "rows not reordered: largest difference")
    return (
        "Rows of W_q and W_k in the wrong order raise no error; the logits are off by "
        f"{wrong:.1f}. In the right order even the gradients agree, within {gradient:.0e}. Equal "
        "logits don't make equal models: only when gradients were compared did it show that a "
        "padding token, named in the library's configuration, gets none at the entrance, so that "
        "its row never learns there."
    )


def _ladder(results: Results) -> str:
    """Report which n-grams the model has passed, and which are still ahead of it."""
    gaps = _gaps(results)
    passed = [f"{rung}s" for rung, gap in gaps.items() if gap > 0]
    ahead = [f"{rung}s by {-gap:.3f}" for rung, gap in gaps.items() if gap <= 0]
    loss = results.value("the_loss_passes_every_rung", LOSS)
    text = f"The trained model's loss is {loss:.3f} nats per token. "
    text += f"It has passed {in_words(passed)}. " if passed else "It has passed no n-grams. "
    if ahead:
        return f"{text}Counting is strong, though: still ahead are {in_words(ahead)}."
    return f"{text}Nothing that we counted is ahead of it any more."


def _gaps(results: Results) -> dict[str, float]:
    """Return by how many nats the model is below each n-gram that was counted."""
    gaps: dict[str, float] = {}
    for rung in RUNGS:
        try:
            gaps[rung] = results.value("the_loss_passes_every_rung", f"nats below the {rung}")
        except KeyError:  # a large vocabulary leaves no room for long histories
            break
    return gaps


def _letters(results: Results) -> str:
    """Report whether like letters lie alike in the embedding."""
    name = "letters_find_their_kind"
    vowels = results.value(name, "cosine, vowel and vowel less vowel and consonant")
    capitals = results.value(name, "cosine, capitals among themselves less with small letters")
    found = (
        f"two vowels' rows have a cosine {vowels:.2f} higher than a vowel's and a consonant's, two "
        f"capitals' rows {capitals:.2f} higher than a capital's and a small letter's"
    )
    if results.verdict(name) == "held":
        return f"Nobody labelled vowels or capitals for the model, and yet {found}."
    return f"The model has hardly found out what vowels and capitals are: {found}."


def _writing(results: Results) -> str:
    """Report how the gain of the cache grows with the length."""
    name = "the_cache_pays_more_the_longer"
    growth = results.value(name, "growth of that, shortest to longest")
    if results.verdict(name) == "held":
        return f"From the shortest text to the longest, the gain of the cache grew {growth:.1f}×."
    return f"The gain of the cache hardly grew with the length, on this machine: {growth:.1f}×."


def _bugs(results: Results) -> str:
    """Report how little a first loss says about a bug."""
    name = "a_bug_shows_where_one_looks"
    far = results.value(name, "first losses: farthest from the sound one's")
    right = results.value(name, "diagnoses that are right")
    return (
        f"No planted bug moved the first loss by more than {far:.0%}. Tests of what each bug would "
        f"do were right about {right:.0f} of {len(BUGS) + 1} models."
    )


def _verdicts(results: Results) -> str:
    """Count the claims that held, and list the others."""
    verdicts = {name: results.verdict(name) for name in lab.experiments}
    others = [
        f"- {verdict}: {claim(name)}" for name, verdict in verdicts.items() if verdict != "held"
    ]
    if not others:
        return f"The claims of all {len(verdicts)} experiments held."
    held = len(verdicts) - len(others)
    count = f"The claims of {held} of {len(verdicts)} experiments held. The others:"
    return "\n".join([f"{count}\n", *others])


def claim(name: str) -> str:
    """Return what an experiment claims."""
    return " ".join((lab.experiments[name].__doc__ or "").split("\n\n")[0].split())


def in_words(items: list[str]) -> str:
    """Join items as a sentence does: a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if items[1:] else items)


# %% [markdown]
# **Read on**: Touvron et al. 2023, *LLaMA* · Karpathy's nanoGPT and nanochat, whose CPU recipe
# `benchmarks/nanogpt.py` runs beside ours · Jordan et al. 2024, *Muon*, and Bernstein 2025 on why
# it works · Shannon 1951 on n-grams and people · Chen & Goodman 1999 on smoothing · Mitchell et al.
# 2019, *Model cards*. This was the last lab: now write your own.

# %%
if __name__ == "__main__":
    lab.main()
