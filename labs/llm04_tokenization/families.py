"""Tokenizers of other families, trained by `tokenizers` on the same text."""

from collections import Counter
from functools import partial
from typing import Any, Protocol

from labs.llm04_tokenization.vocabularies import Pieces, byte_level

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers


class Bytewise(Protocol):
    """What is needed of byte-level BPE."""

    tokens: list[bytes]

    def pieces(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        ...


UNKNOWN = b"[UNK]"


def train(text: str, bpe: Bytewise, word: regex.Pattern[str]) -> dict[str, Pieces]:
    """Return tokenizers trained on `text`, each with as many ids as `bpe`; bytes have 256.

    Args:
        text: what they are trained on.
        bpe: byte-level BPE, which is trained already.
        word: the split pattern.
    """
    size = len(bpe.tokens)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = {w for w, _ in Counter(word.findall(text)).most_common(size - 1)}
    options = {"vocab_size": size, "special_tokens": ["[UNK]"], "show_progress": False}

    def library(model: Any, trainer: Any) -> Pieces:
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator([text], trainer(initial_alphabet=letters, **options))
        return byte_level(tokenizer)

    wordpiece = library(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer)
    unigram = partial(trainers.UnigramTrainer, unk_token="[UNK]")
    return {
        "bytes": lambda text: [bytes([byte]) for byte in text.encode()],
        "words and UNK": lambda text: [
            w.encode() if w in known else UNKNOWN for w in word.findall(text)
        ],
        "BPE": bpe.pieces,
        "WordPiece": lambda text: [piece.removeprefix(b"##") for piece in wordpiece(text)],
        "Unigram": library(models.Unigram(), unigram),
    }
