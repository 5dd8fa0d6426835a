"""What the interactive views of LLM01 show: logits to sample from, and a text's probabilities."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import pack_array

import numpy as np
import torch
from torch import Tensor

LEVELS = 2**16  # of a logit: steps of 0.0005 or so, which change a probability by 0.03 %
ALTERNATIVES = 5
SURPRISES = 4  # of each text, in the table
TEMPERATURES = (0.5, 1.0, 2.0)
Viewed = tuple[dict[str, Any], str, list[str], list[list[Any]]]  # data, caption, columns, rows

CARROLL = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having "
    "nothing to do: once or twice she had peeped into the book her sister was reading, but it had "
    "no pictures or conversations in it, “and what is the use of a book,” thought Alice “without "
    "pictures or conversations?”"
)
TWICE = " ".join(["Seven green boats sailed quietly past the old lighthouse."] * 2)
TEXTS = {
    "Alice": CARROLL,
    "a sentence, twice": TWICE,
    "facts": "Water boils at 100 degrees Celsius. The Earth goes around the Sun once a year. "
    "The capital of France is Paris, and the capital of Mongolia is Ulaanbaatar.",
}


def levels(logits: Tensor) -> tuple[np.ndarray, float]:
    """Return how many levels each logit is below the largest, uint16, and the step of one level.

    Args:
        logits: (V,).
    """
    numbers = logits.double().cpu().numpy()
    below = numbers.max() - numbers
    step = float(below.max()) / (LEVELS - 1) or 1.0
    return np.rint(below / step).astype(np.uint16), step


def sampler(prompts: dict[str, Tensor], tokenizer: Any) -> Viewed:
    """Return what `run.view` needs for the sampler.

    Args:
        prompts: the logits of the next token, (V,), by prompt.
        tokenizer: for the tokens' texts.
    """
    shown: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, logits in prompts.items():
        packed, step = levels(logits)
        shown.append({"name": name, "step": step, "levels": pack_array(packed)})
        best = repr(tokenizer.decode(int(logits.argmax())))
        top = logits.softmax(-1).max().item()
        rows.append([name, best, top, *(spread(logits, t) for t in TEMPERATURES)])
    size = len(next(iter(prompts.values())))
    names = [tokenizer.decode(i) for i in range(size)]  # of all: a draw can reach any token
    caption = (
        f"The next token, from all {size:,} logits, rounded to {LEVELS:,} levels. The settings act "
        "in this order: temperature, top-k, top-p, min-p. The ten draws are uniform numbers from "
        "a fixed seed (▲), which stay when a slider moves: only the stretches of the line change."
    )
    columns = ["text so far", "likeliest token", "its probability"]
    return (
        {"names": names, "prompts": shown},
        caption,
        [*columns, *(f"eᴴ at T = {t:g}" for t in TEMPERATURES)],
        rows,
    )


def likeliest(logits: Tensor, tokenizer: Any, count: int) -> list[list[Any]]:
    """Return text, id, logit and probability of the likeliest next tokens; logits are (V,)."""
    p, best = logits.softmax(-1).topk(count)
    columns = (best.tolist(), logits[best].tolist(), p.tolist())
    return [
        [tokenizer.decode(i), i, logit, share] for i, logit, share in zip(*columns, strict=True)
    ]


def spread(logits: Tensor, temperature: float) -> float:
    """Return e^H, the number of equally likely tokens with the same entropy."""
    logp = (logits.double() / temperature).log_softmax(-1)
    return math.exp(-(logp.exp() * logp).sum().item())


def coloured(ids: list[int], logits: Tensor, tokenizer: Any) -> dict[str, Any]:
    """Return a text's tokens with the probability of each after those before it.

    Args:
        ids: the text, T tokens.
        logits: (T, V), as the model returns them for it.
        tokenizer: for the tokens' texts.

    Returns:
        Lists of T: texts, ids, probabilities (None for the first token), and the likeliest
        alternatives with theirs.
    """
    p = logits[:-1].softmax(-1)  # (T - 1, V): the last one is beyond the text
    own = p.gather(-1, torch.tensor(ids[1:], device=p.device)[:, None])[:, 0].tolist()
    best = p.topk(ALTERNATIVES)
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    alternatives = [
        [[tokenizer.decode(i), share] for i, share in zip(*row, strict=True)] for row in likeliest
    ]
    return {
        "texts": [tokenizer.decode(i) for i in ids],
        "ids": ids,
        "p": [None, *own],
        "alternatives": [[], *alternatives],
    }


def where_copying_starts(read: Viewed) -> str:
    """Say from which token on the text "a sentence, twice" is expected: p ≥ ½ to its end."""
    groups = read[0]["groups"]
    twice = next(group for group in groups if group["name"] == "a sentence, twice")
    texts, p = (twice["variants"][0][key] for key in ("texts", "p"))
    half = len(texts) // 2
    start = len(texts)
    while start > half and p[start - 1] >= 0.5:
        start -= 1
    if start == len(texts):
        return "the model doesn't copy: its last token has less than ½"
    return (
        f"each token from {texts[start]!r} on, number {start - half + 1} of {half}, has ½ or more"
    )


def reading(
    texts: dict[str, str], tokenizer: Any, logits_of: Callable[[list[int]], Tensor]
) -> Viewed:
    """Return what `run.view` needs for texts coloured by probability.

    The table has the least likely tokens of each text.

    Args:
        texts: by name.
        tokenizer: of the model.
        logits_of: returns the logits (T, V) of T ids.
    """
    groups: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, text in texts.items():
        ids = tokenizer(text).input_ids
        read = coloured(ids, logits_of(ids), tokenizer)
        groups.append({"name": name, "variants": [{"name": "the model's tokens", **read}]})
        order = sorted(range(1, len(ids)), key=lambda i: read["p"][i])
        for i in order[:SURPRISES]:
            likeliest, its = read["alternatives"][i][0]
            rows.append([name, repr(read["texts"][i]), read["p"][i], repr(likeliest), its])
    caption = (
        "Each token has the colour of its probability, given all tokens before it. One call of the "
        "model on a text gives all of them."
    )
    columns = ["text", "unlikely token", "its probability", "expected instead", "probability"]
    return {"labels": ["Text", "Tokens"], "groups": groups}, caption, columns, rows
