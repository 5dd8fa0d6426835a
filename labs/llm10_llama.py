# %% [markdown]
# # LLM10 · A tiny LLaMA from scratch
# Every part of a LLaMA put together, proven equal to the real one, trained, saved and talked to.
#
# **You will be able to** write a LLaMA of which every line is known to you; foretell its first loss
# and its parameters; load a real model's weights into it and get that model's text; train it to a
# loss that means something; decode with a cache; save it so that others can open it. **Builds on**
# all labs before, above all norms and gates (LLM05a), attention (LLM06) and BPE (LLM04). **Takes**
# an hour and a half to read, two minutes to run (`tiny`, 2 cores).

# %% Imports
import ctypes
import hashlib
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import batched
from pathlib import Path
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Run, assets, seconds_paired, tolerance
from labs.kit.corpus import chunks, text_file
from labs.kit.vocabularies import LETTERS
from labs.llm01_inference import draw, top_p
from labs.llm03_neural_networks import Transformer, total
from labs.llm04_tokenization import BPE, WORD, Pair, count_words, encode_stream, vocabulary
from labs.llm04_tokenization import train as train_bpe
from labs.llm05a_normalization import RMSNorm, SwiGLU, gated_width
from labs.llm06_attention import causal_mask

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

lab = Lab("LLM10")
lab.argument("--corpus", type=Path, metavar="FILE", help="a text in UTF-8 instead of Shakespeare")
lab.argument("--merges", type=int, default=0, metavar="N", help="merges of LLM04's BPE; default: 0")
DOUBLE = torch.float64

# %% [markdown]
# ## 1. The parts
# A LLaMA (Touvron et al. 2023) is a decoder: token ids in, for each place a score for every token
# that might come next. We write V for the size of the vocabulary, d for the width of the vectors, L
# for the number of layers, H for query heads of width D = d/H, H_kv for key-value heads, B for the
# texts of a batch and T for their length. On its way a token is
#
# - **embedded**: row i of a matrix E (V × d) is the vector of token i;
# - changed by L **blocks**, `x + attention(norm(x))`, then `x + ffn(norm(x))`: the vector x is
#   added to, never replaced (the **residual stream**); the norm stands before each branch (Pre-LN,
#   LLM05b);
# - normed once more and compared with a row for each token, which gives V **logits**.
#
# Norms are RMSNorm, the feed-forward part is SwiGLU: both you wrote in LLM05a, and we import them.
# Attention is grouped-query attention, as in LLM06, by PyTorch's kernel, which you proved equal to
# yours. No matrix has a bias. Where the last matrix *is* E, the model is **tied** (Press & Wolf
# 2017).
#
# Positions are **RoPE** (Su et al. 2021): a query and a key are cut into pairs of coordinates, and
# at position t pair i is turned by the angle t·θ^(−2i/D), with θ = 10,000. Turn (1, 0) by 90° and
# it is (0, 1). A pair (a, b) is the complex number a + b·i, and turning it is *one* multiplication:
# with cos φ + sin φ·i. The products q·k then depend on distances alone (LLM05b).
#
# **Which coordinates make a pair?** The paper, and Meta's own LLaMA, take neighbours: 0 and 1, 2
# and 3. `transformers` takes i and i + D/2, and so did LLM06. Either works if it is kept to from
# the beginning, but weights that were trained in one layout are noise in the other. A row of W_q
# makes one coordinate, so that reordering rows of W_q and W_k converts: with D = 6, the rows 0 1 2
# 3 4 5 of each head become 0 2 4 1 3 5. We use neighbours: they are complex numbers as they lie.


