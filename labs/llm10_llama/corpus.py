"""Texts as numbers, for LLM10: anyone's file in bounded memory, its tokenizer, and its n-grams."""

import argparse
import hashlib
import math
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from labs.kit import assets
from labs.llm04_tokenization import (
    BPE,
    LETTERS,
    WORD,
    Pair,
    count_words,
    encode_stream,
    train,
    vocabulary,
)
from labs.llm10_llama.text_file import text_file

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
LEARNED_ON = 1_000_000  # bytes at the beginning of a text, from which merges are learned
COUNTED = 10_000_000  # tokens at its beginning, in which n-grams are counted
AT_ONCE = 2**20
PLAYS = "Shakespeare's plays"
MOST = 2**16 - 257  # merges, for ids of 16 bits


def merges(text: str) -> int:
    """How many merges, as an option of the command line."""
    if not text.isdecimal() or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {MOST:,}")
    return int(text)


@dataclass(frozen=True)
class Text:
    """Ids to train on and ids to validate, (N,) uint8 or uint16, perhaps mapped from the disk.

    Ids are bytes, then one for each merge of a BPE; the last one, `vocabulary` − 1, is END.
    """

    train: Any
    validation: Any
    merges: tuple[Pair, ...]  # of LLM04's BPE, none where ids are bytes
    name: str
    sha256: str
    bytes_per_token: float  # of the validation text

    @property
    def vocabulary(self) -> int:
        return 257 + len(self.merges)

    @cached_property
    def tokens(self) -> list[bytes]:
        return [*vocabulary(self.merges), END.encode()]

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.tokens[i] for i in ids).decode(errors="replace")

    def batch(self, size: int, length: int, generator: torch.Generator) -> Tensor:
        """(size, length + 1), int64: windows from anywhere in the training text."""
        starts = torch.randint(len(self.train) - length, (size, 1), generator=generator)
        return torch.from_numpy(self.train[starts + torch.arange(length + 1)].astype(np.int64))


def opened(path: Path | None, merges: int, folder: Path) -> Text:
    """The text in a file, or Shakespeare's plays: nine tenths to train on, then one to validate.

    Args:
        merges: of LLM04's BPE; 0: ids are bytes.
        folder: where ids are kept that aren't bytes, in a file without a name.

    Raises:
        Card: for a file that is no text or too short.
    """
    if path is None:
        data = np.frombuffer(assets.shakespeare().encode(), dtype=np.uint8)
        name, digest = PLAYS, hashlib.sha256(data).hexdigest()
    else:
        file = text_file(path)
        data, name, digest = file.data, path.name, file.sha256
    cut = len(data) * 9 // 10
    parts = data[:cut], data[cut:]
    if not merges:
        return Text(*parts, (), name, digest, 1.0)
    learned = train(count_words(data[:LEARNED_ON].tobytes().decode(errors="ignore")), merges)
    bpe = BPE(learned)
    ids = [_encoded(bpe, part, folder) for part in parts]
    return Text(*ids, tuple(learned), name, digest, len(parts[1]) / len(ids[1]))


def prompt_of(text: Text) -> str:
    """What to begin with, from the text itself: a name in the plays, else the first word."""
    if text.name == PLAYS:
        return "ROMEO\n"
    word = re.search(r"\w{1,20}", text.decode(text.train[:1000].tolist()))
    return word[0] if word else "\n"


def _encoded(bpe: BPE, data: Any, folder: Path) -> Any:
    """(bytes,) -> (tokens,) uint16, mapped from a file that goes with the process."""
    pieces = (data[i : i + AT_ONCE].tobytes() for i in range(0, len(data), AT_ONCE))
    stream = encode_stream(bpe.encode, pieces)
    with tempfile.TemporaryFile(dir=folder) as file:  # not in /tmp, which may be memory
        while ids := list(islice(stream, AT_ONCE)):
            np.array(ids, dtype=np.uint16).tofile(file)
        file.flush()
        return np.memmap(file, dtype=np.uint16, mode="r")


def tokenizer_of(text: Text) -> PreTrainedTokenizerFast:
    """The same ids in `tokenizers`, which keeps bytes as letters."""
    names = ["".join(LETTERS[byte] for byte in token) for token in vocabulary(text.merges)]
    ids = {name: i for i, name in enumerate([*names, END])}
    library = Tokenizer(models.BPE(ids, [(names[a], names[b]) for a, b in text.merges]))
    words = pre_tokenizers.Split(Regex(WORD.pattern), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    library.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END)
    return PreTrainedTokenizerFast(tokenizer_object=library, **special)


# What counting can do.


def witten_bell(train: Any, validation: Any, v: int, orders: int = 5) -> list[float]:
    """Nats per token of Witten & Bell's (1991) interpolated n-grams, n = 1 to `orders`.

    p(w | h) = (c(h, w) + t(h) · p(w | shorter h)) / (c(h) + t(h)), where the history h was seen
    c(h) times, followed by t(h) different tokens; at the bottom stands 1/v. Asked about all of the
    validation ids but the first; the earliest have the end of the training text before them.
    """
    orders = min(orders, int(62 / math.log2(v)))  # longer runs don't fit into 64 bits
    seen = np.asarray(train[:COUNTED])
    asked = np.concatenate((np.asarray(train[-orders:]), validation))
    p, found = np.full(len(validation) - 1, 1 / v), []
    for n in range(1, orders + 1):
        runs, counts = np.unique(_runs(seen, n, v), return_counts=True)
        histories, first, kinds = np.unique(runs // v, return_index=True, return_counts=True)
        sums = np.add.reduceat(counts, first)
        wanted = _runs(asked, n, v)[-len(p) :]
        c, t = (_look_up(wanted // v, histories, values) for values in (sums, kinds))
        new = (_look_up(wanted, runs, counts) + t * p) / np.maximum(c + t, 1)
        p = np.where(c > 0, new, p)
        found.append(float(-np.log(p).mean()))
    return found


def _runs(ids: Any, n: int, v: int) -> Any:
    """Each run of `n` ids as one number, (N − n + 1,) int64."""
    found = np.zeros(len(ids) - n + 1, dtype=np.int64)
    for i in range(n):
        found = found * v + ids[i : len(found) + i]
    return found


def _look_up(wanted: Any, known: Any, values: Any) -> Any:
    """`values` of those `known` keys (sorted) that are wanted; 0 for others."""
    where = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[where] == wanted, values[where], 0)
