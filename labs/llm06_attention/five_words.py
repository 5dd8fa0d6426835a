"""The worked example of LLM06: words with features, matrices chosen by hand, and its view."""

import math
from typing import Any

import torch
from torch import Tensor

# article, noun, verb, possessive, animal
FEATURES = {
    "the": (1, 0, 0, 0, 0),
    "a": (1, 0, 0, 0, 0),
    "dog": (0, 1, 0, 0, 1),
    "cat": (0, 1, 0, 0, 1),
    "tail": (0, 1, 0, 0, 0),
    "saw": (0, 0, 1, 0, 0),
    "chased": (0, 0, 1, 0, 0),
    "its": (0, 0, 0, 1, 0),
}
# A noun looks for an article. A verb and a possessive look for nouns.
W_Q = torch.tensor([[0.0, 0.0], [0.0, 3.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0]])  # (5, 2)
# The first coordinate means "noun", the second "article".
W_K = torch.tensor([[0.0, 2.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # (5, 2)
# The first coordinate means "animal", the second "action".
W_V = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])  # (5, 2)
WORDS = ("the", "dog", "saw", "its", "tail")
CAPTION = (
    "The worked example, computed in the page. Choose other words, select a query, and switch the "
    "causal mask on and off."
)


def features(sentence: str) -> Tensor:
    """Return the features of its words, (T, 5)."""
    return torch.tensor([FEATURES[word] for word in sentence.split()], dtype=torch.float32)


def view() -> tuple[dict[str, Any], str, list[str], list[list[Any]]]:
    """Return what `run.view` needs: data, caption, columns and rows of the table of weights."""
    vectors = torch.tensor(list(FEATURES.values()), dtype=torch.float32)  # (words, 5)
    words = [
        {"word": word, "q": q, "k": k, "v": v}
        for word, q, k, v in zip(
            FEATURES,
            (vectors @ W_Q).tolist(),
            (vectors @ W_K).tolist(),
            (vectors @ W_V).tolist(),
            strict=True,
        )
    ]
    x = features(" ".join(WORDS))
    weights = ((x @ W_Q) @ (x @ W_K).T / math.sqrt(2)).softmax(-1)  # (T, T)
    rows = [[word, *row] for word, row in zip(WORDS, weights.tolist(), strict=True)]
    data = {"words": words, "sentence": [list(FEATURES).index(word) for word in WORDS]}
    return data, CAPTION, ["query", *(f"weight on {word}" for word in WORDS)], rows
