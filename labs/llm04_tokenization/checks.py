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


@checks.proves("count_pairs")
def count_pairs(module: Any) -> None:
    """Compare with counts that are written out here."""
    implementation = module.count_pairs
    words = [([1, 2, 1, 2], 3), ([2, 1], 5), ([7], 9), ([], 2)]
    got = _call(implementation, words)
    if not isinstance(got, dict):
        raise Mistake(f"expected a Counter, got {_type_of(got)}")
    got = {pair: count for pair, count in got.items() if count != 0}
    want = {(1, 2): 6, (2, 1): 8}
    known = {
        "the frequencies are missing: a word that occurs 3 times has its pairs 3 times": (
            {(1, 2): 2, (2, 1): 2}
        ),
        "each pair was counted once a word: it may occur several times in a word": (
            {(1, 2): 3, (2, 1): 8}
        ),
        "2 before 1 isn't the pair (1, 2): order counts": {(1, 2): 14},
        "a pair across two words was counted: count inside each word": (
            {(1, 2): 6, (2, 1): 8, (2, 2): 3, (1, 7): 5}
        ),
        "every second pair was skipped: neighbours overlap, (1, 2, 1) has two pairs": (
            {(1, 2): 6, (2, 1): 5}
        ),
    }
    _expect(got, want, "each pair of neighbours, times the word's frequency", known)
    got = _call(implementation, [([4, 4, 4], 2)])
    known = {"a a a has two pairs of neighbours: they overlap": {(4, 4): 2}}
    _expect(dict(got), {(4, 4): 4}, "a a a has two pairs", known)
    _expect(dict(_call(implementation, [])), {}, "no words have no pairs")


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


@checks.proves("train")
def train(module: Any) -> None:
    """Compare with merges that are written out here; ties and an early end are the hard parts."""
    implementation = module.train
    words = {b"low": 2, b" low": 2, b" lower": 1}
    got = _call(implementation, words, 1)
    known = {
        "a merge is a pair of ids, not of bytes": [(b"l", b"o")],
        "of equal counts take the smallest pair, not the first or the last that was counted": (
            [(111, 119)]
        ),
        "expected the most frequent pair, got the rarest": [(101, 114)],
        "expected the most frequent pair, got the smallest of all": [(32, 108)],
        "expected the merges, got the id of the new token: append the pair": [256],
    }
    _expect(got, [(108, 111)], "(l, o) and (o, w) occur 5 times, and (l, o) is smaller", known)
    got = _call(implementation, words, 3)
    want = [(108, 111), (256, 119), (32, 257)]
    known = {
        "the words were never merged: replace the pair in each word before you count again": (
            [(108, 111), (108, 111), (108, 111)]
        ),
        "the first new token has the id 256, the next 257, and so on": (
            [(108, 111), (257, 119), (32, 258)]
        ),
        "every merge made the same id: the i-th makes 256 + i": (
            [(108, 111), (256, 119), (32, 256)]
        ),
    }
    _expect(got, want, "count, merge the best pair everywhere, count again", known)
    ties = {b"zy": 3, b"ba": 3, b"bc": 3, b"ab": 3, b"aac": 1}
    known = {
        "of equal counts take the smallest pair, not the first that was counted": [(122, 121)],
        "of equal counts take the smallest pair, not the largest": [(122, 121)],
    }
    _expect(_call(implementation, ties, 1), [(97, 98)], "the first id decides first", known)
    got = _call(implementation, {b"zb": 2, b"bz": 2, b"ba": 2}, 1)
    _expect(got, [(98, 97)], "with equal first ids, the second id decides")
    for few, want in (({b"ab": 2, b"c": 9}, [(97, 98)]), ({}, []), ({b"x": 4}, [])):
        try:
            got = implementation(dict(few), 50)
        except Exception as error:
            raise Mistake(
                f"{type(error).__name__} when every word is a single token: then stop, because no "
                "pair is left"
            ) from error
        _expect(got, want, "stop when every word is a single token")
    _expect(_call(implementation, words, 0), [], "no merges were asked for")


