"""The small GPT of LLM05a and LLM05b: a language model, its text and its training.

The labs pass in the modules that they teach: norms, feed-forward layers, positions. The attention
is the library's; LLM06 teaches it. Losses are in nats per character.
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

MakeLayer = Callable[[int], nn.Module]  # takes the width of the vectors


# The text.


@dataclass(frozen=True)
class Corpus:
    """A text as numbers: the first nine tenths for training, the rest for validation.

    Attributes:
        train: (N,), int64.
        validation: (M,), int64.
        characters: the character of each number.
    """

    train: Tensor
    validation: Tensor
    characters: str

    def batch(self, size: int, length: int, generator: torch.Generator) -> Tensor:
        """Return windows at random places of the training text, (size, length + 1)."""
        starts = torch.randint(len(self.train) - length, (size, 1), generator=generator)
        return self.train[starts + torch.arange(length + 1)]

    def windows(self, count: int, length: int) -> Tensor:
        """Return windows spread evenly over the validation text, (count, length + 1)."""
        starts = torch.linspace(0, len(self.validation) - length - 1, count).long()
        return self.validation[starts[:, None] + torch.arange(length + 1)]


@cache
def shakespeare() -> Corpus:
    """Return Shakespeare's 38 plays by title, 5 million characters.

    The validation text begins in Timon of Athens.
    """
    text = assets.shakespeare()
    codes = torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32)
    distinct, tokens = torch.unique(codes, return_inverse=True)
    cut = len(tokens) * 9 // 10
    return Corpus(tokens[:cut], tokens[cut:], "".join(map(chr, distinct.tolist())))


def unigram(windows: Tensor) -> float:
    """Return the best loss on windows, (n, T + 1), of a predictor that sees no token."""
    counts = windows[:, 1:].flatten().bincount().double()
    return _entropy(counts[None])


def bigram(windows: Tensor) -> float:
    """Return the best loss on windows, (n, T + 1), of a predictor that sees the last token alone.

    It is the conditional entropy of the next token given the last, counted on these windows: for
    each last token, no prediction beats the frequencies of the next ones (Gibbs' inequality).
    """
    size = int(windows.max()) + 1
    pairs = windows[:, :-1] * size + windows[:, 1:]
    counts = pairs.flatten().bincount(minlength=size * size).double()
    return _entropy(counts.view(size, size))  # (last, next)


def _entropy(counts: Tensor) -> float:
    """Return the mean entropy of the rows of counts, (rows, V), weighted by their sums; in nats."""
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return -(counts * share.clamp(min=1e-300).log()).sum().item() / counts.sum().item()


# The model.


class Position(nn.Module):
    """No positions. A subclass overrides one of the three methods to add them."""

    def embed(self, x: Tensor) -> Tensor:
        """Add positions to the embeddings, (B, T, d) -> (B, T, d)."""
        return x

    def turn(self, x: Tensor) -> Tensor:
        """Rotate queries or keys by position, (B, H, T, D) -> (B, H, T, D)."""
        return x

    def bias(self, heads: int, length: int) -> Tensor | None:
        """Return what to add to the scores, (H, T, T) over (query, key); later keys are masked."""
        del heads, length
        return None


class Learned(Position):
    """A learned vector for each position, as in GPT-2; a text has at most `length` tokens."""

    def __init__(self, length: int, d_model: int):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(length, d_model))

    def embed(self, x: Tensor) -> Tensor:
        """Add the vector of each position, (B, T, d) -> (B, T, d)."""
        return x + self.table[: x.shape[1]]


class FeedForward(nn.Module):
    """Two matrices with an activation between them, d -> d_ff -> d, for each token alone."""

    def __init__(
        self, d_model: int, d_ff: int | None = None, activation: Callable[[Tensor], Tensor] = F.gelu
    ):
        super().__init__()
        d_ff = d_ff or 4 * d_model
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token, (..., d) -> (..., d)."""
        return self.down(self.activation(self.up(x)))


@dataclass(frozen=True)
class Config:
    """The parts and sizes of a model; the defaults are a small GPT-2 without biases.

    Attributes:
        vocabulary: the number of different tokens, V.
        layers: the number of blocks.
        d_model: the width of the vectors, d.
        heads: the number of attention heads; 0 for a model without attention.
        norm: makes a norm; `nn.Identity` for none.
        placement: where the norms stand, a key of PLACEMENTS.
        position: makes the positions.
        ffn: makes a feed-forward layer.
    """

    vocabulary: int
    layers: int = 2
    d_model: int = 64
    heads: int = 4
    norm: MakeLayer = nn.LayerNorm
    placement: str = "pre"
    position: Callable[[], Position] = Position
    ffn: MakeLayer = FeedForward


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, config: Config):
        super().__init__()
        d = config.d_model
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Mix the tokens, (B, T, d) -> (B, T, d)."""
        split = (self.heads, -1)
        q, k, v = (f(x).unflatten(-1, split).transpose(1, 2) for f in (self.q, self.k, self.v))
        q = position.turn(q)  # (B, H, T, D)
        k = position.turn(k)  # (B, H, T, D)
        mixed = attend(q, k, v, position.bias(self.heads, x.shape[1]))
        return self.out(mixed.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Return causal attention by the library's kernel, (B, H, T, D) each -> (B, H, T, D).

    It computes in float32 at least: on a CPU the kernel's bfloat16 backward is ~5× slower.
    """
    dtype = torch.promote_types(v.dtype, torch.float32)
    t = v.shape[-2]
    if bias is not None:
        ahead = torch.ones(t, t, dtype=torch.bool, device=v.device).triu(1)
        bias = bias.to(v.device, dtype).masked_fill(ahead, -math.inf)
        bias = bias[None]  # the CPU's fused kernel takes 4 axes; with 3, T = 512 is 7× slower
    with torch.autocast("cpu", enabled=False):
        q, k, v = (x.to(dtype) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, bias, is_causal=bias is None)


