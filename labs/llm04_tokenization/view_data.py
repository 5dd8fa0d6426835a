"""Data of LLM04's views: texts under real vocabularies, and small vocabularies to type into."""

import inspect
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from labs.kit import assets, pack_array
from labs.llm04_tokenization import vocabularies
from labs.llm04_tokenization.vocabularies import Vocabulary, visible

import numpy as np
import regex

LANGUAGES = ("English", "German", "Finnish", "Greek", "Hindi", "Thai", "Chinese")
CAPTION = (
    "Each colour change is a cut. Behind each vocabulary stands its number of tokens. Bytes that "
    "are no text by themselves are in hexadecimal. The paragraphs say the same in all languages."
)
SMALL = 1_200  # merges of the vocabularies that one can type into
LEARNED = 120_000  # characters that they are learned from
EXAMPLE = "The unhappiest kings went to the market."
MERGES_CAPTION = (
    "Type a text and step through its merges. Each vocabulary has 1,200 merges, learned from "
    "120,000 characters or fewer. In the table a dot is a space and ↵ a line end. Letters of other "
    "scripts are two bytes or three, so merges make them."
)
View = tuple[dict[str, Any], str, list[str], list[list[Any]]]  # data, caption, columns, rows


def tokens(compared: Sequence[Vocabulary], sentence: str) -> View:
    """Return the view of texts under real vocabularies; its table has the numbers of tokens.

    Args:
        compared: the vocabularies.
        sentence: a text to show beside the others.
    """
    paragraphs = vocabularies.paragraphs()
    texts = {name: " ".join(paragraphs[name][:3]) for name in LANGUAGES}
    texts["Python"] = inspect.getsource(shlex.quote)
    texts["a mixed sentence"] = sentence
    groups: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, text in texts.items():
        variants = [_cut(vocabulary, text) for vocabulary in compared]
        groups.append({"name": name, "variants": variants})
        rows.append([name, *(len(variant["ids"]) for variant in variants)])
    data = {"labels": ["Text", "Vocabulary and its number of tokens"], "groups": groups}
    return data, CAPTION, ["tokens of", *(vocabulary.name for vocabulary in compared)], rows


def _cut(vocabulary: Vocabulary, text: str) -> dict[str, Any]:
    """Return the tokens of a text, with their ids."""
    pieces = map(readable, vocabulary.pieces(text))
    return {"name": vocabulary.name, "texts": [*pieces], "ids": vocabulary.encode(text)}


def readable(piece: bytes) -> str:
    """Return the text of a token, or its bytes in hexadecimal where they are no text."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return f"⟨{piece.hex(' ').upper()}⟩"


def merges(word: regex.Pattern[str]) -> View:
    """Return the view of small vocabularies; its table has the first merges of each."""
    paragraphs = vocabularies.paragraphs()
    texts = {
        "Shakespeare": assets.shakespeare()[:LEARNED],
        "Python code": _python_code(),
        "twelve languages": "\n".join("\n".join(texts) for texts in paragraphs.values()),
    }
    learned: list[dict[str, Any]] = []
    columns: list[list[str]] = []
    for name, text in texts.items():
        words = Counter(match.encode() for match in word.findall(text))
        pairs = vocabularies.train_by_tokenizers(words, 256 + SMALL)
        learned.append({"name": name, "merges": pack_array(np.array(pairs, np.uint16))})
        columns.append(_first_tokens(pairs, 12))
    rows: list[list[Any]] = [[i + 1, *row] for i, row in enumerate(zip(*columns, strict=True))]
    data = {"text": EXAMPLE, "vocabularies": learned}
    return data, MERGES_CAPTION, ["merge", *texts], rows


def _python_code() -> str:
    """Return Python sources of the standard library, LEARNED characters."""
    import argparse
    import ast
    import heapq

    return "".join(map(inspect.getsource, (argparse, ast, heapq)))[:LEARNED]


def _first_tokens(pairs: list[tuple[int, int]], count: int) -> list[str]:
    made = [bytes([byte]) for byte in range(256)]
    for a, b in pairs:
        made.append(made[a] + made[b])
    shown = [readable(token) for token in made[256 : 256 + count]]
    return [text if text.startswith("⟨") else visible(text) for text in shown]  # ⟨E0 A4⟩