@checks.proves("encode_word")
def encode_word(module: Any) -> None:
    """Compare with ids that are written out here; the order of merges is the hard part."""
    implementation = module.encode_word
    made = {(97, 98): 256, (98, 99): 257, (256, 256): 258, (100, 257): 259, (97, 97): 260}
    known = {
        "expected ids, got the bytes: no merge was applied": [97, 98, 99],
        "a later merge came first: apply the one with the smallest new id": [97, 257],
    }
    _expect(_call(implementation, b"abc", made), [256, 99], "256 was learned before 257", known)
    known = {
        "a merge must be followed by further ones: go on until no pair has a merge": [256, 256],
        "the pair was merged in a single place: merge it everywhere": [256, 97, 98],
    }
    _expect(_call(implementation, b"abab", made), [258], "256 256 has a merge, too", known)
    _expect(_call(implementation, b"dbc", made), [259], "d with bc is token 259")
    order = {(98, 99): 256, (97, 98): 257}
    known = {
        "a later merge came first: search the word for the earliest merge; don't walk through it "
        "from the left, and don't take the longest token": [257, 99],
    }
    _expect(_call(implementation, b"abc", order), [97, 256], "256 was learned first", known)
    _expect(_call(implementation, b"aaa", made), [260, 97], "from left to right")
    _expect(_call(implementation, b"", made), [], "an empty word has no ids")
    _expect(_call(implementation, b"z", made), [122], "a single byte has its own id")
    _expect(_call(implementation, b"xyz", {}), [120, 121, 122], "no merges: the bytes")


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


