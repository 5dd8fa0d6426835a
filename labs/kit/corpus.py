"""Anyone's text, opened so that a gigabyte of it needs no memory."""

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labs.kit.cards import WHAT_IS_SEEN, WRONG_USAGE, Card

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 2**22  # bytes that are looked at together
LEAST = 10_000  # bytes: of less, a tenth is too little to be judged by


@dataclass(frozen=True)
class TextFile:
    """A file of UTF-8: its bytes (N,), uint8, mapped from the disk, and their SHA-256."""

    data: "np.ndarray[tuple[int], np.dtype[np.uint8]]"
    sha256: str


def text_file(path: Path) -> TextFile:
    """Open a text of at least LEAST bytes.

    Raises:
        Card: where there is no such file, or it is empty, too short, or no text in UTF-8.
    """
    import numpy as np

    if not path.is_file():
        why = f"There is no file of that name. {WHAT_IS_SEEN}"
        raise _refused(path, why, f"put it into work/: work/{path.name}")
    size = path.stat().st_size
    if size < LEAST:
        why = (
            f"It has {size:,} bytes, and at least {LEAST:,} are needed." if size else "It's empty."
        )
        raise _refused(path, why, "a longer text")
    try:
        digest = _look_through(path)
    except OSError as error:
        raise _refused(path, f"{error.strerror}.", f"ls -l {path}") from error
    return TextFile(np.memmap(path, dtype=np.uint8, mode="r"), digest)  # pyright: ignore[reportArgumentType]


def _look_through(path: Path) -> str:
    """The SHA-256 of a file all of which is text."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    done = 0
    for chunk in chunks(path):
        where = chunk.find(0)
        if where >= 0:
            why = f"Byte {done + where:,} is 0, which no text has: is it a binary file?"
            raise _refused(path, why, "a plain text")
        try:
            decoder.decode(chunk, final=False)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, done + error.start) from error
        digest.update(chunk)
        done += len(chunk)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, done) from error
    return digest.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, some megabytes at a time."""
    with path.open("rb") as file:
        while chunk := file.read(AT_ONCE):
            yield chunk


def _not_utf8(path: Path, where: int) -> Card:
    why = f"Near byte {where:,} it isn't UTF-8."
    return _refused(path, why, f"iconv -f latin1 -t utf-8 {path} > outputs/text.txt, if that it is")


def _refused(path: Path, why: str, mend: str) -> Card:
    return Card(f"{path} can't be the corpus.", why, mend, WRONG_USAGE)
