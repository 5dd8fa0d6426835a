"""Chunks of a stream, batches of texts, lists of ids, encoders: cut, count, compare, time."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from time import perf_counter, process_time
from typing import Any

Pair = tuple[int, int]


def differing(a: list[Any], b: list[Any]) -> int:
    """Count the places in which two lists differ; a missing place counts."""
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


def cut_anywhere(data: bytes, most: int, generator: random.Random) -> list[bytes]:
    """Return chunks of 1 to `most` bytes."""
    chunks = []
    start = 0
    while start < len(data):
        end = start + generator.randint(1, most)
        chunks.append(data[start:end])
        start = end
    return chunks


@dataclass
class Flow:
    """How much of a stream waits to be encoded."""

    read: int = 0
    returned: int = 0
    held: int = 0

    def count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks and note how many bytes wait when the next one is asked for."""
        for chunk in chunks:
            self.held = max(self.held, self.read - self.returned)
            self.read += len(chunk)
            yield chunk

    def collect(self, ids: Iterable[int], tokens: list[bytes]) -> list[int]:
        """Return the ids, and note their bytes as they come."""
        collected: list[int] = []
        for i in ids:
            collected.append(i)
            self.returned += len(tokens[i])
        return collected


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


def merges_used(ids: Sequence[int], merges: Sequence[tuple[int, int]]) -> int:
    """Count the different merges that made these ids: the rounds of the simple encoder."""
    used: set[int] = set()
    open_ = [*ids]
    while open_:
        i = open_.pop()
        if i >= 256 and i not in used:
            used.add(i)
            open_ += merges[i - 256]
    return len(used)


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


class Counted(dict[Pair, int]):
    """The merges, counting how often a pair is looked up."""

    looked_up = 0

    def get(self, pair: Pair, default: Any = None) -> Any:
        """Return the id that the merge of a pair makes, and count."""
        self.looked_up += 1
        return super().get(pair, default)

    def __contains__(self, pair: object) -> bool:
        self.looked_up += 1
        return super().__contains__(pair)


def look_ups(
    encode: Callable[[bytes, dict[Pair, int]], list[int]], word: bytes, made: dict[Pair, int]
) -> float:
    """Return how often an encoder looks up a pair, for each byte of the word."""
    counted = Counted(made)
    encode(word, counted)
    return counted.looked_up / len(word)


def seconds_by_length(
    encoders: dict[str, Callable[[bytes, Any], Any]],
    word: bytes,
    lengths: Sequence[int],
    made: Any,
) -> dict[str, dict[int, float]]:
    """Return the CPU time of encoding beginnings of a word, by encoder and length.

    It is a mean over calls that take 0.2 s together; other programs don't count.
    """
    taken: dict[str, dict[int, float]] = {name: {} for name in encoders}
    for name, encode in encoders.items():
        for n in lengths:
            calls = 0
            start = process_time()
            while (spent := process_time() - start) < 0.2:
                encode(word[:n], made)
                calls += 1
            taken[name][n] = spent / calls
    return taken