@checks.proves("pad_batch")
def pad_batch(module: Any) -> None:
    """Compare with a batch that is written out here, padded on each side."""
    implementation = module.pad_batch
    rows = [[5, 6, 7], [8], []]
    right = [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    left = [[5, 6, 7], [0, 0, 8], [0, 0, 0]]
    mask = [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    mirrored = [[1, 1, 1], [0, 0, 1], [0, 0, 0]]
    inverted = [[0, 0, 0], [0, 1, 1], [1, 1, 1]]
    got = _call(implementation, rows, 0)
    if not (isinstance(got, tuple) and len(got) == 2):
        raise Mistake(f"expected two lists, the ids and the mask, got {_type_of(got)}")
    known = {
        "the mask is inverted: 1 marks a real id, 0 padding": (right, inverted),
        "the mask has the ids of the other side: it must be padded where the ids are": (
            (right, mirrored)
        ),
        "padded on the left: the default side is the right": (left, mirrored),
        "the shortest row set the width, and ids are lost": ([[], [], []], [[], [], []]),
        "the mask hides nothing: 0 marks padding": (right, [[1, 1, 1]] * 3),
        "the mask and the ids are swapped": (mask, right),
    }
    _expect(got, (right, mask), "each row as long as the longest", known)
    known = {
        "`side` was ignored: on the left, padding comes first": (right, mask),
        "the mask must be padded on the left, too": (left, mask),
        "the mask is inverted: 1 marks a real id, 0 padding": (
            (left, [[0, 0, 0], [1, 1, 0], [1, 1, 1]])
        ),
    }
    _expect(_call(implementation, rows, 0, "left"), (left, mirrored), "padding first", known)
    known = {
        "the padding id was hard-coded: use `pad`": ([[1, 2], [3, 0]], [[1, 1], [1, 0]]),
        "a real id that equals `pad` was masked: build the mask from the lengths": (
            ([[1, 2], [3, 2]], [[1, 0], [1, 0]])
        ),
    }
    got = _call(implementation, [[1, 2], [3]], 2)
    _expect(got, ([[1, 2], [3, 2]], [[1, 1], [1, 0]]), "the padding id is `pad`", known)
    _expect(_call(implementation, [], 0), ([], []), "no rows make an empty batch")


@checks.proves("truncate_pair")
def truncate_pair(module: Any) -> None:
    """Compare with lengths written out here, for room of every kind."""
    implementation = module.truncate_pair
    a = list(range(10))
    b = list(range(20, 26))

    def cut(first: int, second: int) -> tuple[list[int], list[int]]:
        return a[:first], b[:second]

    known = {
        "only the first was cut: cut the longer one until both are equal": cut(2, 6),
        "the same number was cut from both: cut the longer until they are equal": cut(6, 2),
        "cut at the end, not at the beginning": (a[-4:], b[-4:]),
    }
    _expect(_call(implementation, a, b, 8), cut(4, 4), "the longer is cut first", known)
    known = {
        "the odd place belongs to the longer one, here the first": cut(4, 5),
        "half of the room for each wastes one place of nine": cut(4, 4),
        "cut the ends, not the beginnings": (a[-5:], b[-4:]),
    }
    _expect(_call(implementation, a, b, 9), cut(5, 4), "the odd place goes to the longer", known)
    known = {
        "the shorter one has room to spare: cut only the longer": cut(7, 7),
        "cut both only where both are too long: here cut the first alone": cut(7, 6),
    }
    _expect(_call(implementation, a, b, 14), cut(8, 6), "only the longer is cut", known)
    known = {"the odd place belongs to the longer one, here the second": (b[:5], a[:4])}
    got = _call(implementation, b, a, 9)
    _expect(got, (b[:4], a[:5]), "the same with the longer one second", known)
    known = {"of two equally long ones the second gets the odd place": (a[:5], a[:4])}
    _expect(_call(implementation, a, a, 9), (a[:4], a[:5]), "of equal ones the second", known)
    known = {"texts that fit must stay as they are": cut(8, 6)}
    _expect(_call(implementation, a, b, 16), cut(10, 6), "both fit: cut nothing", known)
    _expect(_call(implementation, a, b, 100), cut(10, 6), "both fit: cut nothing")
    _expect(_call(implementation, a, b, 1), cut(1, 0), "room for one token: the longer's")
    _expect(_call(implementation, a, b, 0), cut(0, 0), "no room, no tokens")
    _expect(_call(implementation, a, [], 3), (a[:3], []), "an empty second")
    _expect(_call(implementation, [], a, 3), ([], a[:3]), "an empty first")


def _toy(data: bytes) -> list[int]:
    """Return one id for each stretch, its length and checksum, which shows where it begins."""
    import regex

    if not isinstance(data, bytes):
        raise Mistake(f"`encode` takes bytes, but it got {_type_of(data)}")
    text = data.decode("utf-8", "surrogateescape")
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
    want = _toy(data)
    try:
        got = implementation(_toy, [data])
    except Mistake:
        raise
    except Exception as error:
        raise Mistake(f"{type(error).__name__} for a single chunk: {error}") from error
    if not isinstance(got, Iterator):
        raise Mistake(f"expected an iterator, got {_type_of(got)}: yield each id as it is known")
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
    if "�".encode() in text or len(text) > len(joined):
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
    except Mistake:
        raise
    except Exception as error:
        raise Mistake(f"chunks of `word `: {type(error).__name__}: {error}") from error
    if first is None or read > 3:
        raise Mistake(
            f"{read} chunks of `word ` were read before the first id came: a stream may be larger "
            "than memory, so encode text as soon as it can't change"
        )


@checks.proves("pack")
def pack(module: Any) -> None:
    """Compare with rows written out here; read back, the rows hold every text in order."""
    implementation = module.pack
    got = _call(implementation, [[1, 2, 3], [4], [5, 6]], 4, 0)
    want = [[1, 2, 3, 0], [4, 0, 5, 6], [0, 0, 0, 0]]
    known = {
        "the end id after each text is missing": [[1, 2, 3, 4], [5, 6, 0, 0]],
        "the end id after the last text is missing": [[1, 2, 3, 0], [4, 0, 5, 6]],
        "the last, short row is lost: fill it": [[1, 2, 3, 0], [4, 0, 5, 6]],
        "the last row must be filled with the end id": [[1, 2, 3, 0], [4, 0, 5, 6], [0]],
        "each text got rows of its own: texts follow one another in a row": (
            [[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0]]
        ),
        "an end id stands before each text: it belongs behind": [
            [0, 1, 2, 3],
            [0, 4, 0, 5],
            [6, 0, 0, 0],
        ],
    }
    _expect(got, want, "all texts in a row, an end after each, cut every `width` ids", known)
    known = {
        "the end id after each text is missing": [[1, 2], [3, 9]],
        "a text that is longer than a row must go on in the next": [[1, 2], [9, 9]],
        "the last, short row is lost": [[1, 2]],
        "a full row was added without need": [[1, 2], [3, 9], [9, 9]],
    }
    _expect(_call(implementation, [[1, 2, 3]], 2, 9), [[1, 2], [3, 9]], "it goes on", known)
    _expect(_call(implementation, [], 4, 0), [], "no texts need no rows")
    _expect(_call(implementation, [[], [7]], 3, 0), [[0, 7, 0]], "an empty text is its end alone")
    rng = random.Random(0)
    texts = [[rng.randrange(1, 9) for _ in range(rng.randrange(7))] for _ in range(50)]
    rows = _call(implementation, texts, 5, 0)
    if any(len(row) != 5 for row in rows):
        raise Mistake("a row has another length than `width`")
    joined = [i for text in texts for i in [*text, 0]]
    flat = [i for row in rows for i in row]
    _expect(flat[: len(joined)], joined, "joined, the rows are the texts with their ends")
