"""Wrong solutions of LLM08+: what a learner might plausibly hand in, and the message."""

import re

from labs.llm08_training import deeper as lab


def size_of(row):
    return len(row["input_ids"])


def pack_by(order=lambda row: -size_of(row), choose=min, exact=True, raises=True, keep=None):
    """Return a packer; `choose` picks one of the packs with room, from pairs (number, room)."""

    def pack(rows, length):
        packs = []
        room = []
        for row in sorted(rows, key=order):
            size = size_of(row)
            if size > length and raises:
                raise ValueError(size)
            fits = [(i, left) for i, left in enumerate(room) if left >= size + (not exact)]
            if fits:
                at, _ = choose(fits)
            else:
                at = len(packs)
                packs.append([])
                room.append(length)
            packs[at].append(keep(row) if keep else row)
            room[at] -= size
        return packs

    return pack


def fullest(fits):
    return min(fits, key=lambda pair: pair[1])


def emptiest(fits):
    return max(fits, key=lambda pair: pair[1])


def last_only(rows, length):
    packs = [[]]
    for row in sorted(rows, key=size_of, reverse=True):
        if sum(map(size_of, packs[-1])) + size_of(row) > length:
            packs.append([])
        packs[-1].append(row)
    return packs


def in_place(rows, length):
    rows.sort(key=size_of)
    return lab.pack(rows, length)


def an_empty_pack(rows, length):
    return [*lab.pack(rows, length), []]


def loses_a_row(rows, length):
    return lab.pack(rows[1:], length)


def overfills(rows, length):
    return [sorted(rows, key=size_of, reverse=True)] if len(rows) > 2 else lab.pack(rows, length)


def index_error(rows, length):
    if max(map(size_of, rows)) > length:
        raise IndexError
    return lab.pack(rows, length)


def grams_by(words=lambda text: lab.normalised(text).split(), last=1, step=1, join=" ".join):
    """Return a function of n-grams; `last` shifts the number of the last one."""

    def n_grams(text, n):
        found = words(text)
        stop = len(found) if last is None else len(found) - n + last
        return {join(found[i : i + n]) for i in range(0, max(0, stop), step)}

    return n_grams


def one_at_least(text, n):
    words = lab.normalised(text).split()
    return {" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def without_single_words(text, n):
    return lab.n_grams(text, n) if n > 1 else set()


WRONG = [
    ("pack", pack_by(exact=False), "fills a pack exactly"),
    ("pack", pack_by(order=lambda _: 0), "weren't sorted"),
    ("pack", pack_by(order=size_of), "the shortest row came first"),
    ("pack", last_only, "only the last pack is tried"),
    ("pack", pack_by(choose=emptiest), "the most room"),
    ("pack", pack_by(choose=fullest), "the fullest pack"),
    ("pack", pack_by(raises=False), "raise ValueError"),
    ("pack", index_error, "expected a ValueError, got IndexError"),
    ("pack", pack_by(keep=size_of), "something else than the rows"),
    ("pack", in_place, "sort a copy"),
    ("pack", an_empty_pack, "an empty pack"),
    ("pack", loses_a_row, "missing or comes twice"),
    ("pack", overfills, "more than 10 tokens"),
    ("pack", lambda *_: None, "expected a list of packs"),
    ("n_grams", grams_by(words=str.split), "wasn't normalised"),
    ("n_grams", grams_by(last=0), "the last n-gram is missing"),
    ("n_grams", grams_by(last=None), "shorter than n words"),
    ("n_grams", grams_by(words=lab.normalised, join="".join), "sequences of letters"),
    ("n_grams", grams_by(last=None, step=3), "don't overlap"),
    ("n_grams", grams_by(join="".join), "without a space"),
    ("n_grams", grams_by(join=tuple), "each n-gram must be a text"),
    ("n_grams", one_at_least, "two words has no 3-gram"),
    ("n_grams", without_single_words, "1-grams"),
    ("n_grams", grams_by(words=lambda text: re.findall(r"\w+", text)), "expected \\['a b c'"),
    ("n_grams", lambda *_: [], "expected a set"),
]