# Whether there is a norm before a branch, and after the sum.
PLACEMENTS = {
    "pre": (True, False),  # Xiong et al. 2020; GPT-2, Llama
    "post": (False, True),  # Vaswani et al. 2017
}


class Residual(nn.Module):
    """A branch with its residual connection and its norms."""

    def __init__(self, branch: nn.Module, config: Config):
        super().__init__()
        self.branch = branch
        norms = (config.norm if there else nn.Identity for there in PLACEMENTS[config.placement])
        self.enters, self.sum = (norm(config.d_model) for norm in norms)

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        """Add the output of the branch to x, (B, T, d) -> (B, T, d)."""
        return self.sum(x + self.branch(self.enters(x), *more))


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each with its residual connection."""

    def __init__(self, config: Config):
        super().__init__()
        self.attention = Residual(Attention(config), config) if config.heads else None
        self.ffn = Residual(config.ffn(config.d_model), config)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        if self.attention is not None:
            x = self.attention(x, position)
        return self.ffn(x)


class LanguageModel(nn.Module):
    """A decoder, (B, T) tokens -> (B, T, V) logits of each next token.

    The entries of the embeddings have variance 1. The matrices start with the variance
    2 / (fan in + fan out) of Glorot & Bengio (2010), which gives logits of variance about 1.
    """

    def __init__(self, config: Config):
        super().__init__()
        d = config.d_model
        self.embedding = nn.Embedding(config.vocabulary, d)
        self.position = config.position()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.Identity() if config.placement == "post" else config.norm(d)
        self.unembedding = nn.Linear(d, config.vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T) -> (B, T, V)."""
        x = self.position.embed(self.embedding(tokens))  # (B, T, d)
        for block in self.blocks:
            x = block(x, self.position)
        return self.unembedding(self.norm(x))


def parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


# The training.


@dataclass(frozen=True)
class Trained:
    """A trained model and its curves, of this process's part of each batch.

    Attributes:
        model: unwrapped: in float32, without autocast.
        losses: before each step, in nats per character.
        gradient_norms: the norm of all gradients together, before clipping.
    """

    model: Any
    losses: list[float]
    gradient_norms: list[float]


def lr_at(step: int, steps: int, warmup: int) -> float:
    """Return the learning rate at a step, as a share of its peak.

    It rises linearly to 1, then falls linearly to almost 0.
    """
    up = (step + 1) / (warmup + 1)
    return min(up, (steps - step) / max(steps - warmup, 1))


@on_one_thread
def train(
    run: Run,
    start: Config | nn.Module,
    corpus: Corpus,
    *,
    steps: int,
    lr: float,
    seed: int,
    warmup: int = 0,
    clip: float = math.inf,
    batch: int = 32,
    length: int = 64,
    watch: Callable[[int, Any], None] | None = None,
) -> Trained:
    """Train a new model, or a copy of one, with AdamW; the seed alone determines the batches.

    `watch` is called before each step of the optimizer with the number of the step and the
    unwrapped model, whose gradients are computed.
    """
    torch.manual_seed(seed)
    model = LanguageModel(start) if isinstance(start, Config) else copy.deepcopy(start)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    model, optimizer = run.accelerator.prepare(model, optimizer)
    parameters = list(model.parameters())
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * lr_at(step, steps, warmup)
        tokens = run.share(corpus.batch(batch, length, generator)).to(run.device)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        run.accelerator.backward(loss)
        norm: Any = run.accelerator.clip_grad_norm_(parameters, clip)
        norms.append(norm)
        if watch is not None:
            watch(step, run.accelerator.unwrap_model(model))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    model = run.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return Trained(model, torch.stack(losses).tolist(), torch.stack(norms).tolist())


@torch.no_grad()
def nats(model: nn.Module, windows: Tensor) -> Tensor:
    """Return the loss of each next character, (n, T + 1) windows -> (n, T).

    The result is on the model's device.
    """
    device = next(model.parameters()).device
    rows = max(1, 2**14 // windows.shape[1])  # 16,384 tokens at a time
    losses: list[Tensor] = []
    for tokens in torch.split(windows.to(device), rows):
        logits = model(tokens[:, :-1])
        losses.append(F.cross_entropy(logits.mT, tokens[:, 1:], reduction="none"))
    return torch.cat(losses)
