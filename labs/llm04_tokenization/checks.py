"""Check the exercises of LLM04; deeper_checks.py checks those of LLM04+.

References: results written out here.
"""

import random
from typing import Any

from labs.kit import Checks, Mistake
from labs.llm04_tokenization import deeper_checks
from labs.llm04_tokenization.comparing import Function, call, expect, type_of

checks = Checks()

PAIR = (1, 2)


@checks.proves("merge")
def merge(module: Any) -> None:
    """Compare with merged lists that are written out here."""
    implementation = module.merge
    got = call(implementation, [1, 2, 3, 1, 2], PAIR, 9)
    known = {
        "only the first occurrence was merged: go on to the end": [9, 3, 1, 2],
        "the new id must replace both ids of the pair: go on after the second": [9, 2, 3, 9, 2],
        "the pair is gone, and so is the id that should replace it": [3],
        "every id of the pair became the new id, not only both in a row": [9, 9, 3, 9, 9],
    }
    expect(got, [9, 3, 9], "each occurrence of the pair (1, 2) becomes 9", known)
    known = {
        "a a a with the pair (a, a) is two tokens: after a merge go on after both": [9, 9],
        "merge from left to right: the first two of a a a are merged, the third stays": [1, 9],
        "the last id is lost": [9],
    }
    expect(call(implementation, [1, 1, 1], (1, 1), 9), [9, 1], "merge from left to right", known)
    known = {"the last id is lost: the loop must reach it": [3]}
    expect(call(implementation, [3, 1], PAIR, 9), [3, 1], "a 1 at the end is no pair", known)
    known = {"2 before 1 isn't the pair (1, 2): order counts": [9]}
    expect(call(implementation, [2, 1], PAIR, 9), [2, 1], "order counts", known)
    known = {"a token that this merge makes must not be merged again in the same pass": [1]}
    expect(call(implementation, [1, 2, 2], PAIR, 1), [1, 2], "one pass, no second", known)
    for ids in ([], [1], [2, 2, 2]):
        expect(call(implementation, ids, PAIR, 9), ids, "there is nothing to merge")


@checks.proves("train")
def train(module: Any) -> None:
    """Compare with merges that are written out here; ties and an early end are the hard parts."""
    implementation = module.train
    ties = {b"mn": 3, b"zy": 3, b"ba": 3, b"bc": 3, b"ab": 3, b"no": 3}
    known = {
        "of equal counts take the smallest pair, not the first that was counted": [(109, 110)],
        "of equal counts take the smallest pair, not the last that was counted": [(110, 111)],
        "of equal counts take the smallest pair, not the largest": [(122, 121)],
        "a merge is a pair of ids, not of bytes": [(b"a", b"b")],
        "expected the merges, got the id of the new token: append the pair": [256],
    }
    expect(call(implementation, ties, 1), [(97, 98)], "the first id decides first", known)
    words = {b"low": 2, b" low": 2, b" lower": 1, b"lot": 1}
    got = call(implementation, words, 1)
    known = {
        "expected the most frequent pair, got the rarest": [(101, 114)],
        "expected the most frequent pair, got the smallest of all": [(32, 108)],
    }
    expect(got, [(108, 111)], "(l, o) occurs 6 times, more than any other pair", known)
    got = call(implementation, words, 3)
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
    expect(got, want, "count, merge the best pair everywhere, count again", known)
    got = call(implementation, {b"zb": 2, b"bz": 2, b"ba": 2}, 1)
    expect(got, [(98, 97)], "with equal first ids, the second id decides")
    for few, want in (({b"ab": 2, b"c": 9}, [(97, 98)]), ({}, []), ({b"x": 4}, [])):
        try:
            got = implementation(dict(few), 50)
        except Exception as error:
            raise Mistake(
                f"{type(error).__name__} when every word is a single token: then stop, because no "
                "pair is left"
            ) from error
        expect(got, want, "stop when every word is a single token")
    expect(call(implementation, words, 0), [], "no merges were asked for")


