"""Tokenizers of other families, trained by `tokenizers` on the same text."""

import json
from collections import Counter
from functools import partial
from typing import Any, Protocol

from labs.llm04_tokenization.vocabularies import LETTERS, Pieces, byte_level

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers


class Bytewise(Protocol):
    """What is needed of byte-level BPE."""

    tokens: list[bytes]

    def pieces(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        ...


UNKNOWN = b"[UNK]"


def train(
    text: str, bpe: Bytewise, word: regex.Pattern[str]
) -> tuple[dict[str, Pieces], dict[bytes, float]]:
    """Return tokenizers trained on `text`, each with as many ids as `bpe`; bytes have 256.

    The second result has the log-probabilities of Unigram's tokens.

    Args:
        text: what they are trained on.
        bpe: byte-level BPE, which is trained already.
        word: the split pattern.
    """
    size = len(bpe.tokens)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = {w for w, _ in Counter(word.findall(text)).most_common(size - 1)}
    options = {"vocab_size": size, "special_tokens": ["[UNK]"], "show_progress": False}

    def library(model: Any, trainer: Any) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator([text], trainer(initial_alphabet=letters, **options))
        return tokenizer

    wordpiece = byte_level(library(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer))
    unigram = library(models.Unigram(), partial(trainers.UnigramTrainer, unk_token="[UNK]"))
    scores: list[tuple[str, float]] = json.loads(unigram.to_str())["model"]["vocab"]
    log_p = {bytes(map(LETTERS.index, token)): p for token, p in scores if token != "[UNK]"}
    tokenizers: dict[str, Pieces] = {
        "bytes": lambda text: [bytes([byte]) for byte in text.encode()],
        "words and UNK": lambda text: [
            w.encode() if w in known else UNKNOWN for w in word.findall(text)
        ],
        "BPE": bpe.pieces,
        "WordPiece": lambda text: [piece.removeprefix(b"##") for piece in wordpiece(text)],
        "Unigram": byte_level(unigram),
    }
    return tokenizers, log_p


def compare(
    tokenizers: dict[str, Pieces], plays: str, german: str
) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows: of both texts bytes per token, UNKs, and whether it comes back."""
    rows: list[list[Any]] = []
    for name, pieces in tokenizers.items():
        row: list[Any] = [name]
        for text in (plays, german):
            tokens = pieces(text)
            unknown = 100 * tokens.count(UNKNOWN) / len(tokens)
            back = "yes" if b"".join(tokens) == text.encode() else "no"
            row += [len(text.encode()) / len(tokens), unknown, back]
        rows.append(row)
    columns = ["plays: bytes/token", "UNK (%)", "comes back", "German: bytes/token"]
    return ["tokenizer", *columns, "UNK (%)", "comes back"], rows
