"""Plausible wrong solutions of LLM04's exercises, each with the message that names its mistake."""

import re

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


def first_counted(counts):
    return max(counts, key=counts.get)


def last_counted(counts):
    return max(reversed(counts), key=counts.get)


def largest_pair(counts):
    return max(counts, key=lambda pair: (counts[pair], pair))


def smallest_of_all(counts):
    return min(counts)


def rarest(counts):
    return min(counts, key=counts.get)


def second_id_alone(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair[1]))


def ids_as_text(counts):
    return min(counts, key=lambda pair: (-counts[pair], str(pair)))


def the_count_too(counts):
    return max((count, pair) for pair, count in counts.items())


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


def first_alone(first, second, room):
    return first[: max(room - len(second), 0)], second


def half_each(first, second, room):
    if len(first) + len(second) <= room:
        return first, second
    return first[: room // 2], second[: room // 2]


def ties_cut_the_first(first, second, room):
    a = len(first)
    b = len(second)
    while a + b > room:
        if a >= b:
            a -= 1
        else:
            b -= 1
    return first[:a], second[:b]


def cut_in_place(first, second, room):
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


def from_the_beginning(first, second, room):
    a, b = lab.truncate_pair(first, second, room)
    return first[len(first) - len(a) :], second[len(second) - len(b) :]


def both_equally(first, second, room):
    a = len(first)
    b = len(second)
    while a + b > max(room, 0):
        a -= 1
        b -= 1
    return first[: max(a, 0)], second[: max(b, 0)]


def chunk_by_chunk(encode, chunks):
    for chunk in chunks:
        yield from encode(chunk.decode("utf-8", "surrogateescape"))


def each_chunk_decoded(encode, chunks):
    held = ""
    for chunk in chunks:
        *ready, held = lab.STRETCH.findall(held + chunk.decode("utf-8", "replace")) or [""]
        yield from encode("".join(ready))
    yield from encode(held)


def decoded_strictly(encode, chunks):
    held = ""
    for chunk in chunks:
        *ready, held = lab.STRETCH.findall(held + chunk.decode()) or [""]
        yield from encode("".join(ready))
    yield from encode(held)


def rest_forgotten(encode, chunks):
    decoder = lab.codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held = ""
    for chunk in chunks:
        *ready, held = lab.STRETCH.findall(held + decoder.decode(chunk)) or [""]
        yield from encode("".join(ready))


def all_at_once(encode, chunks):
    yield from encode(b"".join(chunks).decode("utf-8", "surrogateescape"))


def a_list(encode, chunks):
    return list(lab.encode_stream(encode, chunks))


WRONG = [
    ("merge", one_merge_alone, "only the first occurrence"),
    ("merge", goes_on_after_the_first, "go on after the second"),
    ("merge", stops_before_the_last, "the last id is lost"),
    ("merge", from_the_right, "from left to right"),
    ("merge", in_place, "changed its input"),
    ("merge", either_order, "isn't the pair"),
    ("merge", merges_what_it_made, "must not be merged again"),
    ("merge", lambda *_: None, r"expected a list, got nothing \(None\)"),
    ("best_pair", first_counted, "not the first that was counted"),
    ("best_pair", last_counted, "not the last that was counted"),
    ("best_pair", largest_pair, "not the largest"),
    ("best_pair", smallest_of_all, "got the smallest of all"),
    ("best_pair", rarest, "got the rarest"),
    ("best_pair", second_id_alone, "or is only the second compared"),
    ("best_pair", ids_as_text, "ids are numbers"),
    ("best_pair", the_count_too, r"expected \(4, 2\), got"),
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
    ("encode_stream", chunk_by_chunk, "a stretch was cut in two"),
    ("encode_stream", each_chunk_decoded, "a character was cut in two"),
    ("encode_stream", decoded_strictly, "may end inside a character"),
    ("encode_stream", rest_forgotten, "encode the rest, too"),
    ("encode_stream", all_at_once, "before the first id came"),
    ("encode_stream", a_list, "yield each id as it is known"),
    ("truncate_pair", first_alone, "only the first was cut"),
    ("truncate_pair", half_each, "wastes one place"),
    ("truncate_pair", ties_cut_the_first, "the second is cut, not the first"),
    ("truncate_pair", cut_in_place, "changed its input"),
    ("truncate_pair", from_the_beginning, "not at the beginning"),
    ("truncate_pair", both_equally, "the same number was cut from both"),
]
