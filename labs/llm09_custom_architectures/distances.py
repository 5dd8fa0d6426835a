"""How far a language model of LLM09+ sees, and how far back a token to recall is."""

from typing import Any

from labs.llm06_attention import VOCABULARY

import torch
from torch import Tensor


@torch.enable_grad()
def influence(model: Any, length: int, place: int) -> Tensor:
    """Return how much each of `length` random tokens moves the logits at a place, (T,)."""
    embedded: list[Tensor] = []
    handle = model.embed.register_forward_hook(lambda _m, _i, output: embedded.append(output))
    try:
        logits = model(torch.randint(VOCABULARY, (1, length)))
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(logits[0, place].square().sum(), embedded)
    return slope[0].abs().amax(-1)


def steps_back(tokens: Tensor) -> Tensor:
    """Return how many steps before each query its first copy is, (B, T) -> (B, PAIRS)."""
    t = torch.arange(tokens.shape[1])
    queries = t[16::2]  # (PAIRS,)
    first = (tokens[:, None, :16] == tokens[:, 16::2, None]).int().argmax(-1)  # (B, PAIRS)
    return queries - first


@torch.no_grad()
def names_two_before(model: Any, tokens: Tensor) -> Tensor:
    """Return whether a model names the token two before the first query, (B, T) -> (B,)."""
    return model(tokens)[:, 16].argmax(-1) == tokens[:, 14]