@checks.proves("encode_word")
def encode_word(module: Any) -> None:
    """Compare with ids that are written out here; the order of merges is the hard part."""
    implementation = module.encode_word
    merge_ids = {(97, 98): 256, (98, 99): 257, (256, 256): 258, (100, 257): 259, (97, 97): 260}
    known = {
        "expected ids, got the bytes: no merge was applied": [97, 98, 99],
        "a later merge came first: apply the one with the smallest new id": [97, 257],
    }
    expect(call(implementation, b"abc", merge_ids), [256, 99], "256 was learned before 257", known)
    known = {
        "a merge must be followed by further ones: go on until no pair has a merge": [256, 256],
        "the pair was merged in a single place: merge it everywhere": [256, 97, 98],
    }
    expect(call(implementation, b"abab", merge_ids), [258], "256 256 has a merge, too", known)
    expect(call(implementation, b"dbc", merge_ids), [259], "d with bc is token 259")
    order = {(98, 99): 256, (97, 98): 257}
    known = {
        "a later merge came first: search the word for the earliest merge; don't walk through it "
        "from the left, and don't take the longest token": [257, 99],
    }
    expect(call(implementation, b"abc", order), [97, 256], "256 was learned first", known)
    expect(call(implementation, b"aaa", merge_ids), [260, 97], "from left to right")
    expect(call(implementation, b"", merge_ids), [], "an empty word has no ids")
    expect(call(implementation, b"z", merge_ids), [122], "a single byte has its own id")
    expect(call(implementation, b"xyz", {}), [120, 121, 122], "no merges: the bytes")


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
    expect(call(implementation, [0, 1, 2, 3], tokens), "Hi 漢", "join, then decode", known)
    got = call(implementation, [0, 4, 1], tokens)
    known = {
        "a byte that isn't UTF-8 is lost: errors='replace', not 'ignore'": "Hi",
        "a byte that isn't UTF-8 must become �, not an escape": "H\\xffi",
        "a byte that isn't UTF-8 must become �, not a surrogate": "H\udcffi",
    }
    expect(got, "H�i", "a byte that isn't UTF-8 becomes �", known)
    expect(call(implementation, [], tokens), "", "no ids give an empty text")
    known = {"the ids were sorted, or repeated ids dropped: decode each id in order": "éi"}
    expect(call(implementation, [5, 6, 1, 6], tokens), "éié", "decode each id in order", known)
    expect(call(implementation, range(2), tokens), "Hi", "ids needn't be a list")


@checks.proves("split_specials")
def split_specials(module: Any) -> None:
    """Compare with pieces written out here, then with a scan of 200 random texts."""
    implementation = module.split_specials
    names = ["<|a|>", "<|a|>b", "[x.y]"]
    _split_all_names(implementation, names)
    _split_no_names(implementation)
    got = call(implementation, "a<|a|>[x.y]", ["[x.y]"])
    want = [("a<|a|>", False), ("[x.y]", True)]
    expect(got, want, "a name that isn't allowed is text")
    known = {
        "of two names at one place, the longer counts: sort them by length": (
            [("<|a|>", True), ("bc", False)]
        )
    }
    got = call(implementation, "<|a|>bc", names)
    expect(got, [("<|a|>b", True), ("c", False)], "the longer name counts", known)
    got = call(implementation, "[xzy] x [x.y]", names)
    want = [("[xzy] x ", False), ("[x.y]", True)]
    expect(got, want, "characters like . and [ stand for themselves: regex.escape")
    known = {"upper and lower case of a name differ": [("<|A|>", True)]}
    expect(call(implementation, "<|A|>", names), [("<|A|>", False)], "case differs", known)
    expect(call(implementation, "", names), [], "an empty text has no pieces")
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices(["<|a|>", "<|a", "|>", "b", "[x.y]", " "], k=8))
        pieces = call(implementation, text, names)
        _expect_pieces(pieces)
        expect("".join(piece for piece, _ in pieces), text, "joined, the pieces are the text")
        expect(pieces, _scan(text, names), f"cut {text!r} at each of the names {names}")


def _scan(text: str, names: list[str]) -> list[tuple[str, bool]]:
    """Return the pieces of a text, found place by place."""
    pieces: list[tuple[str, bool]] = []
    plain = ""
    while text:
        name = max((name for name in names if text.startswith(name)), key=len, default="")
        if name and plain:
            pieces.append((plain, False))
            plain = ""
        if name:
            pieces.append((name, True))
        else:
            plain += text[0]
        text = text[len(name) or 1 :]
    if plain:
        pieces.append((plain, False))
    return pieces


