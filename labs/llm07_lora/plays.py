"""Shakespeare's plays as rows of glass's tokens: the new domain that glass adapts to."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from labs.kit import assets
from labs.llm07_lora.models import glass_tokenizer

import torch
from torch import Tensor

LENGTH = 64  # tokens of a row; about 165 characters


class Rows(NamedTuple):
    """Rows of tokens, (N, LENGTH). The plays of `valid` and `test` aren't in `training`."""

    training: Tensor
    valid: Tensor
    test: Tensor


@cache
def rows() -> Rows:
    """Return the rows: 64 each to choose by and to test."""
    text = assets.shakespeare()
    others = to_rows(text[-200_000:])
    return Rows(to_rows(text[:1_000_000]), others[10::20][:64], others[::20][:64])


@cache
def rows_in_capitals() -> Rows:
    """Return the plays in capitals, which glass's tokenizer spells letter by letter."""
    text = assets.shakespeare().upper()
    others = to_rows(text[-200_000:])
    return Rows(to_rows(text[:500_000]), others[10::20][:64], others[::20][:64])


def to_rows(text: str) -> Tensor:
    """Cut a text into rows of LENGTH tokens, (N, LENGTH)."""
    encoding = glass_tokenizer().backend_tokenizer.encode(text, add_special_tokens=False)
    ids = torch.tensor(encoding.ids)
    return ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)


def batches(rows: Tensor, size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `steps` random batches as tokens and labels: every token is to be predicted."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (size,), generator=generator)]
        yield batch, batch
