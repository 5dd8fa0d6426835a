"""Chunks of a stream and batches of texts: cut, count, find again."""

import random
from collections.abc import Iterable, Iterator


def cut_anywhere(data: bytes, most: int, generator: random.Random) -> list[bytes]:
    """Return chunks of 1 to `most` bytes."""
    chunks = []
    start = 0
    while start < len(data):
        end = start + generator.randint(1, most)
        chunks.append(data[start:end])
        start = end
    return chunks


def counted(chunks: Iterable[bytes], flow: dict[str, int]) -> Iterator[bytes]:
    """Yield the chunks and note how many bytes wait when the next one is asked for."""
    for chunk in chunks:
        flow["held"] = max(flow["held"], flow["read"] - flow["returned"])
        flow["read"] += len(chunk)
        yield chunk


def split_at(ids: list[int], end: int) -> list[list[int]]:
    """Return the lists between the end ids."""
    texts: list[list[int]] = [[]]
    for i in ids:
        if i == end:
            texts.append([])
        else:
            texts[-1].append(i)
    return texts[:-1]


def padding_share(lengths: list[int], rows: int = 32) -> float:
    """Return the share of padding in batches of `rows`, each as wide as its longest row."""
    batches = [lengths[i : i + rows] for i in range(0, len(lengths), rows)]
    places = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(lengths) / places
