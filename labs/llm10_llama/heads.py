"""What LLM10's trained model has learned: its letters' rows, and what its heads look at."""

import copy
from typing import Any

from labs.kit import Run
from labs.llm06_attention import view as attention_view
from labs.llm10_llama.conversion import to_transformers
from labs.llm10_llama.corpus import tokenizer_of
from labs.llm10_llama.ladder import corpus, judged_on
from labs.llm10_llama.parts import mix

import numpy as np
import torch
from torch import Tensor

VOWELS = b"aeiou"
CONSONANTS = b"bcdfghjklmnpqrstvwxyz"
FREQUENT = b"tnshrdlm"  # the most frequent consonants in the plays
SHOWN = VOWELS + FREQUENT + (VOWELS + FREQUENT).upper()
KINDS = (
    "cosine, vowel and vowel − vowel and frequent consonant",
    "cosine, capitals among themselves − capitals and small letters",
)
# 3 standard deviations. A cosine of random rows of width 64 has 1/8, so these are
# 3/8 · √(1/10 + 1/40), for 10 pairs and 40, and 3/8 · √(1/325 + 1/676).
IF_RANDOM: dict[str, float] = dict(zip(KINDS, (0.133, 0.026), strict=True))
CAPTION = (
    "Every head of the trained model on three texts, by letters. Layers and heads are counted "
    "from 1. A pattern's score is a head's mean weight on it, over the queries of all three texts "
    "that have it. Weights are saved in steps of 1/255."
)


def likeness(rows: Tensor) -> dict[str, float]:
    """Return by kind how much more alike letters of a kind are, from normed rows (V, d)."""
    capitals = (VOWELS + CONSONANTS).upper()

    def cosine(a: bytes, b: bytes) -> float:
        pairs = [float(rows[x] @ rows[y]) for x in a for y in b if x != y]
        return sum(pairs) / len(pairs)

    vowels = cosine(VOWELS, VOWELS) - cosine(VOWELS, FREQUENT)
    big = cosine(capitals, capitals) - cosine(capitals, VOWELS + CONSONANTS)
    return dict(zip(KINDS, (vowels, big), strict=True))


def cosines(rows: Tensor) -> Tensor:
    """Return the cosine of each pair of SHOWN, (letters, letters), from normed rows (V, d)."""
    points = rows[list(SHOWN)]  # (letters, d)
    return points @ points.T


def windows(run: Run, length: int, count: int = 64) -> Tensor:
    """Return windows of validation text, (count, length)."""
    ids = judged_on(run)[: count * length]
    whole = len(ids) // length * length
    tokens = torch.from_numpy(np.asarray(ids[:whole]).astype(np.int64))
    return tokens.view(-1, length).to(run.device)


def weights_of(model: Any, ids: Tensor) -> Tensor:
    """Return attention weights, (L, B, H, T, T): the output if the values are a unit matrix."""
    weights: list[Tensor] = []

    def see(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        ones = torch.eye(k.shape[2], device=k.device).expand(*k.shape[:3], -1)
        weights.append(mix(q.float(), k.float(), ones, mask))
        return mix(q, k, v, mask)

    attentions = [block.self_attn for block in model.layers]
    for attention in attentions:
        attention.mix = see
    model(ids)
    for attention in attentions:
        attention.mix = mix
    return torch.stack(weights)


def weights_before(model: Any, ids: Tensor) -> Tensor:
    """Return each query's weight on the token before, (L, B, H, T − 1)."""
    return weights_of(model, ids).diagonal(-1, -2, -1).clone()  # a view would keep all weights


def split_by_character(weights: Tensor, before: Tensor) -> tuple[float, float]:
    """Return the mean weight (B, T − 1) where the token before is a space, and a letter."""
    letters = torch.tensor(list(VOWELS + CONSONANTS + (VOWELS + CONSONANTS).upper()))
    is_letter = torch.isin(before, letters.to(before.device))
    return weights[before == 32].mean().item(), weights[is_letter].mean().item()


def show_all(run: Run, model: Any) -> None:
    """Add a view of every head on three texts, if tokens are bytes."""
    text = corpus(run)
    if text.merges:
        return
    theirs = to_transformers(copy.deepcopy(model).cpu())
    theirs.set_attn_implementation("eager")
    data, _, columns, rows = attention_view(theirs, tokenizer_of(text))
    run.view("attention", "heads", data, CAPTION, columns, rows)
