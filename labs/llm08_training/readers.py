"""Read the rows of a JSONL, CSV or Parquet file, a folder of them, or a hub set, one at a time.

Each row comes with its place, such as "line 7". A row that can't be read is a BadRow. So is a row
that would take too much memory: a file from somebody else may have a line of a gigabyte.
"""

import codecs
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import IO, Any

from common.cards import VISIBLE_FOLDERS, WRONG_USAGE, Card

Records = Iterator[tuple[str, Any]]  # place and row
LARGEST_ROW = 2**23  # bytes; a book has a tenth
TOO_LONG = f"it has more than {LARGEST_ROW / 1e6:.0f} MB"


class BadRow(ValueError):
    """A row that isn't a conversation; the message says why.

    Attributes:
        fix: what to do, if it isn't the row that is to be changed.
    """

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.fix = fix


class NotUtf8(BadRow):
    """A row with bytes that aren't UTF-8."""


def sources(name: str, online: bool) -> list[tuple[str, Callable[[], Records]]]:
    """Return the name of each file, or of the hub's set, with a function that reads its rows.

    Raises:
        Card: if there is no such file, a folder has no data, or the hub is off. The function
            raises a Card for a set that the hub doesn't have.
    """
    path = Path(name)
    if path.is_dir():
        below = (file for file in path.rglob("*") if file.is_file())
        files = sorted(file for file in below if file.suffix.lower() in _READERS)
        if not files:
            why = f"It has no file that ends in {', '.join(_READERS)}."
            raise Card(f"The folder {name} has no data.", why, "another folder", WRONG_USAGE)
        _refuse_links_out(path, files)
        return [(str(file), _reader(file)) for file in files]
    if path.is_file():
        return [(name, _reader(path))]
    if path.suffix.lower() in _READERS or name.startswith((".", "/")):
        raise Card(f"There is no {name}.", *_instead_of(path), WRONG_USAGE)
    if not online:
        raise Card(
            f"There is no file or folder {name}, and the hub is off.",
            "Labs use the network only with --online.",
            f"add --online; or leave out --dataset {name}, for the embedded data",
            WRONG_USAGE,
        )
    return [(name, lambda: _of_hub(name))]


def _instead_of(missing: Path) -> tuple[str, str]:
    """Return why a file isn't there, and what to name instead."""
    if not missing.parent.is_dir() or missing.parent == Path():
        return VISIBLE_FOLDERS, f"put it into work/: work/{missing.name}"
    there = [file.name for file in missing.parent.iterdir() if file.suffix.lower() in _READERS]
    near = get_close_matches(missing.name, there, 1)
    if not near:
        return (
            f"{missing.parent} has no file of a similar name.",
            f"ls {quote(str(missing.parent))}",
        )
    return f"{missing.parent} has {near[0]}.", f"--dataset {quote(str(missing.parent / near[0]))}"


def _refuse_links_out(folder: Path, files: list[Path]) -> None:
    """Check that the files of a folder are in it.

    Raises:
        Card: if one is a link to a file elsewhere: its text would become training data.
    """
    for file in files:
        target = file.resolve()
        if not target.is_relative_to(folder.resolve()):
            what = f"{file} is a link to a file outside of its folder."
            why = f"It leads to {target}."
            raise Card(what, why, f"copy it, or name it: --dataset {target}", WRONG_USAGE)


def _reader(file: Path) -> Callable[[], Records]:
    read = _READERS.get(file.suffix.lower())
    if read is None:
        why = f"Supported are {', '.join(_READERS)}."
        raise Card(f"{file} has an unknown format.", why, "another file", WRONG_USAGE)
    if not os.access(file, os.R_OK):
        why = "You have no permission to read it."
        raise Card(f"{file} can't be read.", why, f"chmod a+r {file}", WRONG_USAGE)
    _refuse_utf16(file)
    return lambda: read(file)


def _refuse_utf16(file: Path) -> None:
    """Check that a file doesn't begin with the byte order mark of UTF-16.

    Raises:
        Card: if it does.
    """
    with file.open("rb") as start:
        mark = start.read(2)
    if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        fix = _conversion(file, "UTF-16")
        raise Card(f"{file} is in UTF-16.", "Rows are read as UTF-8.", fix, WRONG_USAGE)


def _of_jsonl(file: Path) -> Records:
    with file.open("rb") as lines:
        for number, line in enumerate(_bounded(lines), 1):
            try:
                if line is None:
                    raise BadRow(TOO_LONG)
                if line := line.strip().removeprefix(b"\xef\xbb\xbf"):
                    yield f"line {number}", json.loads(line, object_pairs_hook=_unique)
            except UnicodeDecodeError:
                yield f"line {number}", NotUtf8("it isn't valid UTF-8")
            except BadRow as bad:
                yield f"line {number}", bad
            except (ValueError, RecursionError) as error:
                yield f"line {number}", BadRow(f"it isn't JSON: {error}")


