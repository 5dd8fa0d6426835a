"""Open a text file of any size; its bytes are mapped from the disk, not read into memory."""

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.cards import VISIBLE_FOLDERS, WRONG_USAGE, Card
from common.options import Settings

if TYPE_CHECKING:
    import numpy as np

CHUNK = 2**22  # bytes
MIN_BYTES = 10_000  # 10 % of a shorter text is too little to validate on


@dataclass(frozen=True)
class TextFile:
    """The bytes (N,) of a UTF-8 file, uint8, mapped from the disk, and their SHA-256."""

    data: "np.ndarray[tuple[int], np.dtype[np.uint8]]"
    sha256: str


def check_corpus(settings: Settings) -> None:
    """Check that the text of --corpus can be opened, before the lab starts.

    Raises:
        Card: if it can't.
    """
    if settings.own.corpus is not None:
        text_file(settings.own.corpus)


def text_file(path: Path) -> TextFile:
    """Open a text of at least MIN_BYTES bytes.

    Raises:
        Card: if the file is missing, too short, or not text in UTF-8.
    """
    import numpy as np

    if path.is_dir():
        raise _refused(path, "It is a folder.", f"one text file: {path / 'text.txt'}")
    if not path.is_file():
        why = f"There is no file of that name. {VISIBLE_FOLDERS}"
        raise _refused(path, why, f"put it into work/: work/{path.name}")
    size = path.stat().st_size
    if size < MIN_BYTES:
        why = f"It has {size:,} bytes, and at least {MIN_BYTES:,} are needed."
        raise _refused(path, why if size else "It is empty.", "a longer text")
    try:
        digest = _hash_of_text(path)
    except OSError as error:
        raise _refused(path, f"{error.strerror}.", f"ls -l {path}") from error
    return TextFile(np.memmap(path, dtype=np.uint8, mode="r"), digest)  # pyright: ignore[reportArgumentType]


def _hash_of_text(path: Path) -> str:
    """Return the SHA-256 of a file, and check that it is text."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    for chunk in chunks(path):
        if not done and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            fix = f"iconv -f utf-16 -t utf-8 {path} > outputs/text.txt"
            raise _refused(path, "It begins with the mark of UTF-16.", fix)
        where = chunk.find(0)
        if where >= 0:
            why = f"Byte {done + where:,} is 0, which text never has: is it a binary file?"
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
    """Yield the file's bytes, 4 MiB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _not_utf8(path: Path, where: int) -> Card:
    why = f"It is not UTF-8 near byte {where:,}."
    fix = f"if it is Latin-1: iconv -f latin1 -t utf-8 {path} > outputs/text.txt"
    return _refused(path, why, fix)


def _refused(path: Path, why: str, fix: str) -> Card:
    return Card(f"{path} can't be used as the corpus.", why, fix, WRONG_USAGE)
