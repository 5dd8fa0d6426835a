"""The task of the date reader in LLM06: read "march 3, 1999", write "1999-03-03"."""

import random
from collections.abc import Sequence
from datetime import date, timedelta

import torch
from torch import Tensor, nn

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
CHARACTERS = " ,-0123456789abcdefghijklmnopqrstuvwxyz"
VOCABULARY = len(CHARACTERS) + 1  # 0 is padding
SOURCE = 18  # the longest: "september 28, 1999"
TARGET = 10  # "1999-09-28"
# The years of the test are random, so that three digits of one say nothing about the fourth. No
# training date has such a year.
TEST_YEARS = sorted(random.Random(0).sample(range(1000, 3000), 200))
TRAINING_YEARS = sorted(set(range(1000, 3000)) - set(TEST_YEARS))


def ids(text: str) -> list[int]:
    """Return the number of each character, from 1."""
    return [CHARACTERS.index(character) + 1 for character in text]


def encode(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return padded sources, (B, SOURCE), and their lengths, (B,)."""
    lengths = torch.tensor([len(text) for text in texts])
    source = torch.zeros(len(texts), SOURCE, dtype=torch.long)
    for row, text in zip(source, texts, strict=True):
        row[: len(text)] = torch.tensor(ids(text))
    return source, lengths


def places_of_the_year(lengths: Tensor) -> Tensor:
    """Return where the four digits of the year stand in each source, (B,) -> (B, 4): at its end."""
    return lengths[:, None] - 4 + torch.arange(4, device=lengths.device)


def knock_outs(source_mask: Tensor, places: Tensor) -> dict[str, Tensor]:
    """Return masks (B, 1, TARGET, SOURCE) by what they hide from each query of the year's digits.

    They hide nothing, the query's own digit, or, as a control, the character before this digit.
    """
    rows = torch.arange(len(places), device=places.device)[:, None]
    digits = torch.arange(4, device=places.device)  # the year comes first in what is written
    masks = {name: source_mask.clone() for name in ("nothing", "digit", "neighbour")}
    masks["digit"][rows, 0, digits, places] = False  # row, head, query, key
    masks["neighbour"][rows, 0, digits, places - 1] = False
    return masks


class Sampler:
    """Random dates of some years in two spellings."""

    def __init__(self, seed: int, years: Sequence[int] = TRAINING_YEARS) -> None:
        self._random = random.Random(seed)
        self._years = years

    def _pair(self) -> tuple[str, str]:
        year = self._random.choice(self._years)
        day = date(year, 1, 1) + timedelta(days=self._random.randrange(365))
        month = MONTHS[day.month - 1]
        american = f"{month} {day.day}, {day.year}"
        british = f"{day.day} {month} {day.year}"
        return self._random.choice((american, british)), day.isoformat()

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return sources (B, SOURCE), their lengths (B,), and targets (B, TARGET)."""
        pairs = [self._pair() for _ in range(size)]
        source, lengths = encode([source for source, _ in pairs])
        return source, lengths, torch.tensor([ids(target) for _, target in pairs])


class Encoder(nn.Module):
    """Characters, positions, and one layer of self-attention: (B, SOURCE) -> (B, SOURCE, width)."""

    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(SOURCE, width)
        self.norm_source = nn.LayerNorm(width)
        self.attention = attention
        self.norm_encoded = nn.LayerNorm(width)

    def forward(self, source: Tensor, mask: Tensor) -> Tensor:
        """Return a vector for each character of the source."""
        x = self.characters(source) + self.positions.weight
        return self.norm_encoded(x + self.attention(self.norm_source(x), mask))


class Writer(nn.Module):
    """An MLP, and a score for each character: (B, TARGET, width) -> (B, TARGET, V)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.output = nn.Linear(width, VOCABULARY)

    def forward(self, y: Tensor) -> Tensor:
        """Return the logits of the characters to write."""
        return self.output(y + self.mlp(y))
