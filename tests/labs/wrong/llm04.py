"""Plausible wrong solutions of LLM04's exercises, each with the message that names its mistake."""

import re
from itertools import pairwise

from labs.llm04_tokenization import lesson as lab


def one_merge_alone(ids, pair, new):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new, *ids[i + 2 :]]
    return list(ids)


def goes_on_after_the_first(ids, pair, new):
    pairs = zip(ids, [*ids[1:], None], strict=True)
    return [new if two == pair else two[0] for two in pairs]


def stops_before_the_last(ids, pair, new):
    merged = []
    i = 0
    while i < len(ids) - 1:
        found = (ids[i], ids[i + 1]) == pair
        merged.append(new if found else ids[i])
        i += 2 if found else 1
    return merged


def from_the_right(ids, pair, new):
    return lab.merge(list(ids)[::-1], pair[::-1], new)[::-1]


def in_place(ids, pair, new):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new]
        i += 1
    return ids


def either_order(ids, pair, new):
    return lab.merge(lab.merge(ids, pair, new), pair[::-1], new)


def merges_what_it_made(ids, pair, new):
    while (merged := lab.merge(ids, pair, new)) != ids:
        ids = merged
    return merged


def training(choose, apply=True, first=256):
    """Return a trainer that chooses pairs by a key of (count, pair)."""

    def train(words, merges):
        spelled = [(list(word), frequency) for word, frequency in words.items()]
        learned = []
        while len(learned) < merges and (counts := lab.count_pairs(spelled)):
            pair = choose(counts)
            if apply:
                new = first + len(learned)
                spelled = [(lab.merge(ids, pair, new), n) for ids, n in spelled]
            learned.append(pair)
        return learned

    return train


def best(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


first_counted = training(lambda counts: max(counts, key=counts.get))
last_counted = training(
    lambda counts: max(enumerate(counts), key=lambda item: (counts[item[1]], item[0]))[1]
)
largest_pair = training(lambda counts: max(counts, key=lambda pair: (counts[pair], pair)))
second_id_alone = training(lambda counts: min(counts, key=lambda p: (-counts[p], p[1])))
never_merged = training(best, apply=False)
from_257 = training(best, first=257)


def goes_on_for_ever(words, merges):
    spelled = [(list(word), frequency) for word, frequency in words.items()]
    learned = []
    for i in range(merges):
        pair = best(lab.count_pairs(spelled))
        spelled = [(lab.merge(ids, pair, 256 + i), n) for ids, n in spelled]
        learned.append(pair)
    return learned


def bytes_alone(word, _merge_ids):
    return list(word)


def leftmost_first(word, merge_ids):
    ids = list(word)
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) in merge_ids:
            ids[i : i + 2] = [merge_ids[ids[i], ids[i + 1]]]
            i = 0
        else:
            i += 1
    return ids


def latest_first(word, merge_ids):
    ids = list(word)
    while known := [pair for pair in pairwise(ids) if pair in merge_ids]:
        pair = max(known, key=merge_ids.get)
        ids = lab.merge(ids, pair, merge_ids[pair])
    return ids


def single_merge(word, merge_ids):
    ids = list(word)
    known = [pair for pair in pairwise(ids) if pair in merge_ids]
    if known:
        pair = min(known, key=merge_ids.get)
        ids = lab.merge(ids, pair, merge_ids[pair])
    return ids


def longest_token(word, merge_ids):
    tokens = lab.vocabulary([])
    ids_of = {bytes([byte]): byte for byte in range(256)}
    for (a, b), new in sorted(merge_ids.items(), key=lambda item: item[1]):
        tokens = [*tokens, tokens[a] + tokens[b]]
        ids_of[tokens[-1]] = new
    ids = []
    while word:
        size = next(n for n in range(len(word), 0, -1) if word[:n] in ids_of)
        ids.append(ids_of[word[:size]])
        word = word[size:]
    return ids


def one_by_one(ids, tokens):
    return "".join(tokens[i].decode("utf-8", errors="replace") for i in ids)


def strict(ids, tokens):
    return b"".join(tokens[i] for i in ids).decode()


def ignoring(ids, tokens):
    return b"".join(tokens[i] for i in ids).decode("utf-8", errors="ignore")


def still_bytes(ids, tokens):
    return b"".join(tokens[i] for i in ids)


def latin(ids, tokens):
    return b"".join(tokens[i] for i in ids).decode("latin-1")


def escaping(ids, tokens):
    return b"".join(tokens[i] for i in ids).decode("utf-8", errors="backslashreplace")


