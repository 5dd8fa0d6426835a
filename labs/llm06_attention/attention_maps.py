"""The attention weights of trained models: LLM06's small ones, and a library's."""

import math
from functools import cache
from typing import Any

from labs.kit import Run, assets
from labs.llm06_attention import head_patterns, recall

import torch
from torch import Tensor


def attention_weights(x: Tensor, w_q: Tensor, w_k: Tensor, head_dim: int) -> Tensor:
    """Return causal weights (B, H, T, T) from x (B, T, d_model), W_q (H·D, d_model) and W_k.

    Without the functions of the lesson, which imports this module.
    """
    q = (x @ w_q.mT).unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, H, T, D)
    k = (x @ w_k.mT).unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, Hkv, T, D)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B, H, T, D)
    scores = recall.rope(q) @ recall.rope(k).mT / math.sqrt(head_dim)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1)


@torch.no_grad()
def patterns(model: Any, tokens: Tensor) -> list[Tensor]:
    """Return the weights of each layer of an `AttentionOnly`, (B, H, T, T)."""
    x = model.embed(tokens)
    layers = []
    for layer in model.layers:
        weights = attention_weights(x, layer.q_proj.weight, layer.k_proj.weight, layer.head_dim)
        layers.append(weights)
        x = x + layer(x, recall.PAST.to(x.device))
    return layers


@cache
def language_model(run: Run) -> tuple[Any, Tensor, Any]:
    """Return SmolLM2, or the model of --model; the ids of a sentence, (1, T); the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = assets.pretrained(run.options.model, run.online)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    ids = tokenizer(head_patterns.SENTENCES["names"]).input_ids
    return model.to(run.device).eval(), torch.tensor([ids], device=run.device), tokenizer


@torch.no_grad()
def weights_of(model: Any, ids: Tensor) -> Tensor:
    """Return the attention weights of a library's model, (L, B, H, T, T)."""
    return torch.stack(model(ids, output_attentions=True).attentions)


def jobs(ids: Tensor) -> dict[str, Tensor]:
    """Return the pairs, (B, T, T), of queries in the repeated half and the keys of three jobs."""
    t = torch.arange(ids.shape[1], device=ids.device)
    query = t[:, None]
    late = query >= len(t) // 2
    pairs = {
        "previous token": (t == query - 1) & late,
        "induction": (t == query - len(t) // 2 + 1) & late,
        "first token": (t == 0) & late,
    }
    return {name: each.expand(len(ids), -1, -1) for name, each in pairs.items()}


def others_of_the_same_layers(chosen: list[tuple[int, int]], heads: int) -> list[tuple[int, int]]:
    """Sample, in each layer, as many unchosen heads as were chosen there, or all that are left."""
    others = []
    for layer in sorted({layer for layer, _ in chosen}):
        rest = [head for head in range(heads) if (layer, head) not in chosen]
        order = torch.randperm(len(rest))[: heads - len(rest)].tolist()
        others += [(layer, rest[i]) for i in order]
    return others