# %% 1. Positions
@cache
def rotations(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """(length, 1, D/2), complex: at position t pair i is turned by t · theta^(−2i/D)."""
    t, i = torch.arange(length, dtype=DOUBLE), torch.arange(0, head_dim, 2)
    angle = t[:, None] * theta ** (-i / head_dim)
    return torch.polar(torch.ones_like(angle), angle)[:, None].to(device, torch.complex64)


def turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate (B, T, H, D) by (T, 1, D/2): coordinates 2i and 2i + 1 are one complex number."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # there is no complex bfloat16
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))  # (B, T, H, D/2)
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


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
# The T new queries see the keys of the tokens before and their own up to them. When a text is
# written token by token, keys and values of all earlier tokens would be the same as the step
# before, so they are kept (LLM01). Libraries append to them, which copies all of them each time; we
# make room once and fill it. A step may bring one token or many: the **prefill** brings the prompt.
# A key is turned by its own position *before* it is kept, so the next token's position is the
# number of those in the cache, not 0.


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
    # On a CPU in float32 at least: the kernel's bfloat16 takes some five times as long backwards.
    kind = torch.promote_types(v.dtype, torch.float32) if v.device.type == "cpu" else v.dtype
    with torch.autocast("cpu", enabled=False):
        q, k, v = (x.to(kind) for x in (q, k, v))
        how = {"is_causal": 1 < tq == tk, "enable_gqa": q.shape[1] != k.shape[1]}
        return F.scaled_dot_product_attention(q, k, v, mask, **how)


class Attention(nn.Module):
    """Query heads on as many or fewer key-value heads; the matrices are named as in Llama."""

    def __init__(self, d_model: int, heads: int, kv_heads: int):
        super().__init__()
        self.head_dim, self.mix = d_model // heads, mix
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
        projections = self.q_proj, self.k_proj, self.v_proj
        q, k, v = (f(x).unflatten(-1, (-1, self.head_dim)) for f in projections)  # (B, T, H, D)
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
# gain γ, `r = 1/√(mean(x²) + ε)` and y = γ·r·x, entry by entry:
#
# `dx = r·γ·dy − x·r³·mean(x·γ·dy)`, `dγ = Σ x·r·dy` over all tokens.
#
# (It is LLM05a's formula; only the passes over memory were counted.) And `F.silu` is one kernel
# where LLM05a's silu is two. Both are proven equal to what they replace.


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
        shape = (batch, self.config.kv_heads, room, self.config.head_dim)
        return KVCache(self.config.layers, shape, self.embed_tokens.weight.detach())


# %% [markdown]
# ## 4. The first loss
# Untrained, a model should know nothing: V equally likely tokens, a loss of ln V. It is a little
# more. Let h be the vector that meets the last matrix; after the norm its square length is d. A
# logit is h·e with a row e whose d entries have the standard deviation σ ("std" in the code), so it
# has variance s² = d·σ². The loss is ln Σ exp(logits) less the target's logit, whose mean is 0; and
# the mean of exp of a normal variable is exp(s²/2). So, for V large,
#
# `loss ≈ ln V + d·σ²/2`.
#
# Tied, one logit is not like the others: that of the token itself. If h still points along the
# token's own row e, whose length is about σ·√d, its **own logit** o = h·e is √d · σ√d = d·σ: an
# untrained tied model thinks that each token comes twice! In the sum of V terms one is exp(o) then:
#
# `loss ≈ ln((V − 1)·exp(d·σ²/2) + exp(o)) − o/V`
#
# for targets drawn evenly. Does h point there? A branch begins with a norm, so what it adds doesn't
# depend on how long x is: entries of about (σ√d)², after two matrices, beside the embedding's of
# σ. The branches are small only where d·σ is small against 1. So o rises as d·σ, then stays behind.
#
# A first loss far from the formula is the cheapest alarm that there is: a wrong init, a wrong
# scale, a target that leaks.


# %% 4. The first loss
def random_tokens(config: Config, batch: int, length: int) -> Tensor:  # (B, T)
    return torch.randint(config.vocabulary, (batch, length))


