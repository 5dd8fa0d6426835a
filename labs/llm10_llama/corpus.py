"""A text as token ids, in bounded memory; its tokenizer; and n-gram baselines for its loss."""

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
PLAYS = "Shakespeare's plays"
MERGES_FROM = 1_000_000  # bytes at the beginning of a text, from which merges are learned
COUNTED = 10_000_000  # tokens at the beginning of a text, in which n-grams are counted
CHUNK = 2**20  # bytes or tokens that are in memory at once


@dataclass(frozen=True)
class Text:
    """A text as token ids: bytes first, then one for each merge of a BPE, then END.

    Attributes:
        train: the ids to train on, (N,) uint8 or uint16, perhaps mapped from the disk.
        validation: the ids to validate on, (M,) of the same type.
        merges: the merges of LLM04's BPE; empty if ids are bytes.
        name: the name of the file, or PLAYS.
        sha256: the hash of the text's bytes.
        bytes_per_token: the mean over the validation text.
    """

    train: Any
    validation: Any
    merges: tuple[Pair, ...]
    name: str
    sha256: str
    bytes_per_token: float

    @property
    def vocabulary(self) -> int:
        """The number of ids; the last one is END's."""
        return 257 + len(self.merges)

    @cached_property
    def tokens(self) -> list[bytes]:
        """The bytes of each id."""
        return [*vocabulary(self.merges), END.encode()]

    def decode(self, ids: list[int]) -> str:
        """Return the text of some ids; incomplete UTF-8 becomes "�"."""
        return b"".join(self.tokens[i] for i in ids).decode(errors="replace")

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """Return windows of the training text that start there, (B,) -> (B, length + 1), int64."""
        places = starts[:, None] + torch.arange(length + 1)
        return torch.from_numpy(self.train[places].astype(np.int64))

    def anywhere(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Return where random windows of the training text start, (count,)."""
        return torch.randint(len(self.train) - length, (count,), generator=generator)

    def in_turn(self, count: int, length: int, generator: torch.Generator, spread: float) -> Tensor:
        """Return where windows start, (count,), roughly in the order of the text.

        The text is cut into windows, as often as needed. Windows are sorted by their place in the
        text, 0 to 1, plus a random number up to `spread`. So the last ones come from the end of the
        text, next to the validation text.
        """
        cuts: list[Tensor] = []
        while sum(len(cut) for cut in cuts) < count:
            offset = int(torch.randint(length, (), generator=generator))
            whole = (len(self.train) - offset - 1) // length
            cuts.append(torch.randperm(whole, generator=generator) * length + offset)
        starts = torch.cat(cuts)[:count]
        turns = starts / len(self.train) + spread * torch.rand(count, generator=generator)
        return starts[turns.argsort()]


def open_text(path: Path | None, merges: int, folder: Path) -> Text:
    """Open a file, or Shakespeare's plays: 90 % to train on, the last 10 % to validate on.

    Args:
        path: the file; None for the plays.
        merges: the number of merges of LLM04's BPE; with 0, ids are bytes.
        folder: where ids that aren't bytes are stored, in a file without a name.

    Raises:
        Card: if the file is missing, too short or not text.
    """
    if path is None:
        plays = assets.shakespeare().encode()
        data: Any = np.frombuffer(plays, dtype=np.uint8)
        name = PLAYS
        digest = hashlib.sha256(plays).hexdigest()
    else:
        file = text_file(path)
        data = file.data
        name = path.name
        digest = file.sha256
    cut = len(data) * 9 // 10
    start = data[:cut]
    rest = data[cut:]
    if not merges:
        return Text(start, rest, (), name, digest, 1.0)
    words = count_words(data[:MERGES_FROM].tobytes().decode(errors="ignore"))
    learned = train(words, merges)
    bpe = BPE(learned)
    ids = _encode(bpe, start, folder)
    validation = _encode(bpe, rest, folder)
    return Text(ids, validation, tuple(learned), name, digest, len(rest) / len(validation))


def prompt_of(text: Text) -> str:
    """Return a prompt from the text itself: a name in the plays, else the first word."""
    if text.name == PLAYS:
        return "ROMEO\n"
    word = re.search(r"\w{1,20}", text.decode(text.train[:1000].tolist()))
    return word[0] if word else "\n"


def _encode(bpe: BPE, data: Any, folder: Path) -> Any:
    """Encode bytes (N,) as ids (M,) uint16, mapped from a file that ends with the process."""
    pieces = (data[i : i + CHUNK].tobytes() for i in range(0, len(data), CHUNK))
    stream = encode_stream(bpe.encode, pieces)
    with tempfile.TemporaryFile(dir=folder) as file:  # /tmp may be memory
        while ids := list(islice(stream, CHUNK)):
            np.array(ids, dtype=np.uint16).tofile(file)
        file.flush()
        return np.memmap(file, dtype=np.uint16, mode="r")


def tokenizer_of(text: Text) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `transformers` with the same ids; it writes bytes as letters."""
    names = ["".join(LETTERS[byte] for byte in token) for token in vocabulary(text.merges)]
    ids = {name: i for i, name in enumerate([*names, END])}
    library = Tokenizer(models.BPE(ids, [(names[a], names[b]) for a, b in text.merges]))
    words = pre_tokenizers.Split(Regex(WORD.pattern), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    library.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END)
    return PreTrainedTokenizerFast(tokenizer_object=library, **special)


def witten_bell(train: Any, validation: Any, v: int, orders: int = 5) -> list[float]:
    """Return the loss of smoothed n-grams, n = 1 to `orders`, in nats per token.

    p(w | h) = (c(h, w) + t(h) · p(w | shorter h)) / (c(h) + t(h)), where the history h occurs c(h)
    times, followed by t(h) different tokens; the shortest history uses 1/v. The loss is over all
    validation ids but the first; the first histories reach back into the training text.
    Source: Witten & Bell 1991.

    Args:
        train: the ids to count in, (N,).
        validation: the ids to predict, (M,).
        v: the size of the vocabulary.
        orders: the largest n; smaller for a large vocabulary, if n ids don't fit into 64 bits.
    """
    orders = min(orders, int(62 / math.log2(v)))
    counted = np.asarray(train[:COUNTED])
    predicted = np.concatenate((np.asarray(train[-orders:]), validation))
    p = np.full(len(validation) - 1, 1 / v)
    losses: list[float] = []
    for n in range(1, orders + 1):
        grams, counts = np.unique(_ngrams(counted, n, v), return_counts=True)
        histories, first, kinds = np.unique(grams // v, return_index=True, return_counts=True)
        sums = np.add.reduceat(counts, first)
        wanted = _ngrams(predicted, n, v)[-len(p) :]
        c = _look_up(wanted // v, histories, sums)
        t = _look_up(wanted // v, histories, kinds)
        smoothed = (_look_up(wanted, grams, counts) + t * p) / np.maximum(c + t, 1)
        p = np.where(c > 0, smoothed, p)
        losses.append(float(-np.log(p).mean()))
    return losses


def _ngrams(ids: Any, n: int, v: int) -> Any:
    """Return every run of `n` ids as one number: (N − n + 1,) int64."""
    grams = np.zeros(len(ids) - n + 1, dtype=np.int64)
    for i in range(n):
        grams = grams * v + ids[i : len(grams) + i]
    return grams


def _look_up(wanted: Any, known: Any, values: Any) -> Any:
    """Return the `values` of the sorted `known` keys that are wanted; 0 for unknown keys."""
    position = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[position] == wanted, values[position], 0)
