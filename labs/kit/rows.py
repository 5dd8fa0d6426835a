"""Rows of a JSONL, CSV or Parquet file, of a folder of them, or of a set on the hub, one at a time.

Each comes with its place, such as "line 7"; in the place of one that can't be read stands why.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labs.kit.cards import WHAT_IS_SEEN, WRONG_USAGE, Card

Records = Iterator[tuple[str, Any]]  # where, such as "line 7"; and the row, or why there is none
COLUMNS = ("messages", "prompt", "completion", "instruction", "input", "output")
ROWS_AT_ONCE = 2000  # of a Parquet file


class BadRow(ValueError):
    """A row that is no conversation; the message says why."""


def sources(name: str, online: bool) -> list[tuple[str, Callable[[], Records]]]:
    """Each file, or the hub's set: what to call it, and what reads its rows.

    Raises:
        Card: where there is none; while a set is read that the hub doesn't give.
    """
    path = Path(name)
    if path.is_dir():
        files = sorted(
            one for one in path.rglob("*") if one.suffix.lower() in _READERS and one.is_file()
        )
        if not files:
            why = f"It has no file that ends in {', '.join(_READERS)}."
            raise Card(f"The folder {name} holds no data.", why, "another folder", WRONG_USAGE)
        return [(str(file), _reader(file)) for file in files]
    if path.is_file():
        return [(name, _reader(path))]
    if path.suffix.lower() in _READERS or name.startswith((".", "/")):
        mend = f"put it into work/: work/{path.name}"
        raise Card(f"There is no {name}.", WHAT_IS_SEEN, mend, WRONG_USAGE)
    if not online:
        raise Card(
            f"{name} is no file or folder here, and the hub wasn't asked for.",
            "Labs stay off the network unless --online is given.",
            f"the same command with --online, or without --dataset {name} for the embedded set",
            WRONG_USAGE,
        )
    return [(name, lambda: _of_hub(name))]


def _reader(file: Path) -> Callable[[], Records]:
    read = _READERS.get(file.suffix.lower())
    if read is None:
        why = f"It is read by how its name ends: {', '.join(_READERS)}."
        raise Card(f"{file} is of no known kind.", why, "another file", WRONG_USAGE)
    if not os.access(file, os.R_OK):
        why = "Its permissions keep you from it."
        raise Card(f"{file} can't be read.", why, f"chmod a+r {file}", WRONG_USAGE)
    return lambda: read(file)


def _of_jsonl(file: Path) -> Records:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line := line.strip().removeprefix(b"\xef\xbb\xbf"):
                    yield f"line {number}", json.loads(line)
            except UnicodeDecodeError:
                yield f"line {number}", BadRow("it isn't valid UTF-8")
            except (ValueError, RecursionError) as error:
                yield f"line {number}", BadRow(f"it isn't JSON: {error}")


def _of_csv(file: Path) -> Records:
    csv.field_size_limit(sys.maxsize)  # else 131,072 characters
    # what isn't UTF-8 comes as lone surrogates, which messages_of refuses, row by row
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        columns = next(reader, list[str]())
        while True:
            where = f"line {reader.line_num + 1}"  # where it begins; it may go on for several
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield where, BadRow(f"it isn't CSV: {error}")
                continue
            if not row:
                continue
            if len(row) == len(columns):
                yield where, dict(zip(columns, row, strict=True))
            else:
                yield where, BadRow(f"{len(row)} fields, and there are {len(columns)} columns")


def _of_parquet(file: Path) -> Records:
    import pyarrow.parquet
    from pyarrow import ArrowException

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            columns = [one for one in table.schema_arrow.names if one in COLUMNS] or None
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
                for row in _of_batch(batch):
                    number += 1
                    yield f"row {number}", row
    except ArrowException as error:
        yield f"row {number + 1}", BadRow(f"it can't be read: {error}")


def _of_batch(batch: Any) -> Iterator[Any]:
    """Its rows; one by one where a text isn't UTF-8, so that only its row is bad."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(len(batch)):
            try:
                (row,) = batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError:
                row = BadRow("it isn't valid UTF-8")
            yield row


_READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": _of_jsonl,
    ".csv": _of_csv,
    ".parquet": _of_parquet,
}


def _of_hub(name: str) -> Records:
    """The set's train split, streamed: nothing is stored here. No code of it is run."""
    from datasets import load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    try:
        stream = load_dataset(name, split="train", streaming=True)
        for number, row in enumerate(stream, 1):
            yield f"row {number}", row
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise Card(
            f"{name} can't be had from the hub.",
            str(error).strip().splitlines()[0],
            f"the same command without --dataset {name}: the embedded set needs no network",
        ) from error
