"""Measure how diverse a text is, and how probable; texts to measure."""

from typing import Any

from labs.kit import assets
from labs.llm01_inference.cuts import min_p, top_k
from labs.llm01_inference.lesson import repetition_penalty, sample, top_p
from labs.llm01_inference.search import Change

import torch
from torch import Tensor

SETTINGS: dict[str, Change] = {  # greedy: only the likeliest is left to draw
    "greedy": lambda _, logits: top_k(logits, 1),
    "greedy, penalty 1.3": lambda ids, logits: top_k(repetition_penalty(ids, logits, 1.3), 1),
    "T = 0.7": lambda _, logits: logits / 0.7,
    "top-p 0.9": lambda _, logits: top_p(logits, 0.9),
    "min-p 0.1": lambda _, logits: min_p(logits, 0.1),
    "T = 1": lambda _, logits: logits,
}
STARTS = (
    "In the morning the train",
    "The old man opened the door and",
    "We know that",
    "The first rule of the house is",
    "After the war, the city",
    "My sister and I",
    "It was a cold night when",
    "The best way to learn",
)


def distinct(ids: list[int], n: int = 2) -> float:
    """Return the share of distinct n-grams."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams)


@torch.no_grad()
def points_of(model: Any, texts: list[list[int]], start: int) -> list[tuple[float, float]]:
    """Return the share of distinct 2-grams, and the mean ln p, of each text from `start` on.

    The likelihood is at T = 1 and without cuts. All texts have the same length.
    """
    ids = torch.tensor(texts, device=model.device)  # (B, T)
    logp = model(ids).logits[:, start - 1 : -1].log_softmax(-1)  # (B, T - start, V)
    means = logp.gather(2, ids[:, start:, None])[..., 0].mean(-1)  # (B,)
    return [(distinct(text[start:]), p) for text, p in zip(texts, means.tolist(), strict=True)]


def human_texts(tokenizer: Any, count: int, length: int) -> list[list[int]]:
    """Return excerpts of Shakespeare, each `length` tokens."""
    plays = assets.shakespeare()
    starts = [len(plays) * (i + 1) // (count + 1) for i in range(count)]
    return [tokenizer(plays[at : at + 8 * length]).input_ids[:length] for at in starts]


class SampledBySettings:
    """Choose the tokens of each of SETTINGS in its part of a batch, and record their ln p.

    The recorded likelihood is at T = 1 and without cuts, whatever the setting.
    """

    def __init__(self, control: list[int]) -> None:
        """Set the ids that no setting may choose."""
        self.control = control
        self.logp: list[Tensor] = []  # (B,) for each step
        self._before = torch.zeros(())

    def change(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return logits (B, V) changed by the setting of each row."""
        self._before = logits
        control = torch.tensor(self.control, device=logits.device)
        words = logits.index_fill(1, control, -torch.inf)
        parts = zip(ids.chunk(len(SETTINGS)), words.chunk(len(SETTINGS)), strict=True)
        return torch.cat([f(*part) for f, part in zip(SETTINGS.values(), parts, strict=True)])

    def choose(self, logits: Tensor) -> Tensor:
        """Draw a token for each row, (B, V) -> (B,)."""
        ids = sample(logits)  # (B, 1)
        self.logp.append(self._before.log_softmax(-1).gather(1, ids)[:, 0])
        return ids[:, 0]

    def points(self, texts: list[list[int]]) -> dict[str, list[tuple[float, float]]]:
        """Return by setting the share of distinct 2-grams and the mean ln p of its texts."""
        means = torch.stack(self.logp).mean(0).tolist()
        points = [(distinct(text), p) for text, p in zip(texts, means, strict=True)]
        each = len(points) // len(SETTINGS)
        return {name: points[i * each : (i + 1) * each] for i, name in enumerate(SETTINGS)}
