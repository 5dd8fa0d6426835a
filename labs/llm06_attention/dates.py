"""The task of the date reader in LLM06: read "march 3, 1999", write "1999-03-03"."""

import random
from collections.abc import Sequence
from datetime import date, timedelta

import torch
from torch import Tensor

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
CHARACTERS = " ,-0123456789abcdefghijklmnopqrstuvwxyz"
VOCABULARY = len(CHARACTERS) + 1  # 0 is padding
SOURCE = 18  # the longest: "september 28, 1999"
TARGET = 10  # "1999-09-28"
# No training date has a year of the second list, so a test with these years is new to a model.
TRAINING_YEARS = [year for year in range(1000, 3000) if year % 11]
TEST_YEARS = [year for year in range(1000, 3000) if year % 11 == 0]


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
