"""Time encoders and trainers, and count what they do."""

from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any

Pair = tuple[int, int]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


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
    encode: Callable[[bytes, dict[Pair, int]], list[int]], word: bytes, merge_ids: dict[Pair, int]
) -> float:
    """Return how often an encoder looks up a pair, for each byte of the word."""
    counted = Counted(merge_ids)
    encode(word, counted)
    return counted.looked_up / len(word)


def seconds_by_length(
    encoders: dict[str, Callable[[bytes, Any], Any]],
    word: bytes,
    lengths: Sequence[int],
    merge_ids: Any,
) -> dict[str, dict[int, float]]:
    """Return the CPU time of encoding beginnings of a word, by encoder and length.

    It is the shortest of calls that take 0.2 s together, or that of a single longer call. The time
    of other programs isn't counted, but they can slow a call, for they share caches.
    """
    taken: dict[str, dict[int, float]] = {name: {} for name in encoders}
    for name, encode in encoders.items():
        for n in lengths:
            times = []
            while sum(times) < 0.2:
                start = process_time()
                encode(word[:n], merge_ids)
                times.append(process_time() - start)
            taken[name][n] = min(times)
    return taken
