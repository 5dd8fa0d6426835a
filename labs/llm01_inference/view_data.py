"""What the interactive views of LLM01 show: logits to sample from, and a text's probabilities."""

import math
from typing import Any

from labs.kit import pack_array

import numpy as np
import torch
from torch import Tensor

LEVELS = 2**16  # of a logit: steps of 0.0005 or so, which change a probability by 0.03 %
NAMED = 1500  # tokens of each prompt whose text is saved
MORE = 255  # a byte that says: 255 levels down, and more to come
ALTERNATIVES = 5


def drops(logits: Tensor) -> tuple[np.ndarray, float]:
    """Return sorted logits as bytes, and the step of one level.

    Each byte says by how many levels a logit is below the one before; sorted, most lie close. In a
    page this takes a third of the space of float32.

    Args:
        logits: (V,).
    """
    ordered = logits.double().cpu().sort(descending=True).values.numpy()
    step = float(ordered[0] - ordered[-1]) / LEVELS or 1.0
    levels = np.rint((ordered[0] - ordered) / step).astype(int)
    found: list[int] = []
    for drop in np.diff(levels, prepend=0).tolist():
        found += [MORE] * (drop // MORE) + [drop % MORE]
    return np.array(found, np.uint8), step


def sampler(prompts: dict[str, Tensor], tokenizer: Any) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return the data of the sampler, and a row for each prompt.

    Args:
        prompts: the logits of the next token, (V,), by prompt.
        tokenizer: for the tokens' texts.

    Returns:
        The data; and by prompt the likeliest token, its probability, and e^H at T = 0.5, 1 and 2.
    """
    shown: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, logits in prompts.items():
        packed, step = drops(logits)
        best = logits.topk(min(NAMED, len(logits))).indices.tolist()
        names = [tokenizer.decode(i) for i in best]
        shown.append({"name": name, "step": step, "drops": pack_array(packed), "names": names})
        top = logits.softmax(-1).max().item()
        rows.append([name, repr(names[0]), top, *(spread(logits, t) for t in (0.5, 1.0, 2.0))])
    return {"vocabulary": len(next(iter(prompts.values()))), "prompts": shown}, rows


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
        Lists of T: texts, ids, probabilities (the first token has none), and the likeliest
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
