"""The task of recall in LLM06: which token followed this one? With positions for short texts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 32
FIRST = 16  # different tokens in the first part
PAIRS = 8  # pairs to recall
LENGTH = FIRST + 2 * PAIRS
# The causal mask, without the lesson's function: a sheet must open while that is still wrong.
PAST = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
KEYS = slice(FIRST, None, 2)
TARGETS = slice(FIRST + 1, None, 2)
# Guess a token that followed another in the first part and was not a target yet.
GUESS = sum(1 / (FIRST - 1 - i) for i in range(PAIRS)) / PAIRS
TWICE_A_GUESS = f"about twice {GUESS:.2f}, a guess among the tokens that can still follow"


def recall_batch(size: int) -> Tensor:
    """Return random tasks, (B, LENGTH): different tokens, then pairs of neighbours again."""
    first = torch.rand(size, VOCABULARY).argsort(-1)[:, :FIRST]  # all different
    which = torch.rand(size, FIRST - 1).argsort(-1)[:, :PAIRS]
    pairs = torch.stack((first.gather(1, which), first.gather(1, which + 1)), -1)  # (B, PAIRS, 2)
    return torch.cat((first, pairs.flatten(1)), 1)


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Return random tasks, (B, LENGTH), and their targets, (B, PAIRS)."""
    tokens = recall_batch(size)
    return tokens, tokens[:, TARGETS]


def previous_batch(size: int) -> tuple[Tensor, Tensor]:
    """Return random tasks, (B, LENGTH), and the token before each query, (B, PAIRS)."""
    tokens = recall_batch(size)
    return tokens, tokens[:, FIRST - 1 : -1 : 2]


@torch.no_grad()
def accuracy(model: nn.Module, tokens: Tensor, masks: list[Tensor] | None = None) -> float:
    """Return the share of targets that a model predicts, with a mask for each layer or none."""
    masks = masks and [mask.to(tokens.device) for mask in masks]
    guesses = model(tokens, masks).argmax(-1)  # (B, PAIRS)
    return (guesses == tokens[:, TARGETS]).float().mean().item()


def circuit(tokens: Tensor) -> dict[str, Tensor]:
    """Return the pairs of query and key, (B, T, T), that recall needs in layer 1 and in layer 2.

    Layer 1: the previous token. Layer 2: the token after the earlier copy of the query.
    """
    t = torch.arange(tokens.shape[1], device=tokens.device)
    previous = (t[:, None] - t == 1) & (t < FIRST - 1)  # (T, T)
    same = tokens[:, None, :-1] == tokens[:, :, None]  # (B, T, T − 1)
    after_copy = F.pad(same, (1, 0)) & (t < FIRST)  # (B, T, T)
    asks = (t >= FIRST) & (t % 2 == 0)  # (T,)
    return {
        "previous token": previous.expand_as(after_copy),
        "induction": after_copy & asks[:, None],
    }


def rope(x: Tensor, base: float = 100.0, start: int = 0) -> Tensor:
    """Rotate (..., T, D) by position (RoPE, LLM05b); coordinate i is paired with i + D/2.

    Base 100 is enough for short texts. Llama's is 10,000 or more. The first token has the position
    `start`.
    """
    length, width = x.shape[-2:]
    t = torch.arange(start, start + length, device=x.device)
    frequencies = base ** (-torch.arange(0, width, 2, device=x.device) / width)  # (D/2,)
    angle = t[:, None] * frequencies  # (T, D/2)
    cos = angle.cos().to(x.dtype)
    sin = angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)  # (..., T, D/2) each
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
