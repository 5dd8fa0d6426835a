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


def without_ends(texts, width, end):
    joined = [i for text in texts for i in text]
    rows = [joined[start : start + width] for start in range(0, len(joined), width)]
    return [row + [end] * (width - len(row)) for row in rows]


def end_before(texts, width, end):
    joined = [i for text in texts for i in (end, *text)]
    rows = [joined[start : start + width] for start in range(0, len(joined), width)]
    return [row + [end] * (width - len(row)) for row in rows]


def last_row_lost(texts, width, end):
    joined = [i for text in texts for i in (*text, end)]
    count = len(joined) // width
    return [joined[i * width : (i + 1) * width] for i in range(count)]


def last_row_short(texts, width, end):
    joined = [i for text in texts for i in (*text, end)]
    return [joined[start : start + width] for start in range(0, len(joined), width)]


def a_row_each(texts, width, end):
    return [([*text, end] + [end] * width)[:width] for text in texts]


WRONG = [
    ("encode_stream", chunk_by_chunk, "a stretch was cut in two"),
    ("encode_stream", each_chunk_decoded, "a character was cut in two"),
    ("encode_stream", decoded_strictly, "may end inside a character"),
    ("encode_stream", rest_forgotten, "encode the rest, too"),
    ("encode_stream", all_at_once, "before the first id came"),
    ("encode_stream", a_list, "yield each id as it is known"),
    ("encode_stream", text_instead_of_bytes, "takes bytes"),
    ("pack", without_ends, "end id after each text is missing"),
    ("pack", end_before, "it belongs behind"),
    ("pack", last_row_lost, "last, short row is lost|end id after the last"),
    ("pack", last_row_short, "last row must be filled"),
    ("pack", a_row_each, "rows of its own"),
]
