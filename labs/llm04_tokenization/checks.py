"""Check the exercises of LLM04.

References: results written out here, and Python's codecs for streams of bytes.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from labs.kit import Checks, Mistake

checks = Checks()

Function = Callable[..., Any]
PAIR = (1, 2)


def _type_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _same(got: Any, want: Any) -> bool:
    """Return whether the values and all their types are equal, without comparing arrays."""
    if type(got) is not type(want):
        return False
    if isinstance(want, list | tuple):
        return len(got) == len(want) and all(map(_same, got, want))
    return bool(got == want)


def _expect(got: Any, want: Any, mistake: str, known: dict[str, Any] | None = None) -> None:
    """Compare `got` with `want`, types included, and with the results of known mistakes.

    Raises:
        Mistake: the message of the known mistake, or else what was expected and `mistake`.
    """
    if _same(got, want):
        return
    for message, wrong in (known or {}).items():
        if _same(got, wrong):
            raise Mistake(message)
    if type(got) is not type(want):
        raise Mistake(f"expected {_type_of(want)}, got {_type_of(got)}")
    raise Mistake(f"expected {want!r}, got {got!r}; {mistake}")


def _call(implementation: Function, *arguments: Any) -> Any:
    """Return the result for copies of the arguments.

    Raises:
        Mistake: if the implementation raises an error or changes its arguments.
    """
    passed = [x.copy() if isinstance(x, list | dict) else x for x in arguments]
    try:
        got = implementation(*passed)
    except UnicodeDecodeError as error:
        raise Mistake(
            "UnicodeDecodeError for bytes that aren't UTF-8: models can write such bytes, and "
            'errors="replace" puts � in their place'
        ) from error
    except Exception as error:
        shown = ", ".join(repr(x) for x in arguments)
        raise Mistake(f"{type(error).__name__} for ({shown}): {error}") from error
    if passed != list(arguments):
        raise Mistake("your function changed its input: build something new instead")
    return got


@checks.proves("merge")
def merge(module: Any) -> None:
    """Compare with merged lists that are written out here."""
    implementation = module.merge
    got = _call(implementation, [1, 2, 3, 1, 2], PAIR, 9)
    known = {
        "only the first occurrence was merged: go on to the end": [9, 3, 1, 2],
        "the new id must replace both ids of the pair: go on after the second": [9, 2, 3, 9, 2],
        "the pair is gone, and so is the id that should replace it": [3],
        "every id of the pair became the new id, not only both in a row": [9, 9, 3, 9, 9],
    }
    _expect(got, [9, 3, 9], "each occurrence of the pair (1, 2) becomes 9", known)
    known = {
        "a a a with the pair (a, a) is two tokens: after a merge go on after both": [9, 9],
        "merge from left to right: the first two of a a a are merged, the third stays": [1, 9],
        "the last id is lost": [9],
    }
    _expect(_call(implementation, [1, 1, 1], (1, 1), 9), [9, 1], "merge from left to right", known)
    known = {"the last id is lost: the loop must reach it": [3]}
    _expect(_call(implementation, [3, 1], PAIR, 9), [3, 1], "a 1 at the end is no pair", known)
    known = {"2 before 1 isn't the pair (1, 2): order counts": [9]}
    _expect(_call(implementation, [2, 1], PAIR, 9), [2, 1], "order counts", known)
    known = {"a token that this merge makes must not be merged again in the same pass": [1]}
    _expect(_call(implementation, [1, 2, 2], PAIR, 1), [1, 2], "one pass, no second", known)
    for ids in ([], [1], [2, 2, 2]):
        _expect(_call(implementation, ids, PAIR, 9), ids, "there is nothing to merge")


@checks.proves("best_pair")
def best_pair(module: Any) -> None:
    """Compare with the smallest of several most frequent pairs."""
    implementation = module.best_pair
    counts = {(7, 7): 1, (4, 9): 7, (6, 3): 7, (4, 2): 7, (5, 0): 7, (5, 5): 7, (1, 1): 2}
    known = {
        "expected the most frequent pair, got the smallest of all": (1, 1),
        "expected the most frequent pair, got the rarest": (7, 7),
        "of equal counts take the smallest pair, not the first that was counted": (4, 9),
        "of equal counts take the smallest pair, not the last that was counted": (5, 5),
        "of equal counts take the smallest pair, not the largest: max with a tuple as key?": (6, 3),
        "the first id decides, then the second: are they added, or is only the second compared?": (
            (5, 0)
        ),
    }
    _expect(_call(implementation, counts), (4, 2), "the first id decides, then the second", known)
    known = {"ids are numbers: as text, 10 would come before 2": (10, 0)}
    got = _call(implementation, {(9, 1): 4, (2, 9): 4, (10, 0): 4, (0, 0): 3})
    _expect(got, (2, 9), "the first id decides, then the second", known)
    _expect(_call(implementation, {(0, 0): 1}), (0, 0), "a single pair is the best")


@checks.proves("decode")
def decode(module: Any) -> None:
    """Compare with Python's codec, for characters that are cut and bytes that aren't UTF-8."""
    implementation = module.decode
    tokens = [b"H", b"i", b" \xe6\xbc", b"\xa2", b"\xff", b"", "é".encode()]
    known = {
        "expected text, got bytes: decode them": b"Hi \xe6\xbc\xa2",
        "a character was cut: join all bytes first, then decode UTF-8 once": "Hi ��",
        "a character is lost: join all bytes first, and don't ignore errors": "Hi ",
        "the bytes were decoded as Latin-1, one character each: they are UTF-8": "Hi æ¼¢",
    }
    _expect(_call(implementation, [0, 1, 2, 3], tokens), "Hi 漢", "join, then decode", known)
    got = _call(implementation, [0, 4, 1], tokens)
    known = {
        "a byte that isn't UTF-8 is lost: errors='replace', not 'ignore'": "Hi",
        "a byte that isn't UTF-8 must become �, not an escape": "H\\xffi",
        "a byte that isn't UTF-8 must become �, not a surrogate": "H\udcffi",
    }
    _expect(got, "H�i", "a byte that isn't UTF-8 becomes �", known)
    _expect(_call(implementation, [], tokens), "", "no ids give an empty text")
    known = {"the ids were sorted, or repeated ids dropped: decode each id in order": "éi"}
    _expect(_call(implementation, [5, 6, 1, 6], tokens), "éié", "decode each id in order", known)
    _expect(_call(implementation, range(2), tokens), "Hi", "ids needn't be a list")


@checks.proves("split_specials")
def split_specials(module: Any) -> None:
    """Compare with pieces written out here; joined, the pieces of 200 texts are the text."""
    implementation = module.split_specials
    names = ["<|a|>", "<|a|>b", "[x.y]"]
    _split_all_names(implementation, names)
    _split_no_names(implementation)
    got = _call(implementation, "a<|a|>[x.y]", ["[x.y]"])
    want = [("a<|a|>", False), ("[x.y]", True)]
    _expect(got, want, "a name that isn't allowed is text")
    known = {
        "of two names at one place, the longer counts: sort them by length": (
            [("<|a|>", True), ("bc", False)]
        )
    }
    got = _call(implementation, "<|a|>bc", names)
    _expect(got, [("<|a|>b", True), ("c", False)], "the longer name counts", known)
    got = _call(implementation, "[xzy] x [x.y]", names)
    want = [("[xzy] x ", False), ("[x.y]", True)]
    _expect(got, want, "characters like . and [ stand for themselves: regex.escape")
    known = {"upper and lower case of a name differ": [("<|A|>", True)]}
    _expect(_call(implementation, "<|A|>", names), [("<|A|>", False)], "case differs", known)
    _expect(_call(implementation, "", names), [], "an empty text has no pieces")
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices(["<|a|>", "<|a", "|>", "b", "[x.y]", " "], k=8))
        pieces = _call(implementation, text, names)
        _expect_pieces(pieces)
        _expect("".join(piece for piece, _ in pieces), text, "joined, the pieces are the text")


def _split_all_names(implementation: Function, names: list[str]) -> None:
    text = "one <|a|> two<|a|><|a|>"
    want = [("one ", False), ("<|a|>", True), (" two", False), ("<|a|>", True), ("<|a|>", True)]
    got = _call(implementation, text, names)
    _expect_pieces(got)
    if ("", False) in got:
        raise Mistake("an empty piece: between two adjacent names there is no piece")
    if "".join(piece for piece, _ in got) == text and not any(special for _, special in got):
        raise Mistake("no name was found: are they escaped? | and . mean something in patterns")
    known = {
        "the names are lost: a group in the pattern keeps what split found": (
            [("one ", False), (" two", False)]
        ),
        "the flags are swapped: True means that the piece is a special name": (
            [(piece, not special) for piece, special in want]
        ),
    }
    _expect(got, want, "cut at each allowed name", known)


def _split_no_names(implementation: Function) -> None:
    text = "one <|a|> two<|a|><|a|>"
    for allowed in ([], (), set[str]()):
        got = _call(implementation, text, allowed)
        _expect_pieces(got)
        if any(special for _, special in got):
            raise Mistake("no name was allowed, but a piece is special: this is injection")
        if len(got) > 1:
            raise Mistake("no name was allowed: the text is one piece, an empty pattern cuts it up")
        _expect(got, [(text, False)], "no name was allowed: the text is one piece")
    _expect(_call(implementation, "", []), [], "an empty text has no pieces")


def _expect_pieces(got: Any) -> None:
    if not isinstance(got, list):
        raise Mistake(f"expected a list, got {_type_of(got)}")
    for piece in got:
        if not (isinstance(piece, tuple) and [type(part) for part in piece] == [str, bool]):
            raise Mistake(f"expected pieces of the form (text, True or False), got {piece!r}")


def _toy(text: str) -> list[int]:
    """Return one id for each stretch, its length and checksum, which shows where it begins."""
    import regex

    encoded = [
        stretch.encode("utf-8", "surrogateescape") for stretch in regex.findall(r"\s*\S+|\s+", text)
    ]
    return [1000 * len(data) + sum(data) for data in encoded]


@checks.proves("encode_stream")
def encode_stream(module: Any) -> None:
    """Compare with the ids of the joined text, for chunks that cut stretches and characters."""
    implementation = module.encode_stream
    text = "We'll see: naïve 漢字\n\n  and  more  \n"
    data = text.encode()
    want = _toy(text)
    try:
        got = implementation(_toy, [data])
    except Exception as error:
        raise Mistake(f"{type(error).__name__} for a single chunk: {error}") from error
    if not isinstance(got, Iterator):
        raise Mistake(f"expected an iterator, got {_type_of(got)}: yield each id as it is known")
    _check_stream(implementation, [data], want, "a single chunk")
    _check_stream(implementation, [], [], "no chunks")
    plain = b"We'll see,  and\n more"
    chunks = [plain[:4], plain[4:12], plain[12:]]
    _check_stream(implementation, chunks, _toy(plain.decode()), "ASCII")
    for size in (1, 2, 3, 7):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        _check_stream(implementation, chunks, want, f"chunk size {size}")
    broken = b"ab\xff cd \xe6\xbc"
    want = _toy(broken.decode("utf-8", "surrogateescape"))
    name = "bytes that aren't UTF-8, some of them at the end"
    _check_stream(implementation, [broken[:3], broken[3:]], want, name)
    _comes_early(implementation)


def _check_stream(
    implementation: Function, chunks: list[bytes], want: list[int], name: str
) -> None:
    encoded: list[str] = []

    def encode(text: str) -> list[int]:
        encoded.append(text)
        return _toy(text)

    try:
        got = list(implementation(encode, iter(chunks)))
    except UnicodeError as error:
        raise Mistake(
            f"{name}: {type(error).__name__}: a chunk may end inside a character, and bytes may "
            "not be UTF-8: use an incremental decoder with errors='surrogateescape'"
        ) from error
    except Exception as error:
        raise Mistake(f"{name}: {type(error).__name__}: {error}") from error
    if got == want:
        return
    text = "".join(encoded)
    joined = b"".join(chunks).decode("utf-8", "surrogateescape")
    if "�" in text or len(text) > len(joined):
        raise Mistake(f"{name}: a character was cut in two: decode incrementally, not each chunk")
    if joined.startswith(text) and text != joined:
        raise Mistake(f"{name}: text held back at the end never came: encode the rest, too")
    if text != joined:
        raise Mistake(f"{name}: the encoded text isn't the text of the chunks: what is lost?")
    raise Mistake(f"{name}: a stretch was cut in two: hold back the last one, because it may go on")


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
            "than memory, so encode text as soon as it can't change"
        )


@checks.proves("truncate_pair")
def truncate_pair(module: Any) -> None:
    """Compare with lengths written out here, for room of every kind."""
    implementation = module.truncate_pair
    a = list(range(10))
    b = list(range(20, 26))

    def cut(first: int, second: int) -> tuple[list[int], list[int]]:
        return a[:first], b[:second]

    known = {
        "only the first was cut: cut the longer one, which changes on the way": cut(2, 6),
        "the same number was cut from both: cut the longer until they are equal": cut(6, 2),
        "cut at the end, not at the beginning": (a[-4:], b[-4:]),
    }
    _expect(_call(implementation, a, b, 8), cut(4, 4), "the longer is cut first", known)
    known = {
        "of two equal ones the second is cut, not the first": cut(4, 5),
        "half of the room for each wastes one place of nine": cut(4, 4),
        "cut the ends, not the beginnings": (a[-5:], b[-4:]),
    }
    _expect(_call(implementation, a, b, 9), cut(5, 4), "of equal ones the second is cut", known)
    known = {
        "the shorter one has room to spare: cut only the longer": cut(7, 7),
        "cut both only where both are too long: here cut the first alone": cut(7, 6),
    }
    _expect(_call(implementation, a, b, 14), cut(8, 6), "only the longer is cut", known)
    swapped = _call(implementation, b, a, 9)
    known = {"of two equal ones the second is cut, even if it was the shorter": (b[:4], a[:5])}
    _expect(swapped, (b[:5], a[:4]), "the same with the longer one second", known)
    known = {"texts that fit must stay as they are": cut(8, 6)}
    _expect(_call(implementation, a, b, 16), cut(10, 6), "both fit: cut nothing", known)
    _expect(_call(implementation, a, b, 100), cut(10, 6), "both fit: cut nothing")
    _expect(_call(implementation, a, b, 1), cut(1, 0), "room for one token: the first's")
    _expect(_call(implementation, a, b, 0), cut(0, 0), "no room, no tokens")
    _expect(_call(implementation, a, [], 3), (a[:3], []), "an empty second")
    _expect(_call(implementation, [], a, 3), ([], a[:3]), "an empty first")