def never_none(text, allowed):
    names = sorted(allowed, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", text)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]


def not_escaped(text, allowed):
    if not allowed:
        return [(text, False)] if text else []
    pieces = re.split("(" + "|".join(sorted(allowed, key=len, reverse=True)) + ")", text)
    return [(piece, piece in allowed) for piece in pieces if piece]


def names_lost(text, allowed):
    if not allowed:
        return [(text, False)] if text else []
    pieces = re.split("|".join(map(re.escape, sorted(allowed, key=len, reverse=True))), text)
    return [(piece, False) for piece in pieces if piece]


def short_names_first(text, allowed):
    if not allowed:
        return [(text, False)] if text else []
    pieces = re.split("(" + "|".join(map(re.escape, sorted(allowed, key=len))) + ")", text)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]


def empty_pieces(text, allowed):
    if not allowed:
        return [(text, False)] if text else []
    names = sorted(allowed, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", text)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces)]


def anything_in_angles(text, _allowed):
    pieces = re.split(r"(<\|[^|]*\|>)", text)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]


def inverted_mask(rows, pad, side="right", limit=None):
    ids, mask = lab.pad_batch(rows, pad, side, limit)
    return ids, [[1 - bit for bit in row] for row in mask]


def side_ignored(rows, pad, _side="right", limit=None):
    return lab.pad_batch(rows, pad, limit=limit)


def mask_of_the_ids(rows, pad, side="right", limit=None):
    ids, _ = lab.pad_batch(rows, pad, side, limit)
    return ids, [[int(i != pad) for i in row] for row in ids]


def mask_on_the_right(rows, pad, side="right", limit=None):
    ids, _ = lab.pad_batch(rows, pad, side, limit)
    return ids, lab.pad_batch(rows, pad, limit=limit)[1]


def padded_with_zero(rows, _pad, side="right", limit=None):
    return lab.pad_batch(rows, 0, side, limit)


def limit_ignored(rows, pad, side="right", limit=None):
    del limit
    return lab.pad_batch(rows, pad, side)


def cut_at_the_beginning(rows, pad, side="right", limit=None):
    return lab.pad_batch([row[-limit:] if limit else row for row in rows], pad, side)


def padded_to_the_limit(rows, pad, side="right", limit=None):
    ids, mask = lab.pad_batch(rows, pad, side, limit)
    if limit and ids:
        missing = limit - len(ids[0])
        ids = [row + [pad] * missing for row in ids]
        mask = [row + [0] * missing for row in mask]
    return ids, mask


def rows_cut_in_place(rows, pad, side="right", limit=None):
    for row in rows:
        if limit is not None:
            del row[limit:]
    return lab.pad_batch(rows, pad, side)


WRONG = [
    ("merge", one_merge_alone, "only the first occurrence"),
    ("merge", goes_on_after_the_first, "go on after the second"),
    ("merge", stops_before_the_last, "the last id is lost"),
    ("merge", from_the_right, "from left to right"),
    ("merge", in_place, "changed its input"),
    ("merge", either_order, "isn't the pair"),
    ("merge", merges_what_it_made, "must not be merged again"),
    ("merge", lambda *_: None, r"expected a list, got nothing \(None\)"),
    ("train", first_counted, "not the first that was counted"),
    ("train", last_counted, "not the last that was counted"),
    ("train", largest_pair, "not the largest"),
    ("train", second_id_alone, "smallest pair|first id decides"),
    ("train", never_merged, "never merged"),
    ("train", from_257, "first new token has the id 256"),
    ("train", goes_on_for_ever, "every word is a single token"),
    ("encode_word", bytes_alone, "no merge was applied"),
    ("encode_word", leftmost_first, "walk through it"),
    ("encode_word", latest_first, "a later merge came first"),
    ("encode_word", single_merge, "go on until no pair"),
    ("encode_word", longest_token, "take the longest token"),
    ("decode", one_by_one, "join all bytes first, then decode"),
    ("decode", strict, "UnicodeDecodeError"),
    ("decode", ignoring, "not 'ignore'"),
    ("decode", still_bytes, "expected text, got bytes"),
    ("decode", latin, "Latin-1"),
    ("decode", escaping, "not an escape"),
    ("split_specials", never_none, "an empty pattern cuts it up"),
    ("split_specials", not_escaped, "are they escaped"),
    ("split_specials", names_lost, "the names are lost"),
    ("split_specials", short_names_first, "the longer counts"),
    ("split_specials", empty_pieces, "an empty piece"),
    ("split_specials", anything_in_angles, "this is injection"),
    ("pad_batch", inverted_mask, "the mask is inverted"),
    ("pad_batch", side_ignored, "`side` was ignored"),
    ("pad_batch", mask_of_the_ids, "equals `pad` was masked"),
    ("pad_batch", mask_on_the_right, "mask must be padded on the left"),
    ("pad_batch", padded_with_zero, "hard-coded"),
    ("pad_batch", limit_ignored, "`limit` was ignored"),
    ("pad_batch", cut_at_the_beginning, "not its beginning"),
    ("pad_batch", padded_to_the_limit, "not `limit`"),
    ("pad_batch", rows_cut_in_place, "changed its input"),
]
