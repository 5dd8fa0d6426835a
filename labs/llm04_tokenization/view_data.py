"""The token view of LLM04: texts under several vocabularies, with the ids of their tokens."""

import inspect
import shlex
from collections.abc import Sequence
from typing import Any

from labs.kit import assets
from labs.llm04_tokenization.vocabularies import Vocabulary

LANGUAGES = ("English", "German", "Finnish", "Greek", "Hindi", "Thai", "Chinese")
CAPTION = (
    "Each colour change is a cut. Behind each vocabulary stands its number of tokens. Bytes that "
    "are no text by themselves are in hexadecimal. The paragraphs say the same in all languages."
)


def tokens(
    vocabularies: Sequence[Vocabulary], sentence: str
) -> tuple[dict[str, Any], str, list[str], list[list[Any]]]:
    """Return what `run.view` needs: data, caption, columns and rows.

    The table has the number of tokens of each text.

    Args:
        vocabularies: the vocabularies to compare.
        sentence: a text to show beside the others.
    """
    texts = {name: assets.parallel()[name] for name in LANGUAGES}
    texts["Python"] = inspect.getsource(shlex.quote)
    texts["a mixed sentence"] = sentence
    groups: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, text in texts.items():
        variants = [_cut(vocabulary, text) for vocabulary in vocabularies]
        groups.append({"name": name, "variants": variants})
        rows.append([name, *(len(one["ids"]) for one in variants)])
    data = {"labels": ["Text", "Vocabulary and its number of tokens"], "groups": groups}
    return data, CAPTION, ["tokens of", *(one.name for one in vocabularies)], rows


def _cut(vocabulary: Vocabulary, text: str) -> dict[str, Any]:
    """Return the tokens of a text, with their ids."""
    pieces = map(_readable, vocabulary.pieces(text))
    return {"name": vocabulary.name, "texts": [*pieces], "ids": vocabulary.encode(text)}


def _readable(piece: bytes) -> str:
    """Return the text of a token, or its bytes in hexadecimal where they are no text."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return f"⟨{piece.hex(' ').upper()}⟩"
