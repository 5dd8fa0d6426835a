"""Plausible wrong solutions of LLM04+'s exercises, each with the message that names its mistake."""

import codecs

from labs.llm04_tokenization import deeper as lab


def raw(text):
    return text.encode("utf-8", "surrogateescape")


def chunk_by_chunk(encode, chunks):
    for chunk in chunks:
        yield from encode(chunk)


def each_chunk_decoded(encode, chunks):
    held = ""
    for chunk in chunks:
        *ready, held = lab.GPT2.stretch.findall(held + chunk.decode("utf-8", "replace")) or [""]
        yield from encode(raw("".join(ready)))
    yield from encode(raw(held))


def decoded_strictly(encode, chunks):
    held = ""
    for chunk in chunks:
        *ready, held = lab.GPT2.stretch.findall(held + chunk.decode()) or [""]
        yield from encode(raw("".join(ready)))
    yield from encode(raw(held))


def rest_forgotten(encode, chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held = ""
    for chunk in chunks:
        *ready, held = lab.GPT2.stretch.findall(held + decoder.decode(chunk)) or [""]
        yield from encode(raw("".join(ready)))


def all_at_once(encode, chunks):
    yield from encode(b"".join(chunks))


def a_list(encode, chunks):
    return list(lab.encode_stream(encode, chunks))


def text_instead_of_bytes(encode, chunks):
    yield from lab.encode_stream(lambda data: encode(data.decode()), chunks)


def encoded_twice(encode, chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held = ""
    for chunk in chunks:
        held += decoder.decode(chunk)
        *ready, _ = lab.GPT2.stretch.findall(held) or [""]
        yield from encode(raw("".join(ready)))
    yield from encode(raw(held + decoder.decode(b"", final=True)))


def one_id_then_all(encode, chunks):
    ids = lab.encode_stream(encode, chunks)
    for first in ids:
        yield first
        yield from list(ids)


def split_ignored(encode, chunks, split=None):
    del split
    yield from lab.encode_stream(encode, chunks)


def two_held_back(encode, chunks, split=lab.GPT2):
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held = ""
    for chunk in chunks:
        *ready, a, b = ["", "", *split.stretch.findall(held + decoder.decode(chunk))]
        held = a + b
        yield from encode(raw("".join(ready)))
    yield from encode(raw(held + decoder.decode(b"", final=True)))


def longest_first(word, log_p):
    tokens = []
    while word:
        size = next(n for n in range(len(word), 0, -1) if word[:n] in log_p)
        tokens.append(word[:size])
        word = word[size:]
    return tokens


def likeliest_next(word, log_p):
    tokens = []
    while word:
        starts = [word[:n] for n in range(1, len(word) + 1) if word[:n] in log_p]
        tokens.append(max(starts, key=log_p.__getitem__))
        word = word[len(tokens[-1]) :]
    return tokens


def fewest_tokens(word, log_p):
    return lab.best_cut(word, {token: p - 100 for token, p in log_p.items()})


def least_probable(word, log_p):
    return lab.best_cut(word, {token: -p for token, p in log_p.items()})


def in_reverse(word, log_p):
    return lab.best_cut(word, log_p)[::-1]


def all_cuts(word, log_p):
    def cuts(rest):
        if not rest:
            return [(0.0, [])]
        return [
            (log_p[rest[:n]] + score, [rest[:n], *tokens])
            for n in range(1, len(rest) + 1)
            if rest[:n] in log_p
            for score, tokens in cuts(rest[n:])
        ]

    return max(cuts(word))[1]


def half_for_each(first, second, room):
    return first[: room // 2], second[: room - room // 2]


def end_of_both(first, second, room):
    return first[:room], second[: max(0, room - len(first))]


def beginnings_cut(first, second, room):
    a, b = lab.truncate_pair(first, second, room)
    return first[len(first) - len(a) :], second[len(second) - len(b) :]


def first_is_longer(first, second, room):
    shorter = min(len(second), room // 2)
    return first[: room - shorter], second[:shorter]


def odd_place_to_the_second(first, second, room):
    shorter = min(len(first), len(second), room // 2)
    if len(first) > len(second) and shorter < room // 2:
        return first[: room - shorter], second[:shorter]
    return first[:shorter], second[: room - shorter]


def word_unchanged(word, pair, new):
    return word, *lab.merge_word(word, pair, new)[1:]


def one_place_alone(word, pair, new):
    left, found, right = word.partition(pair)
    if not found:
        return word, [], []
    merged, lost, gained = lab.merge_word(left + pair + right.replace(pair, "??"), pair, new)
    back = [two for two in lost if "?" not in two]
    if right.startswith(pair):
        back.append(pair[1] + pair[0])
        gained = [two for two in gained if "?" not in two] + [new + pair[0]]
    return merged.replace("??", pair), back, gained


def shared_pair_twice(word, pair, new):
    merged, lost, gained = lab.merge_word(word, pair, new)
    return (
        merged,
        lost + [pair[::-1]] * gained.count(new * 2),
        gained + [new * 2] * gained.count(new * 2),
    )


def old_left_neighbour(word, pair, new):
    merged, lost, gained = lab.merge_word(word, pair, new)
    return merged, lost, [pair[1] + new if two == new * 2 else two for two in gained]


def left_side_alone(word, pair, new):
    merged, lost, gained = lab.merge_word(word, pair, new)
    return merged, [t for t in lost if t[1] == pair[0]], [t for t in gained if t[1] == new]


def from_the_right(word, pair, new):
    merged, lost, gained = lab.merge_word(word[::-1], pair[::-1], new)
    return merged[::-1], [two[::-1] for two in lost], [two[::-1] for two in gained]


def pairs_of_ids(word, pair, new):
    merged, lost, gained = lab.merge_word(word, pair, new)
    return merged, [(ord(a), ord(b)) for a, b in lost], [(ord(a), ord(b)) for a, b in gained]


WRONG = [
    ("merge_word", word_unchanged, "the word is unchanged"),
    ("merge_word", one_place_alone, "only the first place"),
    ("merge_word", shared_pair_twice, "counted at both"),
    ("merge_word", old_left_neighbour, "is merged, too"),
    ("merge_word", left_side_alone, "the pair to the right is missing"),
    ("merge_word", from_the_right, "from left to right"),
    ("merge_word", pairs_of_ids, "a string of two characters"),
    ("encode_stream", chunk_by_chunk, "a stretch was cut in two"),
    ("encode_stream", each_chunk_decoded, "a character was cut in two"),
    ("encode_stream", decoded_strictly, "may end inside a character"),
    ("encode_stream", rest_forgotten, "encode the rest, too"),
    ("encode_stream", encoded_twice, "text was encoded twice"),
    ("encode_stream", all_at_once, "before id 1 came"),
    ("encode_stream", one_id_then_all, "before id 2 came"),
    ("encode_stream", a_list, "yield each id as it is known"),
    ("encode_stream", text_instead_of_bytes, "takes bytes"),
    ("encode_stream", split_ignored, "the split pattern is an argument"),
    ("encode_stream", two_held_back, "2 chunks of `word ` were read"),
    ("best_cut", longest_first, "the longest token"),
    ("best_cut", likeliest_next, "the most probable next token"),
    ("best_cut", fewest_tokens, "the fewest tokens"),
    ("best_cut", least_probable, "the least probable cut"),
    ("best_cut", in_reverse, "in reverse order"),
    ("best_cut", all_cuts, "over 2,000 look-ups"),
    ("truncate_pair", half_for_each, "each text got half of the room"),
    ("truncate_pair", end_of_both, "the second text was cut"),
    ("truncate_pair", beginnings_cut, "not its beginning"),
    ("truncate_pair", first_is_longer, "if the shorter one fits"),
    ("truncate_pair", odd_place_to_the_second, "odd place goes to the longer"),
]
