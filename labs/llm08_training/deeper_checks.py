"""Check the exercises of LLM08+: packs by hand, and n-grams written out."""

import copy
from typing import Any, cast

from labs.kit import Mistake
from labs.llm08_training.batch_checks import Function, type_of


def pack(module: Any) -> None:
    """Compare the lengths in each pack with first fit decreasing by hand."""
    implementation = module.pack
    _expect_packs(
        implementation,
        [5, 5],
        [[5, 5]],
        {"a row that fills a pack exactly fits, too: compare with >=": [[5], [5]]},
    )
    _expect_packs(
        implementation,
        [3, 7, 1, 5, 4],
        [[7, 3], [5, 4, 1]],
        {
            "the rows weren't sorted: take the longest first": [[3, 7], [1, 5, 4]],
            "the shortest row came first: take the longest first": [[1, 3, 4], [5], [7]],
            "only the last pack is tried: begin with the first one": [[7], [5, 4], [3, 1]],
            "each row has a pack of its own: put it into one that has room": [
                [7],
                [5],
                [4],
                [3],
                [1],
            ],
        },
    )
    _expect_packs(
        implementation,
        [7, 6, 3],
        [[7, 3], [6]],
        {"the pack with the most room was taken: take the first that has room": [[7], [6, 3]]},
    )
    _expect_packs(
        implementation,
        [14, 10, 8, 2],
        [[14, 2], [10, 8]],
        {"the fullest pack was taken: take the first that has room": [[14], [10, 8, 2]]},
        length=20,
    )
    _expect_error(implementation)


def _rows(lengths: list[int]) -> list[dict[str, list[int]]]:
    """Return rows of these lengths; each has a token that no other row has."""
    return [{"input_ids": [i] * n, "labels": [i] * n} for i, n in enumerate(lengths)]


def _expect_packs(
    implementation: Function,
    lengths: list[int],
    want: list[list[int]],
    mistakes: dict[str, list[list[int]]],
    length: int = 10,
) -> None:
    rows = _rows(lengths)
    given = copy.deepcopy(rows)
    got = implementation(given, length)
    if given != rows:
        raise Mistake("the rows that were passed in have changed: sort a copy, with sorted")
    wrong_type = f"expected a list of packs, each a list of rows, got {type_of(got)}"
    if not isinstance(got, list):
        raise Mistake(wrong_type)
    packs = cast(list[Any], got)
    if any(not isinstance(part, list) for part in packs):
        raise Mistake(wrong_type)
    flat = [row for part in packs for row in part]
    if any(row not in rows for row in flat):
        raise Mistake("a pack has something else than the rows: put in the rows, unchanged")
    if len(flat) != len(rows) or any(row not in flat for row in rows):
        raise Mistake("each row belongs to one pack: a row is missing or comes twice")
    sizes = [[len(row["input_ids"]) for row in part] for part in packs]
    if [] in sizes:
        raise Mistake("there is an empty pack: begin a pack only for a row")
    if any(sum(part) > length for part in sizes):
        raise Mistake(f"a pack has more than {length} tokens: subtract each row from its room")
    for message, wrong in mistakes.items():
        if sizes == wrong:
            raise Mistake(message)
    if sizes != want:
        raise Mistake(f"rows of {lengths} tokens: expected packs of {want}, got {sizes}")


def _expect_error(implementation: Function) -> None:
    try:
        implementation(_rows([4, 11]), 10)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"a row of 11 tokens, length 10: expected a ValueError, got {kind}") from None
    raise Mistake("a row of 11 tokens doesn't fit into a pack of 10: raise ValueError")


def n_grams(module: Any) -> None:
    """Compare with n-grams written out, of a text with capitals and a comma."""
    implementation = module.n_grams
    text = "A b, c d"
    got = implementation(text, 3)
    if not isinstance(got, set):
        raise Mistake(f"expected a set of texts, got {type_of(got)}")
    found = cast(set[Any], got)
    want = {"a b c", "b c d"}
    mistakes = {
        "the text wasn't normalised: call normalised first": {"A b, c", "b, c d"},
        "the last n-gram is missing: there are len(words) − n + 1": {"a b c"},
        "the last ones are shorter than n words: stop at len(words) − n + 1": {
            *want,
            "c d",
            "d",
        },
        "these are sequences of letters: split the text into words": {
            "a b",
            " b ",
            "b c",
            " c ",
            "c d",
        },
        "the n-grams don't overlap: one begins at each word": {"a b c", "d"},
        "the words are joined without a space": {"abc", "bcd"},
    }
    for message, wrong in mistakes.items():
        if found == wrong:
            raise Mistake(message)
    if any(not isinstance(gram, str) for gram in found):
        raise Mistake("each n-gram must be a text: join its words with one space")
    if found != want:
        raise Mistake(f"the 3-grams of {text!r}: expected {sorted(want)}, got {sorted(found)}")
    if got := implementation("a b", 3):
        raise Mistake(f"a text of two words has no 3-gram, got {got}")
    if (got := implementation("a b a", 1)) != {"a", "b"}:
        raise Mistake(f"the 1-grams of 'a b a' are its words, got {got}")
