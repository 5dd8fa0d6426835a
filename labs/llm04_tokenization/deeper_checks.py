"""Check the exercises of LLM04+.

References: results written out here, counts of all pairs before and after a merge, and Python's
codecs for streams of bytes.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from labs.kit import Mistake
from labs.llm04_tokenization.comparing import Function, call, type_of


def merge_word(module: Any) -> None:
    """Compare with words and pairs written out here, then with counts of 200 random words."""
    implementation = module.merge_word
    alone = (["xa", "by"], ["xN", "Ny"])
    known = {
        "the word is unchanged: join what `split` returned with the new token": ("xaby", *alone),
        "the pairs with the new token are missing: it has two neighbours": ("xNy", alone[0], []),
        "the lost pairs are missing: the neighbours of both tokens lose one": ("xNy", [], alone[1]),
        "lost and gained pairs are swapped": ("xNy", alone[1], alone[0]),
        "the pair to the right is missing: both sides change": ("xNy", ["xa"], ["xN"]),
        "the pair to the left is missing: both sides change": ("xNy", ["by"], ["Ny"]),
    }
    _check_merge(implementation, "xaby", "ab", "xNy", alone, known)
    twice = (["xa", "ba", "by"], ["xN", "NN", "Ny"])
    known = {
        "b a between the two places is one pair: it was counted at both": (
            ("xNNy", ["xa", "ba", "ba", "by"], ["xN", "NN", "NN", "Ny"])
        ),
        "the left neighbour of the second place is merged, too: the new pair is N N, not b N": (
            ("xNNy", twice[0], ["xN", "bN", "Ny"])
        ),
        "only the first place was merged": ("xNaby", ["xa", "ba"], ["xN", "Na"]),
        "N N is missing: two places side by side make a pair of new tokens": (
            ("xNNy", twice[0], ["xN", "Ny"])
        ),
        "b a is missing: between two places side by side a pair is lost": (
            ("xNNy", ["xa", "by"], twice[1])
        ),
    }
    _check_merge(implementation, "xababy", "ab", "xNNy", twice, known)
    known = {"merge from left to right: of a a a the first two": ("aN", [], ["aN"])}
    _check_merge(implementation, "aaa", "aa", "Na", ([], ["Na"]), known)
    _check_merge(implementation, "ab", "ab", "N", ([], []), {})
    _check_merge(implementation, "xy", "ab", "xy", ([], []), {})
    rng = random.Random(0)
    for _ in range(200):
        word = "".join(rng.choices("abc", k=rng.randint(0, 9)))
        pair = rng.choice(["ab", "aa", "bc"])
        merged = word.replace(pair, "N")
        before, after = (Counter(a + b for a, b in pairwise(text)) for text in (word, merged))
        changed = ([*(before - after).elements()], [*(after - before).elements()])
        _check_merge(implementation, word, pair, merged, changed, {})


def _check_merge(
    implementation: Function,
    word: str,
    pair: str,
    merged: str,
    changed: tuple[list[str], list[str]],
    known: dict[str, tuple[str, list[str], list[str]]],
) -> None:
    """Compare a result for the new token N; the order of pairs doesn't matter."""
    got = call(implementation, word, pair, "N")
    if not (isinstance(got, tuple) and [type(part) for part in got] == [str, list, list]):
        raise Mistake(
            f"expected (word, lost pairs, gained pairs), a text and two lists; got {got!r}"
        )
    for two in (*got[1], *got[2]):
        if not (isinstance(two, str) and len(two) == 2):
            raise Mistake(f"a pair is a string of two characters, got {two!r}")

    def counted(parts: tuple[str, list[str], list[str]]) -> tuple[str, Counter[str], Counter[str]]:
        lost = Counter(parts[1])
        del lost[pair]  # its count is dropped anyway
        return parts[0], lost, Counter(parts[2])

    if counted(got) == counted((merged, *changed)):
        return
    for message, wrong in known.items():
        if counted(got) == counted(wrong):
            raise Mistake(message)
    raise Mistake(
        f"{word} with the pair {pair}: expected {merged}, lost {changed[0]} (with or without "
        f"{pair}), gained {changed[1]}; got {got!r}"
    )


