"""Check the exercises of LLM04+.

References: results written out here, counts of all pairs before and after a merge, Python's codecs
for streams of bytes, and all cuts of short words.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from labs.kit import Mistake
from labs.llm04_tokenization.comparing import Function, call, expect, type_of
from labs.llm04_tokenization.patterns import Split


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


AT_BARS = Split(r"[^|]*\||[^|]+", r"[^|]*\||[^|]+")


def _toy(data: bytes, stretches: str = r"\s*\S+|\s+") -> list[int]:
    """Return one id for each stretch, its length and checksum, which shows where it begins."""
    import regex

    if not isinstance(data, bytes):
        raise Mistake(f"`encode` takes bytes, but it got {type_of(data)}")
    text = data.decode("utf-8", "surrogateescape")
    encoded = [
        stretch.encode("utf-8", "surrogateescape") for stretch in regex.findall(stretches, text)
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
    _takes_a_split(implementation)


def _takes_a_split(implementation: Function) -> None:
    """Check that the stretches are those of the argument."""
    data = b"ab  cd|e f|| g\nh"

    def encode(part: bytes) -> list[int]:
        return _toy(part, AT_BARS.stretches)

    chunks = [data[i : i + 3] for i in range(0, len(data), 3)]
    try:
        got = list(implementation(encode, chunks, AT_BARS))
    except Mistake:
        raise
    except Exception as error:
        raise Mistake(f"with another split pattern: {type(error).__name__}: {error}") from error
    if got != encode(data):
        raise Mistake("the split pattern is an argument: cut by `split.stretch`")


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
        if read > came + 1:
            raise Mistake(
                f"{read} chunks of `word ` were read before id {came + 1} came: a stream may be "
                "larger than memory, so encode text as soon as it can't change"
            )


def truncate_pair(module: Any) -> None:
    """Compare with pairs that are written out here."""
    implementation = module.truncate_pair
    long = [1, 2, 3, 4, 5, 6]
    short = [7, 8]
    known = {
        "each text got half of the room: if the shorter one fits, cut only the longer one": (
            ([1, 2, 3], [7, 8])
        ),
        "the second text was cut, though the first is longer": (long, []),
        "cut the end of a text, not its beginning": ([3, 4, 5, 6], short),
        "the longer text was cut too much: fill the room": ([1, 2, 3], short),
    }
    got = call(implementation, long, short, 6)
    expect(got, ([1, 2, 3, 4], short), "the longer text gives way until both fit", known)
    known = {
        "each text got half of the room: if the shorter one fits, cut only the longer one": (
            (short, [1, 2, 3])
        ),
        "the first text was cut, though the second is longer": ([], long),
        "the longer text may be the second: compare the lengths": ([7, 8], long),
    }
    got = call(implementation, short, long, 6)
    expect(got, (short, [1, 2, 3, 4]), "the longer text may be the second", known)
    known = {
        "both must be cut: then each gets half of the room, whatever its length": ([1, 2, 3], [1])
    }
    got = call(implementation, long, long[:4], 4)
    expect(got, ([1, 2], [1, 2]), "both must be cut: each gets half of the room", known)
    known = {"an odd place goes to the longer text": ([1], [1, 2])}
    got = call(implementation, long, long[:5], 3)
    expect(got, ([1, 2], [1]), "an odd place goes to the longer text", known)
    known = {"of two equally long texts, the second gets the odd place": ([1, 2], [7])}
    got = call(implementation, [1, 2, 3], [7, 8, 9], 3)
    expect(got, ([1], [7, 8]), "of two equally long texts, the second gets it", known)
    for room in (8, 9, 100):
        got = call(implementation, long, short, room)
        expect(got, (long, short), "both fit: nothing is cut")
    expect(call(implementation, long, short, 0), ([], []), "no room, no ids")


class _Limited(dict[bytes, float]):
    """Log-probabilities that may be looked up a limited number of times."""

    left = 2000

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Mistake(
                "a word of 20 letters took over 2,000 look-ups: it has half a million cuts. Store "
                "the best cut of each beginning instead of trying all"
            )

    def get(self, key: bytes, default: Any = None) -> Any:
        """Return the value of a key, and count."""
        self._count()
        return super().get(key, default)

    def __getitem__(self, key: bytes) -> float:
        self._count()
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._count()
        return super().__contains__(key)


def best_cut(module: Any) -> None:
    """Compare with cuts that are written out here, then with the best of all cuts of 100 words."""
    implementation = module.best_cut
    got = call(implementation, b"lower", _logs(lo=0.02, wer=0.001, low=0.01, er=0.03))
    known = {
        "the tokens are in reverse order: the walk begins at the end": [b"er", b"low"],
        "this is the least probable cut: take the largest sum": [b"l", b"o", b"w", b"e", b"r"],
        "the most probable next token was taken: look at the product of all": [b"lo", b"wer"],
        "expected tokens, got text": "lower",
    }
    expect(got, [b"low", b"er"], "0.01 × 0.03 is more than 0.02 × 0.001", known)
    known = {
        "the longest token that fits was taken: a shorter one may leave a better rest": (
            [b"ab", b"c"]
        )
    }
    got = call(implementation, b"abc", _logs(a=0.2, ab=0.1, bc=0.4, c=0.1))
    expect(got, [b"a", b"bc"], "0.2 × 0.4 is more than 0.1 × 0.1", known)
    known = {"the most probable next token was taken: look at the product of all": [b"a", b"b"]}
    got = call(implementation, b"ab", _logs(a=0.5, ab=0.3, b=0.01))
    expect(got, [b"ab"], "0.3 is more than 0.5 × 0.01", known)
    known = {"the fewest tokens were taken: compare probabilities": [b"ab", b"c"]}
    got = call(implementation, b"abc", _logs(a=0.9, b=0.9, c=0.9, ab=0.1))
    expect(got, [b"a", b"b", b"c"], "0.9 × 0.9 × 0.9 is more than 0.1 × 0.9", known)
    expect(call(implementation, b"", _logs(a=0.5)), [], "an empty word has no tokens")
    rng = random.Random(0)
    for _ in range(100):
        _compare_with_all_cuts(implementation, rng)
    try:
        implementation(b"ab" * 10, _Limited(_logs(a=0.3, b=0.3, ab=0.05, ba=0.05)))
    except Mistake:
        raise
    except Exception as error:
        raise Mistake(f"{type(error).__name__} for a word of 20 letters: {error}") from error


def _logs(**probabilities: float) -> dict[bytes, float]:
    """Return log-probabilities of tokens; single bytes have 0.0001 unless they are given."""
    log_p = {bytes([byte]): math.log(1e-4) for byte in range(256)}
    return log_p | {token.encode(): math.log(p) for token, p in probabilities.items()}


def _compare_with_all_cuts(implementation: Function, rng: random.Random) -> None:
    word = bytes(rng.choices(b"abc", k=rng.randint(1, 7)))
    pieces = {word[i:j] for i in range(len(word)) for j in range(i + 1, len(word) + 1)}
    log_p = {piece: math.log(rng.random()) for piece in pieces if len(piece) < 4}
    got = call(implementation, word, log_p)
    cuts: list[list[bytes]] = [[]]
    for size in range(1, len(word) + 1):
        new = [
            [*cut, word[size - n : size]]
            for n in range(1, min(3, size) + 1)
            for cut in cuts
            if sum(map(len, cut)) == size - n
        ]
        cuts += new
    best = max(
        (cut for cut in cuts if b"".join(cut) == word), key=lambda cut: sum(log_p[t] for t in cut)
    )
    if not (isinstance(got, list) and b"".join(got) == word and all(t in log_p for t in got)):
        raise Mistake(f"{got!r} isn't a list of tokens that spell {word!r}")
    if sum(log_p[t] for t in got) < sum(log_p[t] for t in best) - 1e-9:
        raise Mistake(f"{got!r} is less probable than {best!r}")
