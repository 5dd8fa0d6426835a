"""Conversations out of whatever instruction data people have, one row at a time.

A JSONL, CSV or Parquet file, a folder of such files, or a set on the Hugging Face hub; nothing but
the row at hand (of Parquet: some thousand rows) is in memory. A bad row is told with its file and
line, and stops the reading or is skipped.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labs.kit.cards import WRONG_USAGE, Card

if TYPE_CHECKING:
    from labs.kit.run import Run

Message = dict[str, str]
Row = Mapping[str, Any]
Records = Iterator[tuple[str, Any]]  # where, such as "line 7"; and the row, or why there is none
ROLES = ("system", "user", "assistant")
SHAPES = "messages; prompt and completion; or instruction, output and perhaps input"
COLUMNS = ("messages", "prompt", "completion", "instruction", "input", "output")
TOLD = 10  # bad rows that are kept to be told; all are counted
ROWS_AT_ONCE = 2000  # of a Parquet file


class BadRow(ValueError):
    """A row that is no conversation; the message says why."""


def messages_of(row: Any) -> list[Message]:
    """A row in any of the three shapes -> its messages, each with `role` and `content`.

    Raises:
        BadRow: for any other shape, for text that isn't text, where the assistant says nothing.
    """
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, Mapping):
        raise BadRow(f"an object with names was expected, a {type(row).__name__} came")
    messages = _messages(cast(Row, row))
    if not any(one["role"] == "assistant" and one["content"] for one in messages):
        raise BadRow("the assistant says nothing: there is nothing to learn from it")
    return messages


def _messages(row: Row) -> list[Message]:
    if row.get("messages") is not None:
        return _turns("messages", row["messages"])
    if "prompt" in row and "completion" in row:
        asked, answered = row["prompt"], row["completion"]
        if isinstance(asked, list) and isinstance(answered, list):
            return _turns("prompt", asked) + _turns("completion", answered)
        return [_said("user", "prompt", asked), _said("assistant", "completion", answered)]
    if "instruction" in row and "output" in row:
        asked = _said("user", "instruction", row["instruction"])
        if row.get("input"):
            asked["content"] += "\n\n" + _said("user", "input", row["input"])["content"]
        return [asked, _said("assistant", "output", row["output"])]
    raise BadRow(f"it has {', '.join(map(str, row)) or 'nothing'}; wanted: {SHAPES}")


def _turns(name: str, turns: Any) -> list[Message]:
    if isinstance(turns, str):  # in a CSV file there is no other way to write them
        try:
            turns = json.loads(turns)
        except ValueError:
            raise BadRow(f"{name} is text, and not JSON") from None
    if not isinstance(turns, list):
        raise BadRow(f"{name} must be a list, it is a {type(turns).__name__}")
    found: list[Message] = []
    for turn in cast(list[Any], turns):
        role = cast(Row, turn).get("role") if isinstance(turn, Mapping) else None
        if role not in ROLES:
            raise BadRow(f"each of {name} needs a role ({', '.join(ROLES)}) and a content")
        found.append(_said(role, f"{role}'s content", turn.get("content")))
    return found


def _said(role: str, name: str, text: Any) -> Message:
    if not isinstance(text, str):
        raise BadRow(f"{name} is missing" if text is None else f"{name} is no text: {text!r:.40}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{name} isn't valid UTF-8") from None
    return {"role": role, "content": text}


@dataclass
class Conversations:
    """What a file, a folder or a hub set holds, as `{"messages": [...]}`; read anew by each loop.

    After a loop `skipped` says how many rows were bad, and `told` the first of them, with places.

    Raises:
        Card: where there is no such thing; while it is read: for a bad row, unless `skip`.
    """

    name: str
    online: bool = False
    skip: bool = False
    skipped: int = 0
    told: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._sources = _sources(self.name, self.online)

    def __iter__(self) -> Iterator[dict[str, list[Message]]]:
        self.skipped, self.told, good = 0, [], 0
        for source, records in self._sources:
            for where, row in records():
                try:
                    yield {"messages": messages_of(row)}
                    good += 1
                except BadRow as bad:
                    self._note(f"{source}, {where}: {bad}")
        if not good:
            why = f"Of {self.skipped} rows none was good. {' '.join(self.told[:1])}".strip()
            raise Card(f"{self.name} holds no conversation.", why, f"rows with {SHAPES}", 2)

    def _note(self, told: str) -> None:
        if not self.skip:
            mend = "mend the row; or the same command with --bad-rows skip"
            raise Card("A row of the dataset is bad.", told, mend, WRONG_USAGE)
        self.skipped += 1
        if len(self.told) < TOLD:
            self.told.append(told)


def asked_for(run: "Run") -> Conversations | None:
    """What --dataset names, read as --bad-rows says; None where it wasn't given.

    Raises:
        Card: where it can't be had.
    """
    asked = run.options
    if asked.dataset is None:
        return None
    return Conversations(asked.dataset, run.online, skip=asked.bad_rows == "skip")


def _sources(name: str, online: bool) -> list[tuple[str, Callable[[], Records]]]:
    """Each file, or the hub's set: what to call it, and what reads its rows."""
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
        why = "A lab in a container sees of this clone's folders only work/ and outputs/."
        raise Card(f"There is no {name}.", why, f"put it into work/: work/{path.name}", WRONG_USAGE)
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
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except ArrowException as error:
        yield f"row {number + 1}", BadRow(f"it can't be read: {error}")


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