@torch.no_grad()
def first_loss(config: Config) -> tuple[float, float, float]:
    """Of an untrained model on random tokens: its loss, the formula's, and the mean own logit."""
    model, c = Llama(config), config
    tokens = random_tokens(c, 64, c.context + 1)
    x, y = tokens[:, :-1], tokens[:, 1:]
    logits = model(x)
    own = logits.gather(-1, x[..., None]).double()  # (B, T, 1)
    spread = c.d_model * c.std**2
    if c.tied:
        among = (c.vocabulary - 1) * math.exp(spread / 2) + own.exp()
        formula = (among.log() - own / c.vocabulary).mean().item()
    else:
        formula = math.log(c.vocabulary) + spread / 2
    return F.cross_entropy(logits.flatten(0, 1), y.flatten()).item(), formula, own.mean().item()


@lab.experiment
def the_first_loss_is_foretold(run: Run):
    """The first loss is ln V plus half the variance of a logit; tied, the own logit comes on top.

    Predict: V = 257, d = 96, σ = 0.05, tied. What is ln V, and what is the first loss?
    """
    stds, rows, fig_rows = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07), [], {}
    fig, ax = plt.subplots()
    for tied in (False, True):
        # with ε next to nothing: beside vectors as small as the smallest σ makes it would count
        found = [first_loss(Config(257, std=std, tied=tied, eps=1e-15)) for std in stds]
        name = "tied" if tied else "untied"
        off = [loss - formula for loss, formula, _ in found]
        because = "the sum over 257 rows varies by s/√257 = 0.03 at the largest σ; measured below"
        run.check(f"{name}: loss less formula, largest", max(map(abs, off)), at_most=0.03,
                  because=because)  # fmt: skip
        rows += [[name, std, *one] for std, one in zip(stds, found, strict=True)]
        fig_rows[name] = found
        ax.plot(stds, [one[1] for one in found], f"C{tied:d}-", label=f"{name}, formula")
        ax.plot(stds, [one[0] for one in found], f"C{tied:d}o", label=f"{name}, measured")
    run.table("The first loss (nats)", ["", "σ", "loss", "formula", "own logit"], rows)
    own = [one[2] / (96 * std) for one, std in zip(fig_rows["tied"], stds, strict=True)]
    because = "|h| = √d and |e| ≈ σ√d: by Cauchy and Schwarz no more than 1, but for e's spread"
    run.check("own logit over d·σ, tied", own, at_most=1.05, because=because)
    because = "there d·σ is 0.1: the branches add little"
    run.check("the same at the smallest σ", own[0], at_least=0.9, because=because)
    run.measure("the same at σ = 0.05", own[-2], expect_at_most=0.5, because="d·σ is 4.8")
    strangers = max(abs(one[2]) for one in fig_rows["untied"])
    run.check("own logit, untied", strangers, at_most=0.2, because="a logit like all others")
    ax.axhline(math.log(257), color="grey", ls=":", label="ln V")
    ax.set(xlabel="σ, standard deviation of the weights", ylabel="loss (nats per token)",
           title="The first loss of an untrained model, d = 96, V = 257")  # fmt: skip
    ax.legend()
    run.figure(fig, "first_loss", "Measured on random tokens, and what the formulas say.")
    loss, _, logit = fig_rows["tied"][stds.index(0.05)]
    return (
        f"ln V = {math.log(257):.2f}; at σ = 0.05 the untied model starts at "
        f"{fig_rows['untied'][stds.index(0.05)][0]:.2f}, the tied one at {loss:.2f}: its own logit "
        f"is {logit:.1f} on average."
    )


# %% [markdown]
# ## 5. Tying, and every parameter
# A block has 2·d·H·D numbers in W_q and W_o, 2·d·H_kv·D in W_k and W_v, 3·d·d_ff in the gated
# feed-forward part and 2·d in its norms. With the last norm and, tied, one matrix V × d:
#
# `N = V·d + L·(2·d·(H + H_kv)·D + 3·d·d_ff + 2·d) + d`
#
# Tied means one **storage**, not two equal copies. Its gradient is the sum of what comes from both
# ends. And the order matters: initialise, then tie, then measure. `nn.Linear` draws its matrix by a
# rule of its own (evenly up to 1/√d), `nn.Embedding` with σ = 1; a model that ties first and
# initialises by layer afterwards gets whichever came last.


