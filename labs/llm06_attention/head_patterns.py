"""The attention viewer of LLM06: all heads on a few sentences, and what a head looks for."""

import random
import string
from collections.abc import Callable
from typing import Any

from labs.kit import Run, assets, pack_array

import numpy as np
import torch
from torch import Tensor

SENTENCES = {
    "names": "Yesterday Anna Brook met Tom Hall. Later Tom Hall wrote to Anna Brook.",
    "keys": "The keys to the old cabinet were on the table, so she took them, and he took those.",
}
CAPTION = (
    "Every head of the model on three texts. In the overview a column is a layer, and its rows are "
    "the heads. Layers and heads are counted from 1. A pattern's "
    "score is a head's mean weight on it, over the queries of all three texts that have it. "
    "The measurements of this experiment use random tokens, and only queries in their second half, "
    "so the best head there can be another one. Weights are saved in steps of 1/255."
)
COLUMNS = ["heads that look at", "best: layer", "head", "its score", "mean of all heads"]
REPEATED = 12  # random words, each twice
LONGEST = 32  # tokens: a larger map isn't readable
FIRST_QUERY = 2  # before it, the first token is also the previous one
Pairs = Callable[[list[int], list[str]], np.ndarray]  # ids, words -> (T, T): query looks at key


def _places(ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of query and key, (T, 1) and (1, T)."""
    places = np.arange(len(ids))
    return places[:, None], places[None]


def _previous(ids: list[int], _words: list[str]) -> np.ndarray:
    query, key = _places(ids)
    return key == query - 1


def _first(ids: list[int], _words: list[str]) -> np.ndarray:
    query, key = _places(ids)
    return (key == 0) & (query >= 0)


def _itself(ids: list[int], _words: list[str]) -> np.ndarray:
    query, key = _places(ids)
    return key == query


def _same(ids: list[int], _words: list[str]) -> np.ndarray:
    query, key = _places(ids)
    return np.equal.outer(ids, ids) & (key < query)


def _after_same(ids: list[int], words: list[str]) -> np.ndarray:
    """Return the pairs of an induction head: from a copy to the token after the earlier one."""
    copies = np.roll(_same(ids, words), 1, axis=1)
    copies[:, 0] = False
    return copies


def _punctuation(ids: list[int], words: list[str]) -> np.ndarray:
    query, key = _places(ids)
    signs = np.array([word.strip() in set(string.punctuation) for word in words])
    return signs[None] & (key < query)


# Olsson et al. 2022 (previous token, induction); Xiao et al. 2023 (first token);
# Clark et al. 2019 (itself, punctuation).
PATTERNS: dict[str, tuple[Pairs, str]] = {
    "the previous token": (_previous, "Mean weight on the token before the query."),
    "what followed last time": (
        _after_same,
        "Induction: mean weight on the token after an earlier copy of the query.",
    ),
    "the same token": (_same, "Mean weight on earlier copies of the query."),
    "the first token": (_first, "The usual sink: mean weight on the first token, whatever it is."),
    "itself": (_itself, "Mean weight on the query's own token."),
    "punctuation": (_punctuation, "Mean weight on earlier commas and full stops."),
}


def mass(weights: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the weight on `pairs`, summed over queries that have a pair, and their number.

    Args:
        weights: (L, H, T, T), query by key.
        pairs: (T, T), true where the pattern has a query look at a key.
    """
    queries = pairs.any(-1) & (np.arange(len(pairs)) >= FIRST_QUERY)
    return (weights * pairs)[:, :, queries].sum((-2, -1)), int(queries.sum())


def scores(weights: list[np.ndarray], pairs: list[np.ndarray]) -> np.ndarray:
    """Return each head's mean weight on a pattern over the queries of all sentences, (L, H)."""
    by_text = [mass(*text) for text in zip(weights, pairs, strict=True)]
    masses, queries = zip(*by_text, strict=True)
    return np.stack(masses).sum(0) / max(1, sum(queries))


def random_words(tokenizer: Any, count: int) -> list[int]:
    """Return ids of different short words, each a token with the space before it."""
    size = len(tokenizer)
    words = {i: tokenizer.decode(i) for i in random.sample(range(size), min(size, 60 * count))}
    whole = [i for i, word in words.items() if word[:1] == " " and word[1:].isalpha()]
    short = [i for i in whole if words[i].isascii() and 4 <= len(words[i]) <= 8]
    return (short or list(words))[:count]  # a vocabulary of bytes has no words


def repeated_tokens(run: Run, model: Any) -> Tensor:
    """Return random tokens, (B, 64): the second half repeats the first."""
    size = (run.pick(tiny=8, small=32, full=64), 32)
    return torch.randint(1000, model.config.vocab_size, size, device=run.device).repeat(1, 2)


def random_texts(run: Run, tokenizer: Any) -> Tensor:
    """Return the ids of random texts of 64 tokens from Shakespeare's plays, (B, 64)."""
    ids = torch.tensor(tokenizer(assets.shakespeare()[:50_000]).input_ids)
    starts = torch.randint(len(ids) - 64, (run.pick(tiny=16, small=32, full=64), 1))
    return ids[starts + torch.arange(64)].to(run.device)


def sentences(tokenizer: Any) -> dict[str, list[int]]:
    """Return the ids of the sentences by name; the last one is random words, twice."""
    ids = {name: tokenizer(text).input_ids[:LONGEST] for name, text in SENTENCES.items()}
    return ids | {"random words, twice": random_words(tokenizer, REPEATED) * 2}


@torch.no_grad()
def view(model: Any, tokenizer: Any) -> tuple[dict[str, Any], str, list[str], list[list[Any]]]:
    """Return what `run.view` needs: data, caption, columns and rows.

    The table has the best head for each pattern.
    """
    shown: list[dict[str, Any]] = []
    named = sentences(tokenizer)
    all_ids = list(named.values())
    all_words = [[tokenizer.decode(i) for i in ids] for ids in all_ids]
    all_weights: list[np.ndarray] = []
    for name, ids, words in zip(named, all_ids, all_words, strict=True):
        outputs = model(torch.tensor([ids], device=model.device), output_attentions=True)
        weights: Tensor = torch.cat(outputs.attentions).float().cpu()  # (L, H, T, T)
        all_weights.append(weights.numpy())
        rows, keys = np.tril_indices(len(ids))
        packed = pack_array(np.rint(255 * weights.numpy()[:, :, rows, keys]).astype(np.uint8))
        shown.append(
            {"name": name, "words": [word.strip() or "␣" for word in words], "weights": packed}
        )
    patterns: list[dict[str, Any]] = []
    best: list[list[Any]] = []
    for name, (pairs, means) in PATTERNS.items():
        all_pairs = [pairs(ids, words) for ids, words in zip(all_ids, all_words, strict=True)]
        by_head = scores(all_weights, all_pairs)  # (L, H)
        layer, head = np.unravel_index(by_head.argmax(), by_head.shape)
        patterns.append({"name": name, "means": means, "scores": by_head.ravel().tolist()})
        best_and_mean = (float(by_head.max()), float(by_head.mean()))
        best.append([name, int(layer) + 1, int(head) + 1, *best_and_mean])
    layers, heads = all_weights[0].shape[:2]
    data = {"layers": layers, "heads": heads, "sentences": shown, "patterns": patterns}
    return data, CAPTION, COLUMNS, best
