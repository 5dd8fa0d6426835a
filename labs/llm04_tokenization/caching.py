"""A cache of encoded stretches, with a bound on its memory."""

from collections.abc import Callable

REMEMBERED = 64  # characters: longer stretches are rare, and would fill the cache


class Cache(dict[str, tuple[int, ...]]):
    """The ids of stretches; it starts afresh when it is full, so its memory has a bound."""

    def __init__(self, compute: Callable[[str], tuple[int, ...]], entries: int):
        super().__init__()
        self.compute = compute
        self.entries = entries

    def __missing__(self, stretch: str) -> tuple[int, ...]:
        ids = self.compute(stretch)
        if len(stretch) <= REMEMBERED:
            if len(self) >= self.entries:
                self.clear()
            self[stretch] = ids
        return ids
