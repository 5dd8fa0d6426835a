"""AI21's J2: a Unigram file of SentencePiece, and AI21's rules for lines, spaces and numbers.

The file's config.json names the rules: `newline_piece`, `space_mode` "left", `number_mode`
"right_keep". Version 1.1.0 of ai21-tokenizer has the file, but no longer the rules. For the 200
documents in that project's tests this module returns the 29,000 ids that are written there.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

NEWLINE = "<|newline|>"


class J2:
    """Cut a text as AI21 does."""

    def __init__(self, path: Path):
        from sentencepiece import SentencePieceProcessor

        model: Any = SentencePieceProcessor(model_file=str(path))
        self.model = model
        self.size = len(model)
        self.tokens: list[str] = [model.id_to_piece(i) for i in range(len(model))]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.spaces = [n for n in range(32, 0, -1) if "▁" * n in self.ids]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. A space is written before each line that isn't empty."""
        ids: list[int] = []
        for i, line in enumerate(text.split("\n")):
            if i:
                ids.append(self.ids[NEWLINE])
            if line:
                ids += self._line(" " + line.replace("\t", " "))
        return [*self._with_grouped_digits(ids)]

    def pieces(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        return [self._bytes(i) for i in self.encode(text)]

    def _line(self, line: str) -> Iterator[int]:
        # Of several spaces the last belongs to the next word; the others are tokens of spaces.
        for part in re.split("( +(?= ))", line):
            if part.strip(" "):
                yield from self.model.encode(part)
                continue
            left = len(part)
            while left:
                size = next(n for n in self.spaces if n <= left)
                yield self.ids["▁" * size]
                left -= size

    def _with_grouped_digits(self, ids: Iterable[int]) -> Iterator[int]:
        for is_number, run in groupby(ids, key=lambda i: self.tokens[i].strip("0123456789") == ""):
            if not is_number:
                yield from run
                continue
            number = "".join(self.tokens[i] for i in run)
            if number in self.ids:
                yield self.ids[number]
                continue
            start = len(number) % 3  # groups of three from the right
            groups = [number[:start]] if start else []
            groups += [number[i : i + 3] for i in range(start, len(number), 3)]
            yield from (self.ids[group] for group in groups)

    def _bytes(self, i: int) -> bytes:
        token = self.tokens[i]
        if token == NEWLINE:
            return b"\n"
        if self.model.is_byte(i):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()
