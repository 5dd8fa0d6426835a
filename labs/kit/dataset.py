"""Conversations out of whatever instruction data people have, one row at a time.

A JSONL, CSV or Parquet file, a folder of such files, or a set on the Hugging Face hub; nothing but
the row at hand (of Parquet: some thousand rows) is in memory. A bad row is told with its file and
line, and stops the reading or is skipped.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from labs.kit.cards import WRONG_USAGE, Card
from labs.kit.options import Settings
from labs.kit.ranks import stop_all
from labs.kit.rows import BadRow, sources

Message = dict[str, str]
Row = Mapping[str, Any]
Refuse = Callable[[list[Message]], None]
ROLES = ("system", "user", "assistant")
SHAPES = "messages; prompt and completion; or instruction, output and perhaps input"
FIRST = 1000  # rows that are looked at before a lab begins
TOLD = 10  # bad rows that are kept to be told; all are counted


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

    Args:
        refuse: raises BadRow where messages are bad for a reason of the caller's own.

    Raises:
        Card: where there is no such thing; while it is read: for a bad row, unless `skip`.
    """

    name: str
    online: bool = False
    skip: bool = False
    refuse: Refuse | None = None
    skipped: int = 0
    told: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._sources = sources(self.name, self.online)

    def __iter__(self) -> Iterator[dict[str, list[Message]]]:
        self.skipped, self.told, good = 0, [], 0
        for source, records in self._sources:
            for where, row in records():
                try:
                    messages = messages_of(row)
                    if self.refuse:
                        self.refuse(messages)
                except BadRow as bad:
                    self._note(f"{source}, {where}: {bad}")
                    continue
                yield {"messages": messages}
                good += 1
        if not good:
            why = f"Of {self.skipped} rows none was good. {' '.join(self.told[:1])}".strip()
            raise Card(f"{self.name} holds no conversation.", why, f"rows with {SHAPES}", 2)

    def _note(self, told: str) -> None:
        if not self.skip:
            mend = "correct the row; or say --bad-rows skip behind the file's name"
            stop_all(Card("A row of the dataset is bad.", told, mend, WRONG_USAGE))
        self.skipped += 1
        if len(self.told) < TOLD:
            self.told.append(told)


def asked_for(settings: Settings, refuse: Refuse | None = None) -> Conversations | None:
    """What --dataset names, read as --bad-rows says; None where it wasn't given.

    Args:
        refuse: raises BadRow where messages are bad for a reason of the caller's own.

    Raises:
        Card: where it can't be had.
    """
    asked = settings.own
    if getattr(asked, "dataset", None) is None:
        return None
    return Conversations(asked.dataset, settings.online, asked.bad_rows == "skip", refuse)


def look_at_first(settings: Settings) -> None:
    """Read the first rows of what --dataset names: what is wrong is told before a lab begins.

    Raises:
        Card: where it can't be had, or one of them is bad and stops the reading.
    """
    for _ in islice(asked_for(settings) or (), FIRST):
        pass
