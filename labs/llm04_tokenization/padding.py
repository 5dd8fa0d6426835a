"""What the measurements of padding and truncation use."""

from collections.abc import Callable
from itertools import chain
from typing import Any


def split_at(ids: list[int], end: int) -> list[list[int]]:
    """Return the lists between the end ids."""
    texts: list[list[int]] = [[]]
    for i in ids:
        if i == end:
            texts.append([])
        else:
            texts[-1].append(i)
    return texts[:-1]


def truncated_differently(
    tokenizer: Any,
    texts: list[str],
    truncate: Callable[[list[int], list[int], int], tuple[list[int], list[int]]],
) -> int:
    """Count the pairs of texts and rooms in which `truncate` differs from the library."""
    rows = [tokenizer(text).input_ids for text in texts]
    different = 0
    for a, first in zip(texts, rows, strict=True):
        for b, second in zip(texts, rows, strict=True):
            for room in range(1, len(first) + len(second) + 2):
                both = tokenizer(a, b, truncation=True, max_length=room).input_ids
                different += [*chain(*truncate(first, second, room))] != both
    return different
