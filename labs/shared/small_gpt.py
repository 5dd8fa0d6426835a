"""The apparatus of LLM05a and LLM05b: one small language model, its text and its training.

The labs bring what they teach (norms, feed-forward layers, positions) and put it in here; the
attention inside is the library's, which LLM06 opens. A loss is in nats per character.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from labs.kit import Run, assets, on_one_thread

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[int], nn.Module]  # a layer for vectors of the given width


# The text.


@dataclass(frozen=True)
class Corpus:
    """Characters as numbers: the first nine tenths to train on, the last to validate."""

    train: Tensor  # (N,), int64
    validation: Tensor  # (M,), int64
    characters: str

    def batch(self, size: int, length: int, generator: torch.Generator) -> Tensor:
        """(size, length + 1): windows anywhere in the training text."""
        starts = torch.randint(len(self.train) - length, (size, 1), generator=generator)
        return self.train[starts + torch.arange(length + 1)]

    def windows(self, count: int, length: int) -> Tensor:
        """(count, length + 1): always the same windows, spread evenly over the validation text."""
        starts = torch.linspace(0, len(self.validation) - length - 1, count).long()
        return self.validation[starts[:, None] + torch.arange(length + 1)]


@cache
def shakespeare() -> Corpus:
    """38 plays by title, 5 million characters; from Timon of Athens on they validate."""
    text = assets.shakespeare()
    codes = torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32)
    distinct, tokens = codes.unique(return_inverse=True)
    cut = len(tokens) * 9 // 10
    return Corpus(tokens[:cut], tokens[cut:], "".join(map(chr, distinct.tolist())))


def unigram(windows: Tensor) -> float:
    """The best loss on these windows (n, T + 1) of a predictor that looks at nothing."""
    counts = windows[:, 1:].flatten().bincount().double()
    return _entropy(counts[None])


def bigram(windows: Tensor) -> float:
    """The best loss on these windows (n, T + 1) of a predictor that looks at the last token alone.

    The conditional entropy of the next token given the last, counted on the windows themselves:
    for each last token no guess is better than the frequencies of what follows it (Gibbs).
    """
    size = int(windows.max()) + 1
    pairs = windows[:, :-1] * size + windows[:, 1:]
    counts = pairs.flatten().bincount(minlength=size * size).double()
    return _entropy(counts.view(size, size))  # (last, next)


def _entropy(counts: Tensor) -> float:
    """(rows, V) counts -> nats, the rows' entropies weighted by how often each row is met."""
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return -(counts * share.clamp(min=1e-300).log()).sum().item() / counts.sum().item()


# The model.


class Position(nn.Module):
    """Where a token stands, told in one of three places; this one tells nothing. Override one."""

    def embed(self, x: Tensor) -> Tensor:
        """What enters the first block, (B, T, d) -> (B, T, d)."""
        return x

    def turn(self, x: Tensor) -> Tensor:
        """Queries, and keys, (B, H, T, D) -> (B, H, T, D)."""
        return x

    def bias(self, heads: int, length: int) -> Tensor | None:
        """What is added to the scores, (H, T, T) over (query, key); what is ahead is hidden."""
        del heads, length
        return None