# %% 5. Tying
def shape_of(c: Config) -> Transformer:
    """The same shape in LLM03's words."""
    heads = (c.heads, c.kv_heads, c.head_dim)
    return Transformer(c.vocabulary, c.d_model, c.layers, *heads, c.d_ff, tied=c.tied)


def parameters(model: nn.Module) -> int:
    """How many numbers are learned; what is shared counts once."""
    return sum(p.numel() for p in model.parameters())


@lab.experiment
def tied_is_one_storage(run: Run):
    """Tied, one matrix serves at both ends: counted once, drawn once, with both ends' gradients."""
    for c in (Config(257), Config(257, tied=False), Config(1025, 128, 6, 8, 2, 344)):
        name = f"d {c.d_model}, {c.kv_heads} key-value heads, {'' if c.tied else 'un'}tied"
        run.check(f"parameters, {name}", parameters(Llama(c)), equals=total(shape_of(c)))
    c = Config(257, 48, 2)
    model, apart = Llama(c).double(), Llama(replace(c, tied=False)).double()
    shared, n = model.embed_tokens.weight, c.vocabulary * c.d_model
    one = model.lm_head.weight.data_ptr() == shared.data_ptr()
    run.check("both ends are one storage", one, equals=True)
    twice = apart.lm_head.weight.data_ptr() == apart.embed_tokens.weight.data_ptr()
    run.check("untied, too", twice, equals=False, because="the partner")
    off, because = abs(shared.std().item() / c.std - 1), "five standard errors, 1/√(2·V·d) each"
    run.check("σ after tying, relative error", off, at_most=5 / math.sqrt(2 * n), because=because)
    apart.load_state_dict(model.state_dict())
    tokens = random_tokens(c, 4, 17)
    for net in (model, apart):
        F.cross_entropy(net(tokens[:, :-1]).mT, tokens[:, 1:]).backward()
    ends = [apart.embed_tokens.weight.grad, apart.lm_head.weight.grad]
    run.agree("its gradient, less the sum of both ends'", shared.grad - sum(ends))
    share = (ends[0].norm() / ends[1].norm()).item()
    run.check("the entrance's part, in the exit's", share, at_least=0.01, because="the partner")
    return f"Tying saves {n:,} of {parameters(apart):,} parameters here."


# %% [markdown]
# ## 6. The real one
# Is it a LLaMA? Then `transformers`' LlamaForCausalLM with our weights must give our logits, and we
# its with its weights. Our modules bear the same names; only the rows of W_q and W_k are reordered.
# A model that loads weights in the wrong layout raises no error at all: every shape fits.
#
# If that works for random numbers, it works for real ones: SmolLM2-135M (in its 4-bit release,
# dequantised) has 30 layers, d = 576, 9 query heads on 3, θ = 100,000, V = 49,152. We load it, and
# let both write.


# %% 6. The real one
PREFIX, TURNED = "model.", ("q_proj.weight", "k_proj.weight")


def to_transformers(model: Llama) -> Any:
    """The same model as transformers' LlamaForCausalLM."""
    c, end = model.config, model.config.vocabulary - 1
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocabulary, hidden_size=c.d_model, num_hidden_layers=c.layers,
            num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim,
            intermediate_size=c.d_ff, max_position_embeddings=c.context, rms_norm_eps=c.eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.theta},
            tie_word_embeddings=c.tied, initializer_range=c.std, bos_token_id=end,
            eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip
    weights = {}
    for name, weight in model.state_dict().items():
        new = name if name.startswith("lm_head") else PREFIX + name
        weights[new] = to_halves(weight, c.head_dim) if name.endswith(TURNED) else weight
    theirs.to(model.embed_tokens.weight.dtype).load_state_dict(weights)
    return theirs


def from_transformers(theirs: Any, convert: Callable[[Tensor, int], Tensor] = to_neighbours) -> Llama:
    """Our model with the weights of a LlamaForCausalLM."""
    t = theirs.config
    config = Config(
        t.vocab_size, t.hidden_size, t.num_hidden_layers, t.num_attention_heads,
        t.num_key_value_heads, t.intermediate_size, t.max_position_embeddings,
        t.rope_parameters["rope_theta"], t.rms_norm_eps, t.tie_word_embeddings,
        t.initializer_range,
    )  # fmt: skip
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


