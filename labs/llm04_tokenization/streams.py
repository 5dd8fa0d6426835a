"""Cut a text into chunks, and count what a stream holds back."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


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