class Learned(Position):
    """A learned vector for each place, as in GPT-2; the model can't read past `length`."""

    def __init__(self, length: int, d_model: int):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(length, d_model))

    def embed(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


class FeedForward(nn.Module):
    """Each token by itself: d -> d_ff, an activation, and back."""

    def __init__(
        self, d_model: int, d_ff: int | None = None, activation: Callable[[Tensor], Tensor] = F.gelu
    ):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff or 4 * d_model, bias=False)
        self.down = nn.Linear(d_ff or 4 * d_model, d_model, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


@dataclass(frozen=True)
class Config:
    """What the model is made of; defaults are those of a small GPT-2 without biases."""

    vocabulary: int
    layers: int = 2
    d_model: int = 64
    heads: int = 4  # 0: no attention, each token by itself
    norm: Make = nn.LayerNorm  # nn.Identity: none
    placement: str = "pre"  # a key of PLACEMENTS
    position: Callable[[], Position] = Position
    ffn: Make = FeedForward
    qk_norm: bool = False  # `norm` on each head's queries and keys (Henry et al. 2020)
    alpha: float = 1.0  # x is multiplied by it before a branch is added (Wang et al. 2022)
    beta: float = 1.0  # the gain of the matrices that DeepNorm scales (the same)


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        d, self.heads = config.d_model, config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))
        norm = config.norm if config.qk_norm else nn.Identity
        self.q_norm, self.k_norm = norm(d // self.heads), norm(d // self.heads)

    def forward(self, x: Tensor, position: Position) -> Tensor:  # (B, T, d) -> (B, T, d)
        split = (self.heads, -1)
        q, k, v = (f(x).unflatten(-1, split).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = position.turn(self.q_norm(q)), position.turn(self.k_norm(k))  # (B, H, T, D)
        mixed = attend(q, k, v, position.bias(self.heads, x.shape[1]))
        return self.out(mixed.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Causal attention by the library, (B, H, T, D) each -> (B, H, T, D).

    On a CPU in float32 at least: its kernel's bfloat16 takes some five times as long backwards.
    """
    dtype, t = torch.promote_types(v.dtype, torch.float32), v.shape[-2]
    if bias is not None:
        ahead = torch.ones(t, t, dtype=torch.bool, device=v.device).triu(1)
        bias = bias.to(v.device, dtype).masked_fill(ahead, -math.inf)
    with torch.autocast("cpu", enabled=False):
        q, k, v = (x.to(dtype) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, bias, is_causal=bias is None)


# Which norms there are: on what enters a branch, on what leaves it, on the sum.
PLACEMENTS = {
    "pre": (True, False, False),  # Xiong et al. 2020; GPT-2, Llama
    "post": (False, False, True),  # Vaswani et al. 2017; with alpha and beta it is DeepNorm
    "sandwich": (True, True, False),  # Ding et al. 2021; Gemma 2
}


class Residual(nn.Module):
    """x plus what a branch makes of it."""

    def __init__(self, branch: nn.Module, config: Config):
        super().__init__()
        self.branch, self.alpha = branch, config.alpha
        norms = (config.norm if there else nn.Identity for there in PLACEMENTS[config.placement])
        self.enters, self.leaves, self.sum = (norm(config.d_model) for norm in norms)

    def forward(self, x: Tensor, *more: Any) -> Tensor:  # (B, T, d) -> (B, T, d)
        return self.sum(self.alpha * x + self.leaves(self.branch(self.enters(x), *more)))


class Block(nn.Module):
    """Attention, which looks at the tokens before, and a feed-forward layer."""

    def __init__(self, config: Config):
        super().__init__()
        self.attention = Residual(Attention(config), config) if config.heads else None
        self.ffn = Residual(config.ffn(config.d_model), config)

    def forward(self, x: Tensor, position: Position) -> Tensor:  # (B, T, d) -> (B, T, d)
        if self.attention is not None:
            x = self.attention(x, position)
        return self.ffn(x)


class LanguageModel(nn.Module):
    """A decoder: (B, T) tokens -> (B, T, V) logits, those of the token after each.

    Vectors enter with entries of variance 1. Matrices are drawn as Glorot & Bengio (2010) do, with
    variance 2 / (fan in + fan out), so that logits leave with a variance of about 1.
    """

    def __init__(self, config: Config):
        super().__init__()
        d = config.d_model
        self.embedding = nn.Embedding(config.vocabulary, d)
        self.position = config.position()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.Identity() if config.placement == "post" else config.norm(d)
        self.unembedding = nn.Linear(d, config.vocabulary, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scaled = not name.endswith((".q", ".k", "unembedding"))
                gain = config.beta if scaled else 1.0
                nn.init.xavier_normal_(module.weight, gain)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.position.embed(self.embedding(tokens))  # (B, T, d)
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(self.norm(x))


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())


# The training.


@dataclass(frozen=True)
class Trained:
    """A trained model with its curves, one number a step (of this process's part of the batch)."""

    model: Any  # unwrapped: in float32, without autocast
    losses: list[float]  # nats per character, before the step
    gradient_norms: list[float]  # of all parameters, before clipping


def rate(step: int, steps: int, warmup: int) -> float:
    """The learning rate's share at a step: up linearly to 1, then down linearly to nearly 0."""
    up = (step + 1) / (warmup + 1)
    return min(up, (steps - step) / max(steps - warmup, 1))


@on_one_thread
def train(
    run: Run,
    start: Config | LanguageModel,
    corpus: Corpus,
    *,
    steps: int,
    lr: float,
    seed: int,
    warmup: int = 0,
    clip: float = math.inf,
    batch: int = 32,
    length: int = 64,
) -> Trained:
    """Train a new model, or a copy of one, by AdamW. A seed's batches are the same for all."""
    torch.manual_seed(seed)
    model = LanguageModel(start) if isinstance(start, Config) else copy.deepcopy(start)
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    model, optimizer = run.accelerator.prepare(model, optimizer)
    losses, norms = [], []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, steps, warmup)
        tokens = run.share(corpus.batch(batch, length, draws)).to(run.device)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        run.accelerator.backward(loss)
        norms.append(run.accelerator.clip_grad_norm_(model.parameters(), clip))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    model = run.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return Trained(model, torch.stack(losses).tolist(), torch.stack(norms).tolist())


@torch.no_grad()
def nats(model: nn.Module, windows: Tensor) -> Tensor:
    """The loss of each next character, (n, T + 1) windows -> (n, T), on the model's device."""
    device = next(model.parameters()).device
    some = max(1, 2**14 // windows.shape[1])  # 16,384 tokens at a time
    found = []
    for tokens in windows.to(device).split(some):
        logits = model(tokens[:, :-1])
        found.append(F.cross_entropy(logits.mT, tokens[:, 1:], reduction="none"))
    return torch.cat(found)