@lab.experiment
@torch.no_grad()
def ours_equals_transformers(run: Run):
    """Our model equals LlamaForCausalLM with its weights, both ways, grouped queries included.

    Predict: and if the rows of W_q and W_k keep the other layout's order: an error, or what?
    """
    config = Config(101, 48, 3, 6, 2, 136, std=0.3)
    for dtype, bound in ((DOUBLE, 1e-4), (torch.float32, 1e-4)):
        ours, tokens = Llama(config).to(dtype), random_tokens(config, 3, 50)
        for gain in (p for p in ours.parameters() if p.dim() == 1):
            nn.init.uniform_(gain, 0.5, 2.0)  # they start as 1, and would prove nothing
        theirs = to_transformers(ours).eval()
        back, because = from_transformers(theirs), "its angles are float32, ours float64"
        name, want = str(dtype)[6:], theirs(tokens).logits
        run.agree(f"our weights in theirs, {name}", ours(tokens) - want, bound, because)
        run.agree(f"and back in ours, {name}", back(tokens) - want, bound, because)
        same = all(torch.equal(a, b) for a, b in
                   zip(ours.parameters(), back.parameters(), strict=True))  # fmt: skip
        run.check(f"the round trip keeps every bit, {name}", same, equals=True)
    wrong = from_transformers(theirs, lambda rows, _: rows)
    off = (wrong(tokens) - want).abs().max().item()
    because = "the partner: of the size of the logits themselves"
    run.check("rows not reordered: largest difference", off, at_least=0.5, because=because)
    return f"Rows in the wrong order raise no error: the logits are off by up to {off:.1f}."


# %% [markdown]
# ## 7. Writing
# To write is to choose a token, append it, and go on (LLM01). A **temperature** τ divides the
# logits: below 1 sharpens, 0 means the likeliest token. **Top-p** keeps the fewest likeliest tokens
# that hold a share p, and draws among them. In this order: first the temperature, which changes the
# shares, then the cut.
#
# The model was trained to look back T tokens (its **context**). When the cache has that many, we
# begin anew with the last half of the context: simple, and nothing is ever farther than in
# training.


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


