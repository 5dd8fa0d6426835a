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


def first_alone(first, second, room):
    return first[: max(room - len(second), 0)], second


def half_each(first, second, room):
    if len(first) + len(second) <= room:
        return first, second
    return first[: room // 2], second[: room // 2]


def odd_place_to_the_shorter(first, second, room):
    a = len(first)
    b = len(second)
    while a + b > room:
        if a >= b:
            a -= 1
        else:
            b -= 1
    return first[:a], second[:b]


def odd_place_to_the_first(first, second, room):
    a = len(first)
    b = len(second)
    while a + b > room:
        if a > b:
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


WRONG = [
    ("encode_stream", chunk_by_chunk, "a stretch was cut in two"),
    ("encode_stream", each_chunk_decoded, "a character was cut in two"),
    ("encode_stream", decoded_strictly, "may end inside a character"),
    ("encode_stream", rest_forgotten, "encode the rest, too"),
    ("encode_stream", all_at_once, "before the first id came"),
    ("encode_stream", a_list, "yield each id as it is known"),
    ("encode_stream", text_instead_of_bytes, "takes bytes"),
    ("truncate_pair", first_alone, "only the first was cut"),
    ("truncate_pair", half_each, "wastes one place"),
    ("truncate_pair", odd_place_to_the_shorter, "belongs to the longer one"),
    ("truncate_pair", odd_place_to_the_first, "belongs to the longer one, here the second"),
    ("truncate_pair", cut_in_place, "changed its input"),
    ("truncate_pair", from_the_beginning, "not at the beginning"),
    ("truncate_pair", both_equally, "the same number was cut from both"),
]