def _toy(data: bytes) -> list[int]:
    """Return one id for each stretch, its length and checksum, which shows where it begins."""
    import regex

    if not isinstance(data, bytes):
        raise Mistake(f"`encode` takes bytes, but it got {type_of(data)}")
    text = data.decode("utf-8", "surrogateescape")
    encoded = [
        stretch.encode("utf-8", "surrogateescape") for stretch in regex.findall(r"\s*\S+|\s+", text)
    ]
    return [1000 * len(data) + sum(data) for data in encoded]


def encode_stream(module: Any) -> None:
    """Compare with the ids of the joined text, for chunks that cut stretches and characters."""
    implementation = module.encode_stream
    text = "We'll see: naïve 漢字\n\n  and  more  \n"
    data = text.encode()
    want = _toy(data)
    try:
        got = implementation(_toy, [data])
    except Mistake:
        raise
    except Exception as error:
        raise Mistake(f"{type(error).__name__} for a single chunk: {error}") from error
    if not isinstance(got, Iterator):
        raise Mistake(f"expected an iterator, got {type_of(got)}: yield each id as it is known")
    _check_stream(implementation, [data], want, "a single chunk")
    _check_stream(implementation, [], [], "no chunks")
    plain = b"We'll see,  and\n more"
    chunks = [plain[:4], plain[4:12], plain[12:]]
    _check_stream(implementation, chunks, _toy(plain), "ASCII")
    for size in (1, 2, 3, 7):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        _check_stream(implementation, chunks, want, f"chunk size {size}")
    broken = b"ab\xff cd \xe6\xbc"
    want = _toy(broken)
    name = "bytes that aren't UTF-8, some of them at the end"
    _check_stream(implementation, [broken[:3], broken[3:]], want, name)
    _comes_early(implementation)


def _check_stream(
    implementation: Function, chunks: list[bytes], want: list[int], name: str
) -> None:
    encoded: list[bytes] = []

    def encode(data: bytes) -> list[int]:
        ids = _toy(data)
        encoded.append(data)
        return ids

    try:
        got = list(implementation(encode, iter(chunks)))
    except Mistake:
        raise
    except UnicodeError as error:
        raise Mistake(
            f"{name}: {type(error).__name__}: a chunk may end inside a character, and bytes may "
            "not be UTF-8: use an incremental decoder with errors='surrogateescape'"
        ) from error
    except Exception as error:
        raise Mistake(f"{name}: {type(error).__name__}: {error}") from error
    if got == want:
        return
    text = b"".join(encoded)
    joined = b"".join(chunks)
    if "�".encode() in text and "�".encode() not in joined:
        raise Mistake(f"{name}: a character was cut in two: decode incrementally, not each chunk")
    if len(text) > len(joined):
        raise Mistake(
            f"{name}: text was encoded twice: once a stretch is encoded, don't hold it any longer"
        )
    if joined.startswith(text) and text != joined:
        raise Mistake(f"{name}: text held back at the end never came: encode the rest, too")
    if text != joined:
        raise Mistake(f"{name}: the encoded text isn't the text of the chunks: what is lost?")
    raise Mistake(f"{name}: a stretch was cut in two: hold back the last one, because it may go on")


def _comes_early(implementation: Function) -> None:
    """Check that ids come soon after their chunks, from the first to the last."""
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"word "

    stream = implementation(_toy, chunks())
    for came in range(900):  # an id for each chunk
        try:
            if next(stream, None) is None:
                raise Mistake(f"{read} chunks of `word ` gave {came} ids: each is a stretch")
        except Mistake:
            raise
        except Exception as error:
            raise Mistake(f"chunks of `word `: {type(error).__name__}: {error}") from error
        if read > came + 3:
            raise Mistake(
                f"{read} chunks of `word ` were read before id {came + 1} came: a stream may be "
                "larger than memory, so encode text as soon as it can't change"
            )