def _bounded(file: IO[Any]) -> Iterator[Any]:
    """Yield the lines of a file; None for a line that is too long, which isn't stored."""
    while line := file.readline(LARGEST_ROW):
        if len(line) < LARGEST_ROW:
            yield line
            continue
        while line and line[-1] not in ("\n", 10):  # 10 is the byte of "\n"
            line = file.readline(LARGEST_ROW)
        yield None


def _bounded_first(file: IO[str]) -> str | None:
    """Return the first line of a file; None if it is too long, or if the file is empty."""
    return next(_bounded(file), None)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; JSON itself says nothing about a name that occurs twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow(f"the name {twice!r:.40} occurs twice")
    return row


def _of_csv(file: Path) -> Records:
    csv.field_size_limit(LARGEST_ROW)  # else 131,072 characters
    # invalid UTF-8 becomes lone surrogates, which messages_of refuses, row by row
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        separator = max(",;\t", key=(_bounded_first(text) or "").count)  # a comma if none occurs
        text.seek(0)
        lines = _CsvLines(text)
        reader = csv.reader(lines, delimiter=separator, strict=True)
        columns = next(reader, list[str]())
        if not is_utf8("".join(columns)):
            yield "line 1", NotUtf8("a column's name isn't valid UTF-8")
            return
        while True:
            where = f"line {reader.line_num + 1}"  # its first line; a row may have several
            lines.characters = 0
            try:
                row = next(reader)
            except StopIteration:
                return
            except BadRow as bad:
                yield where, bad
                return  # where the next row starts is unknown
            except csv.Error as error:
                yield where, BadRow(f"it isn't CSV: {error}")
                continue
            if not row:
                continue
            if len(row) == len(columns):
                yield where, dict(zip(columns, row, strict=True))
            else:
                yield where, BadRow(f"it has {len(row)} fields for {len(columns)} columns")


class _CsvLines:
    """The lines of a CSV file, until a row takes too many.

    Attributes:
        characters: the number of characters of the current row.
    """

    def __init__(self, text: IO[str]) -> None:
        self._lines = _bounded(text)
        self.characters = 0

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line: str | None = next(self._lines)
        self.characters += LARGEST_ROW if line is None else len(line)
        if line is None or self.characters >= LARGEST_ROW:
            raise BadRow(TOO_LONG)
        return line


def _of_parquet(file: Path) -> Records:
    """Yield the rows that another process reads: a small file can unpack to any size."""
    command = [sys.executable, "-m", "labs.llm08_training.parquet_rows", str(file)]
    # mimalloc, pyarrow's usual allocator, may take all that the process is allowed when it starts
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        number = 0
        try:
            for number, line in enumerate(_bounded(process.stdout), 1):
                where = f"row {number}"
                answer = {"bad": TOO_LONG} if line is None else json.loads(line)
                yield where, BadRow(answer["bad"]) if "bad" in answer else answer["row"]
            if process.wait() != 0:
                yield f"row {number + 1}", BadRow(f"its reader ended with {process.returncode}")
        finally:
            process.kill()


_READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": _of_jsonl,
    ".csv": _of_csv,
    ".parquet": _of_parquet,
}


def is_utf8(text: str) -> bool:
    """Return whether a text has no byte that wasn't UTF-8 when it was read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_utf8(file: str, problem: str) -> Card:
    """Return the card for a file with a row that isn't UTF-8, with the command that converts it."""
    what = f"{file} isn't in UTF-8."
    why = (
        f"{problem}. Spreadsheets on Windows often save WINDOWS-1252; there, choose “CSV UTF-8”. "
        "If only this row is damaged, add --bad-rows skip."
    )
    return Card(what, why, _conversion(Path(file), "WINDOWS-1252"), WRONG_USAGE)


def _conversion(file: Path, encoding: str) -> str:
    """Return the command that writes a copy of a file in UTF-8."""
    new = file.with_name(f"utf8-{file.name}")
    return f"iconv -f {encoding} -t UTF-8 {quote(str(file))} > {quote(str(new))}"


def _of_hub(name: str) -> Records:
    """Yield the rows of the set's train split, streamed. Its own code isn't run."""
    from datasets import load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    try:
        stream = load_dataset(name, split="train", streaming=True)
        for number, row in enumerate(stream, 1):
            yield f"row {number}", row
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise Card(
            f"{name} can't be downloaded from the hub.",
            str(error).strip().splitlines()[0],
            f"leave out --dataset {name}: the embedded data needs no network",
        ) from error