@torch.no_grad()
def generate(
    model: Llama, ids: Tensor, new: int, choose: Callable[[Tensor], Tensor] = greedily
) -> Tensor:
    """`new` ids after each of (B, T): (B, new)."""
    context = model.config.context
    ids, start = ids[:, -context:], min(ids.shape[1], context)
    fresh = ids
    kept = model.cache(len(ids), min(context, start + new))
    for _ in range(new):
        if kept.filled[0] + fresh.shape[1] > kept.room:  # full: begin anew with the last half
            kept, fresh = model.cache(len(ids), context), ids[:, -(context // 2) :]
        fresh = choose(model(fresh, kept, last=True)[:, -1].float())[:, None]
        ids = torch.cat((ids, fresh), 1)
    return ids[:, start:]


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

    Predict: how much of transformers' code for it have we written again?
    """
    logging.disable_progress_bar()
    theirs = AutoModelForCausalLM.from_pretrained(assets.smollm2(), dtype=torch.float32).eval()
    theirs.generation_config.eos_token_id = None  # as long for both, whatever they write
    tokenizer = AutoTokenizer.from_pretrained(assets.smollm2())
    ours, new = from_transformers(theirs), run.pick(tiny=16, small=48, full=128)
    run.check("parameters", parameters(ours), equals=sum(p.numel() for p in theirs.parameters()))
    rows, wrong, offs = [], 0, []
    for text in ("Shakespeare was born in", "The three primary colours are"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        want = theirs(ids).logits
        offs.append(((ours(ids) - want).abs().max() / want.abs().max()).item())
        how = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new}
        text_ids = theirs.generate(ids, attention_mask=torch.ones_like(ids), **how)
        got = generate(ours, ids, new)
        wrong += (got != text_ids[:, ids.shape[1] :]).sum().item()
        rows.append([text, tokenizer.decode(got[0])])
    because = "thirty layers of float32 rounding"
    run.check("logits: largest difference, of the largest logit", max(offs),
              at_most=tolerance(torch.float32) * 10, because=because)  # fmt: skip
    run.check("greedy tokens unlike theirs", wrong, equals=0)
    run.table("Written by our model, with its weights", ["prompt", "text"], rows)


# %% [markdown]
# ## 8. Can it learn, does it peek, does the cache lie?
# Three tests before any training worth the name. **It can learn**: one batch of random tokens,
# shown again and again, must be learned by heart. There is nothing to generalise; if the loss
# doesn't fall to nearly nothing, something between the loss and a weight is cut. How far can it
# fall? Where two rows of the batch begin alike and go on differently, no model can know which it
# is in: that sets a **floor**, the entropy of what follows each beginning that occurs.
#
# **It doesn't peek**: the gradient of place t's logits to the vectors of later tokens is exactly 0,
# as nothing was added. **The cache tells the truth**: whatever is read at once and whatever step by
# step, the logits are the same up to rounding.


# %% 8. Can it learn
def floor_of(tokens: Tensor) -> float:
    """The least loss on rows (B, T + 1): the entropy of the next token, given its row so far."""
    follow: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in tokens.tolist():
        for t in range(1, len(row)):
            follow[tuple(row[:t])].append(row[t])
    counts = [np.unique(one, return_counts=True)[1] for one in follow.values()]
    nats = sum(float(-(c * np.log(c / c.sum())).sum()) for c in counts)
    return nats / tokens[:, 1:].numel()


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
    run.check("loss above the floor", over, at_most=0.03, because=because)
    run.check("loss above the floor, again", over, at_least=-1e-4, because="no model is below it")
    return (
        f"From {math.log(16):.2f} to {median(over):.4f} nats above the floor, which is at "
        f"{median(floors):.3f}."
    )


# %% 9. Does it peek
@lab.experiment
def no_logit_sees_the_future(run: Run):
    """No logit has a gradient to a later token's vector; with a cache, the logits are the same."""
    config = Config(50, 48, 3, 6, 2, 128, std=0.2)
    model, tokens = Llama(config).double(), random_tokens(config, 2, 20)
    vectors: list[Tensor] = []
    hook = model.embed_tokens.register_forward_hook(lambda _m, _i, out: vectors.append(out))
    logits = model(tokens)
    hook.remove()
    slopes = torch.stack([
        torch.autograd.grad(logits[0, t].square().sum(), vectors[0], retain_graph=True)[0][0]
        .abs().amax(-1)
        for t in range(20)
    ])  # (place, token that it may depend on)  # fmt: skip
    future = torch.arange(20) > torch.arange(20)[:, None]
    run.check("largest slope to the future", slopes[future].max(), at_most=0)
    because = "the partner: each place sees itself and all before"
    run.check("least slope to the past", slopes[~future].min(), at_least=1e-6, because=because)
    with torch.no_grad():
        for name, sizes in (("one by one", [1] * 20), ("prefill, then steps", [9, 1, 1, 7, 2])):
            kept = model.cache(2, 20)
            parts = [model(part, kept) for part in tokens.split(sizes, 1)]
            run.agree(f"with a cache, {name}", torch.cat(parts, 1) - logits, 1e-10)
        lost = model.cache(2, 20)
        model(tokens[:, :9], lost)
        lost.filled = [0] * config.layers  # as if nothing had been read
        off = (model(tokens[:, 9:10], lost) - logits[:, 9:10]).abs().max()
        run.check("with an emptied cache", off, at_least=0.01, because="the partner")
    short = Llama(Config(50, 48, 3, 6, 2, 128, std=0.2))
    prompt = tokens[:1, :5]
    wrong = (generate(short, prompt, 40) != generate_slowly(short, prompt, 40)).sum()
    run.check("greedy tokens that the cache changes", wrong, at_most=0, because="float32")


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
# model's context: the first token of a window is guessed from one token alone, the last from T.
# (Vocabularies can be compared only per byte, LLM01.)


# %% 10. A text as numbers
END = "<|endoftext|>"
LEARNED_ON = 1_000_000  # bytes that merges are learned from
COUNTED = 10_000_000  # tokens that n-grams are counted in


@dataclass(frozen=True)
class Text:
    """Ids to train on and ids to validate, (N,) uint8 or uint16, perhaps mapped from the disk."""

    train: Any
    validation: Any
    merges: tuple[Pair, ...]
    name: str
    sha256: str
    bytes_per_token: float

    @property
    def vocabulary(self) -> int:
        return 257 + len(self.merges)  # the bytes, the merges and END

    def batch(self, size: int, length: int, generator: torch.Generator) -> Tensor:
        """(size, length + 1): windows from anywhere in the training text."""
        starts = torch.randint(len(self.train) - length, (size, 1), generator=generator)
        return torch.from_numpy(self.train[starts + torch.arange(length + 1)].astype(np.int64))


@cache
def text(run: Run) -> Text:
    """What --corpus names, or the embedded plays."""
    path, merges = run.options.corpus, run.options.merges
    least = 20 * (sizes(run)[0].context + 1)  # a tenth of it must hold two windows
    if path is None:
        data = np.frombuffer(assets.shakespeare().encode(), dtype=np.uint8)
        name, digest = "Shakespeare's plays", hashlib.sha256(data).hexdigest()
    else:
        file = text_file(path, least)
        data, name, digest = file.data, path.name, file.sha256
    cut = len(data) * 9 // 10
    if not merges:
        return Text(data[:cut], data[cut:], (), name, digest, 1.0)
    return in_tokens(run, data, cut, merges, name, digest)


def in_tokens(run: Run, data: Any, cut: int, merges: int, name: str, digest: str) -> Text:
    """The text in LLM04's BPE, its ids in a file without a name, which goes with the process."""
    learned = train_bpe(count_words(data[:LEARNED_ON].tobytes().decode(errors="ignore")), merges)
    bpe, parts = BPE(learned), []
    for part in (data[:cut], data[cut:]):
        file = tempfile.TemporaryFile(dir=run.settings.outputs)  # /tmp may be memory
        pieces = (part[i : i + 2**20].tobytes() for i in range(0, len(part), 2**20))
        for ids in batched(encode_stream(bpe.encode, pieces), 2**20):
            np.array(ids, dtype=np.uint16).tofile(file)
        file.flush()
        parts.append(np.memmap(file, dtype=np.uint16, mode="r"))
    each = (len(data) - cut) / len(parts[1])
    return Text(parts[0], parts[1], tuple(bpe.merges), name, digest, each)


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
        for a, b in zip(x.split(2**13 // length), y.split(2**13 // length), strict=True):
            logits = model(a.to(device)).float()
            total += F.cross_entropy(logits.mT, b.to(device), reduction="sum").item()
    return total / (len(ids) - 1)


# %% [markdown]
# ## 10. What counting can do
# A loss means nothing alone. **Uniform**: ln V. **Unigram**: how frequent each token is. **Bigram,
# trigram**: how frequent it is after the last one, the last two. Counted in the training text and
# asked about another, a count may be 0, so counts are **smoothed**. We take Witten & Bell's way
# (1991): after a history h that was seen c(h) times, followed by t(h) different tokens, the chance
# of something new is taken to be t/(c + t), and shared out as the next shorter history says:
#
# `p(w | h) = (c(h, w) + t(h) · p(w | shorter h)) / (c(h) + t(h))`
#
# After "Q" seen 9 times, always with "u": t = 1, and p(u) = (9 + p₀(u))/10. At the bottom stands
# 1/V. It has nothing to tune, and sums to one. Longer histories go on helping, for a while: the
# ladder has two rungs that textbooks leave out.


# %% 11. What counting can do
def keys(ids: np.ndarray, n: int, v: int) -> np.ndarray:
    """Each run of `n` ids as one number, (N − n + 1,) int64."""
    found = np.zeros(len(ids) - n + 1, dtype=np.int64)
    for i in range(n):
        found = found * v + ids[i : len(found) + i]
    return found


def looked_up(wanted: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` of those `known` keys (sorted) that are wanted; 0 for others."""
    where = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[where] == wanted, values[where], 0)


def ladder(train: Any, validation: Any, v: int, orders: int = 5) -> list[float]:
    """Nats per token of Witten & Bell's n-grams, n = 1 to `orders`, on all of the validation ids
    but the first, which have the end of the training text before them."""
    orders = min(orders, int(62 / math.log2(v)))  # longer runs don't fit into 64 bits
    seen = np.asarray(train[:COUNTED])
    asked = np.concatenate((np.asarray(train[-orders:]), validation))[1:]  # orders − 1 before it
    p, found = np.full(len(validation) - 1, 1 / v), []
    for n in range(1, orders + 1):
        runs, counts = np.unique(keys(seen, n, v), return_counts=True)
        histories, first, kinds = np.unique(runs // v, return_index=True, return_counts=True)
        sums = np.add.reduceat(counts, first)  # c(h); `kinds` is t(h)
        run_asked = keys(asked, n, v)[-len(p) :]
        c, t = (looked_up(run_asked // v, histories, x) for x in (sums, kinds))
        p = (looked_up(run_asked, runs, counts) + t * p) / np.maximum(c + t, 1) + (c == 0) * p
        found.append(-np.log(p).mean())
    return found


RUNGS = ("unigram", "bigram", "trigram", "4-gram", "5-gram")


@cache
def rungs(run: Run) -> list[float]:
    return ladder(text(run).train, judged_on(run), text(run).vocabulary)


def judged_on(run: Run) -> Any:
    """The validation text; at tiny its first 64 Ki tokens."""
    return text(run).validation[: run.pick(tiny=2**16, small=None, full=None)]


# %% [markdown]
# ## 11. What pulls the weights
# **AdamW** (Loshchilov & Hutter 2019) moves each number by about the learning rate, whatever its
# gradient's size. **Muon** (Jordan et al. 2024) treats a matrix as what it is, a map: its momentum
# M = U S Vᵀ is replaced by U Vᵀ, so that *every direction moves alike*, the strong and the rare.
# U Vᵀ takes no decomposition. Scale M so that no singular value exceeds 1, then apply five times
#
# `X ← a·X + b·(X Xᵀ) X + c·(X Xᵀ)² X`, (a, b, c) = (3.4445, −4.7750, 2.0315),
#
# which acts on each singular value s as the polynomial a·s + b·s³ + c·s⁵ and brings nearly all into
# 0.7 … 1.2: 0.01 goes to 0.034, 0.118, 0.40, 1.07, 0.70. Embeddings and norms aren't maps: they
# keep AdamW. The price is 5 · 3 products a step for each matrix, so that Muon wants large batches.
#
# **Weight decay** pulls weights towards 0. A norm's gain is near 1 for a reason and is spared; a
# matrix that serves twice must be pulled once.


# %% 12. What pulls the weights
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
    """(..., m, n): nearly U Vᵀ for each matrix U S Vᵀ; its singular values in about 0.7 to 1.2."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # X Xᵀ is the smaller one then
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315), x,
                          beta=3.4445)  # fmt: skip
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices; those of one shape are treated together. In float32, where bfloat16 is slow
    (torch.optim.Muon would use it)."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for (rows, columns), matrices in shapes.items():
                gradients = [p.grad for p in matrices]
                for p in matrices:
                    self.state[p].setdefault("momentum", torch.zeros_like(p))
                kept = [self.state[p]["momentum"] for p in matrices]
                torch._foreach_lerp_(kept, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, kept, group["momentum"])  # Nesterov's
                moves = orthogonal(torch.stack(ahead)).unbind()
                size = group["lr"] * math.sqrt(max(1, rows / columns))
                torch._foreach_add_(matrices, moves, alpha=-size)
