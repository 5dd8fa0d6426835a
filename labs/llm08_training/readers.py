"""Read the rows of a JSONL, CSV or Parquet file, a folder of them, or a hub set, one at a time.

Each row comes with its place, such as "line 7". A row that can't be read is a BadRow.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labs.course.cards import VISIBLE_FOLDERS, WRONG_USAGE, Card

Records = Iterator[tuple[str, Any]]  # place and row
COLUMNS = ("messages", "prompt", "completion", "instruction", "input", "output")
ROWS_AT_ONCE = 2000  # of a Parquet file


class BadRow(ValueError):
    """A row that isn't a conversation; the message says why."""


def sources(name: str, online: bool) -> list[tuple[str, Callable[[], Records]]]:
    """Return the name of each file, or of the hub's set, with a function that reads its rows.

    Raises:
        Card: if there is none; the function raises one for a set that the hub doesn't have.
    """
    path = Path(name)
    if path.is_dir():
        below = (file for file in path.rglob("*") if file.is_file())
        files = sorted(file for file in below if file.suffix.lower() in _READERS)
        if not files:
            why = f"It has no file that ends in {', '.join(_READERS)}."
            raise Card(f"The folder {name} has no data.", why, "another folder", WRONG_USAGE)
        return [(str(file), _reader(file)) for file in files]
    if path.is_file():
        return [(name, _reader(path))]
    if path.suffix.lower() in _READERS or name.startswith((".", "/")):
        fix = f"put it into work/: work/{path.name}"
        raise Card(f"There is no {name}.", VISIBLE_FOLDERS, fix, WRONG_USAGE)
    if not online:
        raise Card(
            f"There is no file or folder {name}, and the hub is off.",
            "Labs use the network only with --online.",
            f"add --online; or leave out --dataset {name}, for the embedded data",
            WRONG_USAGE,
        )
    return [(name, lambda: _of_hub(name))]


def _reader(file: Path) -> Callable[[], Records]:
    read = _READERS.get(file.suffix.lower())
    if read is None:
        why = f"Supported are {', '.join(_READERS)}."
        raise Card(f"{file} has an unknown format.", why, "another file", WRONG_USAGE)
    if not os.access(file, os.R_OK):
        why = "You have no permission to read it."
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
    # invalid UTF-8 becomes lone surrogates, which messages_of refuses, row by row
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        columns = next(reader, list[str]())
        while True:
            where = f"line {reader.line_num + 1}"  # its first line; a row may have several
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
                yield where, BadRow(f"it has {len(row)} fields for {len(columns)} columns")


def _of_parquet(file: Path) -> Records:
    import pyarrow.parquet
    from pyarrow import ArrowException

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            columns = [name for name in table.schema_arrow.names if name in COLUMNS] or None
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
                for row in _of_batch(batch):
                    number += 1
                    yield f"row {number}", row
    except ArrowException as error:
        yield f"row {number + 1}", BadRow(f"it can't be read: {error}")


def _of_batch(batch: Any) -> Iterator[Any]:
    """Yield the rows of a batch; one by one if a text isn't UTF-8, so that only its row is bad."""
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
