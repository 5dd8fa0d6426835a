"""What proves the parts of LLM04 right. References: Python's own replace, min and codecs."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from labs.kit import Checks, Mistake

checks = Checks()

Function = Callable[..., Any]
PAIR = (1, 2)


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _same(got: Any, want: Any) -> bool:
    """Equal, and of the same types all through: no array is ever asked whether it is true."""
    if type(got) is not type(want):
        return False
    if isinstance(want, list | tuple):
        return len(got) == len(want) and all(map(_same, got, want))
    return bool(got == want)


def _expect(got: Any, want: Any, mistake: str, known: dict[str, Any] | None = None) -> None:
    """`got` must be `want`, type included; where it is what a known mistake gives, say which.

    Raises:
        Mistake: the known one's message, or what was expected, what came, and `mistake`.
    """
    if _same(got, want):
        return
    for message, wrong in (known or {}).items():
        if _same(got, wrong):
            raise Mistake(message)
    if type(got) is not type(want):
        raise Mistake(f"{_kind(want)} was expected, {_kind(got)} came")
    raise Mistake(f"{want!r} was expected, {got!r} came; {mistake}")


def _called(implementation: Function, *arguments: Any) -> Any:
    """The answer to copies of the arguments; they must come back as they were."""
    given = [one.copy() if isinstance(one, list | dict) else one for one in arguments]
    try:
        got = implementation(*given)
    except UnicodeDecodeError as error:
        raise Mistake(
            "UnicodeDecodeError for bytes that are no UTF-8: models can say such bytes, and "
            'errors="replace" puts � there'
        ) from error
    except Exception as error:
        shown = ", ".join(repr(one) for one in arguments)
        raise Mistake(f"{type(error).__name__} for ({shown}): {error}") from error
    if given != list(arguments):
        raise Mistake("your function changed its input: build something new instead")
    return got


@checks.proves("merge")
def merge(module: Any) -> None:
    implementation = module.merge
    got = _called(implementation, [1, 2, 3, 1, 2], PAIR, 9)
    known = {
        "only the first occurrence was merged: go on to the end": [9, 3, 1, 2],
        "the new id must replace both of the pair: go on behind the second": [9, 2, 3, 9, 2],
        "the pair is gone, and what should replace it too": [3],
        "every id of the pair became the new one, not only both in a row": [9, 9, 3, 9, 9],
    }
    _expect(got, [9, 3, 9], "each occurrence of the pair (1, 2) becomes 9", known)
    known = {
        "a a a with the pair (a, a) is two tokens: after a merge go on behind both": [9, 9],
        "from left to right: the first two of a a a are merged, the third stays": [1, 9],
        "the last id got lost": [9],
    }
    _expect(_called(implementation, [1, 1, 1], (1, 1), 9), [9, 1], "from left to right", known)
    known = {"the last id got lost: the loop must reach it": [3]}
    _expect(_called(implementation, [3, 1], PAIR, 9), [3, 1], "a last 1 is no pair", known)
    known = {"2 before 1 isn't the pair (1, 2): order counts": [9]}
    _expect(_called(implementation, [2, 1], PAIR, 9), [2, 1], "order counts", known)
    known = {"what this merge makes must not be merged again in the same go": [1]}
    _expect(_called(implementation, [1, 2, 2], PAIR, 1), [1, 2], "one walk, no second", known)
    for ids in ([], [1], [2, 2, 2]):
        _expect(_called(implementation, ids, PAIR, 9), ids, "nothing to merge")


@checks.proves("best_pair")
def best_pair(module: Any) -> None:
    implementation = module.best_pair
    counts = {(7, 7): 1, (4, 9): 7, (6, 3): 7, (4, 2): 7, (5, 0): 7, (5, 5): 7, (1, 1): 2}
    known = {
        "the most frequent pair is asked for, not the smallest of all": (1, 1),
        "the most frequent pair is asked for, not the rarest": (7, 7),
        "of equal counts the smallest pair, not the first that was counted": (4, 9),
        "of equal counts the smallest pair, not the last that was counted": (5, 5),
        "of equal counts the smallest pair, not the largest: max with a tuple as key?": (6, 3),
        "the first id decides, then the second: are they added, or the second compared alone?": (
            (5, 0)
        ),
    }
    _expect(_called(implementation, counts), (4, 2), "the first id decides, then the second", known)
    known = {"ids are numbers: as text, 10 would come before 2": (10, 0)}
    got = _called(implementation, {(9, 1): 4, (2, 9): 4, (10, 0): 4, (0, 0): 3})
    _expect(got, (2, 9), "the first id decides, then the second", known)
    _expect(_called(implementation, {(0, 0): 1}), (0, 0), "one pair is the best")


@checks.proves("decode")
def decode(module: Any) -> None:
    implementation = module.decode
    tokens = [b"H", b"i", b" \xe6\xbc", b"\xa2", b"\xff", b"", "é".encode()]
    known = {
        "the bytes are asked for as text: decode them": b"Hi \xe6\xbc\xa2",
        "a character was cut: join all bytes first, then read UTF-8 once": "Hi ��",
        "a character got lost: join all bytes first; and don't ignore errors": "Hi ",
        "the bytes were read as Latin-1, one character each: UTF-8 it is": "Hi æ¼¢",
    }
    _expect(_called(implementation, [0, 1, 2, 3], tokens), "Hi 漢", "join, then decode", known)
    got = _called(implementation, [0, 4, 1], tokens)
    known = {
        "a byte that is no UTF-8 vanished: errors='replace', not 'ignore'": "Hi",
        "a byte that is no UTF-8 must become �, not an escape": "H\\xffi",
        "a byte that is no UTF-8 must become �, not a surrogate": "H\udcffi",
    }
    _expect(got, "H�i", "a byte that is no UTF-8 becomes �", known)
    _expect(_called(implementation, [], tokens), "", "no ids are no text")
    known = {"the ids were sorted or thrown together: order counts": "éi"}
    _expect(_called(implementation, [5, 6, 1, 6], tokens), "éié", "each id once, in order", known)
    _expect(_called(implementation, range(2), tokens), "Hi", "ids needn't be a list")


@checks.proves("split_specials")
def split_specials(module: Any) -> None:
    implementation = module.split_specials
    names = ["<|a|>", "<|a|>b", "[x.y]"]
    text = "one <|a|> two<|a|><|a|>"
    want = [("one ", False), ("<|a|>", True), (" two", False), ("<|a|>", True), ("<|a|>", True)]
    got = _called(implementation, text, names)
    _are_pieces(got)
    if ("", False) in got:
        raise Mistake("an empty piece: between two names there is nothing, so no piece")
    if "".join(piece for piece, _ in got) == text and not any(special for _, special in got):
        raise Mistake("no name was found: are they escaped? | and . mean something in patterns")
    known = {
        "the names were thrown away: a group in the pattern keeps what split found": (
            [("one ", False), (" two", False)]
        ),
        "which is which? The second says whether the piece is a special name": (
            [(piece, not special) for piece, special in want]
        ),
    }
    _expect(got, want, "cut at each allowed name", known)
    _expect_text(implementation, text)
    known = {
        "of two names at one place the longer counts: sort them by length": (
            [("<|a|>", True), ("bc", False)]
        )
    }
    got = _called(implementation, "<|a|>bc", names)
    _expect(got, [("<|a|>b", True), ("c", False)], "the longer name counts", known)
    got = _called(implementation, "[xzy] x [x.y]", names)
    want = [("[xzy] x ", False), ("[x.y]", True)]
    _expect(got, want, "signs like . and [ stand for themselves: regex.escape")
    known = {"names are taken as they are: upper and lower case differ": [("<|A|>", True)]}
    _expect(_called(implementation, "<|A|>", names), [("<|A|>", False)], "case differs", known)
    _expect(_called(implementation, "", names), [], "nothing has no pieces")
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices(["<|a|>", "<|a", "|>", "b", "[x.y]", " "], k=8))
        pieces = _called(implementation, text, names)
        _are_pieces(pieces)
        _expect("".join(piece for piece, _ in pieces), text, "joined, the pieces are the text")


def _are_pieces(got: Any) -> None:
    if not isinstance(got, list):
        raise Mistake(f"a list was expected, {_kind(got)} came")
    for one in got:
        if not (isinstance(one, tuple) and [type(part) for part in one] == [str, bool]):
            raise Mistake(f"each piece is a tuple of a text and True or False; {one!r} came")


def _expect_text(implementation: Function, text: str) -> None:
    for allowed in ([], (), set()):
        got = _called(implementation, text, allowed)
        _are_pieces(got)
        if any(special for _, special in got):
            raise Mistake("nothing was allowed, and yet something is special: this is injection")
        if len(got) > 1:
            raise Mistake("nothing was allowed: the text is one piece, an empty pattern cuts it up")
        _expect(got, [(text, False)], "nothing allowed: the text is one piece")
    _expect(_called(implementation, "", []), [], "an empty text has no pieces")
    got = _called(implementation, "a<|a|>[x.y]", ["[x.y]"])
    want = [("a<|a|>", False), ("[x.y]", True)]
    _expect(got, want, "a name that isn't among the allowed ones is text")


@checks.proves("truncate_pair")
def truncate_pair(module: Any) -> None:
    implementation = module.truncate_pair
    a, b = list(range(10)), list(range(20, 26))

    def cut(first: int, second: int) -> tuple[list[int], list[int]]:
        return a[:first], b[:second]

    known = {
        "only the first was cut: the longer one, which changes on the way": cut(2, 6),
        "both were cut alike; cut the longer until they are equal": cut(6, 2),
        "cut at the end, not at the beginning": (a[-4:], b[-4:]),
    }
    _expect(_called(implementation, a, b, 8), cut(4, 4), "the longer is cut first", known)
    known = {
        "of two equal ones the second is cut, not the first": cut(4, 5),
        "half of the room each wastes a place of nine": cut(4, 4),
        "the ends are cut, not the beginnings": (a[-5:], b[-4:]),
    }
    _expect(_called(implementation, a, b, 9), cut(5, 4), "of equals the second is cut", known)
    known = {
        "the shorter one has room to spare: only the longer must be cut": cut(7, 7),
        "only where both are too long are both cut: here the first alone is": cut(7, 6),
    }
    _expect(_called(implementation, a, b, 14), cut(8, 6), "the longer alone is cut", known)
    swapped = _called(implementation, b, a, 9)
    known = {"of two equal ones the second is cut, whichever was the longer": (b[:4], a[:5])}
    _expect(swapped, (b[:5], a[:4]), "the same the other way round", known)
    known = {"what fits must stay as it is": cut(8, 6)}
    _expect(_called(implementation, a, b, 16), cut(10, 6), "it fits: cut nothing", known)
    _expect(_called(implementation, a, b, 100), cut(10, 6), "it fits: cut nothing")
    _expect(_called(implementation, a, b, 1), cut(1, 0), "room for one: the first's")
    _expect(_called(implementation, a, b, 0), cut(0, 0), "no room, no tokens")
    _expect(_called(implementation, a, [], 3), (a[:3], []), "an empty second")
    _expect(_called(implementation, [], a, 3), ([], a[:3]), "an empty first")


def _toy(text: str) -> list[int]:
    """Ids that tell where stretches begin: each is the checksum of one, and its length."""
    import regex

    found = regex.findall(r"\s*\S+|\s+", text)
    return [1000 * len(data := one.encode("utf-8", "surrogateescape")) + sum(data) for one in found]


@checks.proves("encode_stream")
def encode_stream(module: Any) -> None:
    implementation = module.encode_stream
    text = "We'll see: naïve 漢字\n\n  and  more  \n"
    data, want = text.encode(), _toy(text)
    try:
        got = implementation(_toy, [data])
    except Exception as error:
        raise Mistake(f"{type(error).__name__} for one chunk: {error}") from error
    if not isinstance(got, Iterator):
        raise Mistake(f"an iterator was expected, {_kind(got)} came: yield the ids as they come")
    _stream(implementation, [data], want, "one chunk is the whole")
    _stream(implementation, [], [], "no chunks, no ids")
    plain = b"We'll see,  and\n more"
    _stream(implementation, [plain[:4], plain[4:12], plain[12:]], _toy(plain.decode()), "ASCII")
    for size in (1, 2, 3, 7):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        _stream(implementation, chunks, want, f"chunks of {size} bytes")
    broken = b"ab\xff cd \xe6\xbc"
    want = _toy(broken.decode("utf-8", "surrogateescape"))
    _stream(
        implementation, [broken[:3], broken[3:]], want, "bytes that are no UTF-8, one at the end"
    )
    _comes_early(implementation)


def _stream(implementation: Function, chunks: list[bytes], want: list[int], where: str) -> None:
    seen: list[str] = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return _toy(text)

    try:
        got = list(implementation(encode, iter(chunks)))
    except UnicodeError as error:
        raise Mistake(
            f"{where}: {type(error).__name__}: a chunk may end inside a character, and bytes may "
            "be no UTF-8: an incremental decoder, with errors='surrogateescape'"
        ) from error
    except Exception as error:
        raise Mistake(f"{where}: {type(error).__name__}: {error}") from error
    if got == want:
        return
    text, whole = "".join(seen), b"".join(chunks).decode("utf-8", "surrogateescape")
    if "�" in text or len(text) > len(whole):
        raise Mistake(f"{where}: a character was cut in two: decode incrementally, not each chunk")
    if whole.startswith(text) and text != whole:
        raise Mistake(f"{where}: what was held back at the end never came: encode the rest, too")
    if text != whole:
        raise Mistake(f"{where}: the text that was encoded isn't the chunks' text; what got lost?")
    raise Mistake(f"{where}: a stretch was cut in two: hold back the last one, it may go on")


def _comes_early(implementation: Function) -> None:
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"word "

    try:
        first = next(implementation(_toy, chunks()), None)
    except Exception as error:
        raise Mistake(f"chunks of `word `: {type(error).__name__}: {error}") from error
    if first is None or read > 3:
        raise Mistake(
            f"{read} chunks of `word ` were read before the first id came: a stream may be larger "
            "than memory; encode what can't change any more"
        )
