"""Check the exercises of LLM04+.

References: results written out here, and Python's codecs for streams of bytes.
"""

from collections.abc import Iterator
from typing import Any

from labs.kit import Mistake
from labs.llm04_tokenization.comparing import Function, call, expect, type_of


def _toy(data: bytes) -> list[int]:
    """Return one id for each stretch, its length and checksum, which shows where it begins."""
    import regex

    if not isinstance(data, bytes):
        raise Mistake(f"`encode` takes bytes, but it got {type_of(data)}")
    text = data.decode("utf-8", "surrogateescape")
    encoded = [
        stretch.encode("utf-8", "surrogateescape") for stretch in regex.findall(r"\s*\S+|\s+", text)
    ]
    return [1000 * len(data) + sum(data) for data in encoded]


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
        raise Mistake(f"expected an iterator, got {type_of(got)}: yield each id as it is known")
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
    expect(call(implementation, a, b, 8), cut(4, 4), "the longer is cut first", known)
    known = {
        "the odd place belongs to the longer one, here the first": cut(4, 5),
        "half of the room for each wastes one place of nine": cut(4, 4),
        "cut the ends, not the beginnings": (a[-5:], b[-4:]),
    }
    expect(call(implementation, a, b, 9), cut(5, 4), "the odd place goes to the longer", known)
    known = {
        "the shorter one has room to spare: cut only the longer": cut(7, 7),
        "cut both only where both are too long: here cut the first alone": cut(7, 6),
    }
    expect(call(implementation, a, b, 14), cut(8, 6), "only the longer is cut", known)
    known = {"the odd place belongs to the longer one, here the second": (b[:5], a[:4])}
    got = call(implementation, b, a, 9)
    expect(got, (b[:4], a[:5]), "the same with the longer one second", known)
    known = {"of two equally long ones the second gets the odd place": (a[:5], a[:4])}
    expect(call(implementation, a, a, 9), (a[:4], a[:5]), "of equal ones the second", known)
    known = {"texts that fit must stay as they are": cut(8, 6)}
    expect(call(implementation, a, b, 16), cut(10, 6), "both fit: cut nothing", known)
    expect(call(implementation, a, b, 100), cut(10, 6), "both fit: cut nothing")
    expect(call(implementation, a, b, 1), cut(1, 0), "room for one token: the longer's")
    expect(call(implementation, a, b, 0), cut(0, 0), "no room, no tokens")
    expect(call(implementation, a, [], 3), (a[:3], []), "an empty second")
    expect(call(implementation, [], a, 3), ([], a[:3]), "an empty first")