def _split_all_names(implementation: Function, names: list[str]) -> None:
    text = "one <|a|> two<|a|><|a|>"
    want = [("one ", False), ("<|a|>", True), (" two", False), ("<|a|>", True), ("<|a|>", True)]
    got = call(implementation, text, names)
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
    expect(got, want, "cut at each allowed name", known)


def _split_no_names(implementation: Function) -> None:
    text = "one <|a|> two<|a|><|a|>"
    for allowed in ([], (), set[str]()):
        got = call(implementation, text, allowed)
        _expect_pieces(got)
        if any(special for _, special in got):
            raise Mistake("no name was allowed, but a piece is special: this is injection")
        if len(got) > 1:
            raise Mistake("no name was allowed: the text is one piece, an empty pattern cuts it up")
        expect(got, [(text, False)], "no name was allowed: the text is one piece")
    expect(call(implementation, "", []), [], "an empty text has no pieces")


def _expect_pieces(got: Any) -> None:
    if not isinstance(got, list):
        raise Mistake(f"expected a list, got {type_of(got)}")
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
    got = call(implementation, rows, 0)
    if not (isinstance(got, tuple) and len(got) == 2):
        raise Mistake(f"expected two lists, the ids and the mask, got {type_of(got)}")
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
    expect(got, (right, mask), "each row as long as the longest", known)
    known = {
        "`side` was ignored: on the left, padding comes first": (right, mask),
        "the mask must be padded on the left, too": (left, mask),
        "the mask is inverted: 1 marks a real id, 0 padding": (
            (left, [[0, 0, 0], [1, 1, 0], [1, 1, 1]])
        ),
    }
    expect(call(implementation, rows, 0, "left"), (left, mirrored), "padding first", known)
    known = {
        "the padding id was hard-coded: use `pad`": ([[1, 2], [3, 0]], [[1, 1], [1, 0]]),
        "a real id that equals `pad` was masked: build the mask from the lengths": (
            ([[1, 2], [3, 2]], [[1, 0], [1, 0]])
        ),
    }
    got = call(implementation, [[1, 2], [3]], 2)
    expect(got, ([[1, 2], [3, 2]], [[1, 1], [1, 0]]), "the padding id is `pad`", known)
    expect(call(implementation, [], 0), ([], []), "no rows make an empty batch")
    _pad_batch_limit(implementation)


def _pad_batch_limit(implementation: Function) -> None:
    rows = [[1, 2, 3], [4]]
    long = [[1, 2, 3], [4, 0, 0]]
    mask = [[1, 1, 1], [1, 0, 0]]
    short = [[1, 1], [1, 0]]
    known = {
        "`limit` was ignored: cut the rows first": (long, mask),
        "cut the end of a row, not its beginning": ([[2, 3], [4, 0]], short),
        "the mask must be as long as the rows that were cut": ([[1, 2], [4, 0]], mask),
    }
    got = call(implementation, rows, 0, "right", 2)
    expect(got, ([[1, 2], [4, 0]], short), "rows longer than `limit` are cut", known)
    known = {
        "on the left, a row was cut after it was padded: cut first": ([[1, 2], [0, 0]], short),
        "on the left, too, cut the end of a row": ([[2, 3], [0, 4]], [[1, 1], [0, 1]]),
    }
    got = call(implementation, rows, 0, "left", 2)
    expect(got, ([[1, 2], [0, 4]], [[1, 1], [0, 1]]), "cut first, then pad", known)
    known = {
        "the longest row sets the width, not `limit`": (
            [[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]],
            [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
        )
    }
    expect(call(implementation, rows, 0, "right", 5), (long, mask), "no row is too long", known)


checks.proves("merge_word")(deeper_checks.merge_word)
checks.proves("encode_stream")(deeper_checks.encode_stream)
checks.proves("best_cut")(deeper_checks.best_cut)
checks.proves("truncate_pair")(deeper_checks.truncate_pair)
