"""Read conversations from instruction data, one row at a time.

A JSONL, CSV or Parquet file, a folder of such files, or a set on the Hugging Face hub. Only the
current row (of Parquet: up to 2,000 rows) is in memory. A bad row is reported with its file and
line, and stops the reading or is skipped.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any, cast

from common.cards import WRONG_USAGE, Card
from common.options import Settings
from labs.kit.run.processes import stop_all
from labs.llm08_training.readers import BadRow, NotUtf8, is_utf8, not_utf8, sources

Message = dict[str, str]
Row = Mapping[str, Any]
Refuse = Callable[[list[Message]], None]
ROLES = ("system", "user", "assistant")
SHAPES = "messages; prompt and completion; or instruction, output and perhaps input"
# Other names that people give to a request and its response. --columns names any two columns.
REQUESTS = ("question", "query", "instruction", "prompt", "user")
RESPONSES = ("answer", "response", "reply", "output", "completion", "assistant")
FIRST = 1000  # rows that are checked before a lab starts
REPORTED = 10  # bad rows that are named; all are counted


def messages_of(row: Any, columns: tuple[str, ...] | None = None) -> list[Message]:
    """Return the messages of a row, each with `role` and `content`.

    Args:
        row: an object in one of the three shapes, or with other usual names for a request and its
            response.
        columns: the names of the request and the response, if they aren't usual ones.

    Raises:
        BadRow: for any other shape, for values that aren't text, or without a response.
    """
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, Mapping):
        raise BadRow(f"expected an object with names, got a {type(row).__name__}")
    named = cast(Row, row)
    return _checked(_pair(named, *columns) if columns else _messages(named))


def _messages(row: Row) -> list[Message]:
    if row.get("messages") is not None:
        return _turns("messages", row["messages"])
    if "prompt" in row and "completion" in row:
        prompt = row["prompt"]
        completion = row["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            return _turns("prompt", prompt) + _turns("completion", completion)
        user = _message("user", "prompt", prompt)
        return [user, _message("assistant", "completion", completion)]
    if "instruction" in row and "output" in row:
        user = _message("user", "instruction", row["instruction"])
        _append(user, row, "input")
        return [user, _message("assistant", "output", row["output"])]
    names = {str(name).strip().lower(): name for name in row}
    request = next((names[name] for name in REQUESTS if name in names), None)
    response = next((names[name] for name in RESPONSES if name in names), None)
    if request is not None and response is not None:
        user, assistant = _pair(row, request, response)
        _append(user, row, names.get("context", "context"))  # as in Dolly's rows
        return [user, assistant]
    why = f"it has {', '.join(map(str, row)) or 'nothing'}; wanted: {SHAPES}; or any two columns"
    raise BadRow(why, _columns_of(row, ()))


def _columns_of(row: Row, wanted: tuple[str, ...]) -> str:
    """Return the option that names two of a row's columns: like the wanted ones, or the longest."""
    names = [str(name) for name in row]
    if len(names) < 2:
        return ""
    simple = {name.strip().lower(): name for name in reversed(names)}
    near = [get_close_matches(name.strip().lower(), simple, 1) for name in wanted]
    chosen = list(dict.fromkeys(simple[found[0]] for found in near if found))
    if len(chosen) != 2:
        lengths = {str(name): len(str(text)) for name, text in row.items()}
        longest = sorted(names, key=lambda name: (name not in chosen, -lengths[name]))
        chosen = sorted(longest[:2], key=names.index)
    return f"--columns {quote(','.join(chosen))}"


def _append(user: Message, row: Row, name: str) -> None:
    """Add the text of a column to a request, after a blank line, if there is one."""
    if row.get(name):
        user["content"] += "\n\n" + _message("user", name, row[name])["content"]


def _pair(row: Row, request: str, response: str) -> list[Message]:
    """Return a request and its response from two columns."""
    for name in (request, response):
        if name not in row:
            why = f"it has no column {name!r}, but {', '.join(map(str, row))}"
            raise BadRow(why, _columns_of(row, (request, response)))
    turns = [
        _message("user", request, row[request]),
        _message("assistant", response, row[response]),
    ]
    if not turns[1]["content"]:
        raise BadRow(f"its column {response!r} is empty, so there is nothing to learn")
    return turns


def _checked(messages: list[Message]) -> list[Message]:
    if not any(one["role"] == "assistant" and one["content"] for one in messages):
        raise BadRow("it has no text by the assistant, so there is nothing to learn")
    return messages


def _turns(name: str, turns: Any) -> list[Message]:
    if isinstance(turns, str):  # a CSV file has no other way to write them
        try:
            turns = json.loads(turns)
        except ValueError:
            raise BadRow(f"{name} is text and not JSON") from None
    if not isinstance(turns, list):
        raise BadRow(f"{name} must be a list, not a {type(turns).__name__}")
    messages: list[Message] = []
    for turn in cast(list[Any], turns):
        role = cast(Row, turn).get("role") if isinstance(turn, Mapping) else None
        if role not in ROLES:
            raise BadRow(f"each of {name} needs a role ({', '.join(ROLES)}) and a content")
        messages.append(_message(role, f"{role}'s content", turn.get("content")))
    return messages


def _message(role: str, name: str, text: Any) -> Message:
    if not isinstance(text, str):
        raise BadRow(f"{name} is missing" if text is None else f"{name} is not text: {text!r:.40}")
    if not is_utf8(text):
        raise NotUtf8(f"{name} isn't valid UTF-8")
    return {"role": role, "content": text}


@dataclass
class Conversations:
    """Read the conversations of a file, folder or hub set, each as `{"messages": [...]}`.

    Each loop reads it again.

    Args:
        name: the file, folder or hub id.
        online: whether the hub may be used.
        skip: whether bad rows are skipped.
        refuse: raises BadRow for messages that the caller can't use.
        columns: the names of the request and the response; None for the usual ones.
        skipped: after a loop, the number of bad rows.
        reported: after a loop, the first bad rows with their places.

    Raises:
        Card: if it doesn't exist; during a loop for a bad row, unless `skip`.
    """

    name: str
    online: bool = False
    skip: bool = False
    refuse: Refuse | None = None
    columns: tuple[str, ...] | None = None
    skipped: int = 0
    reported: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._sources = sources(self.name, self.online)

    def __iter__(self) -> Iterator[dict[str, list[Message]]]:
        self.skipped = 0
        self.reported = []
        good = 0
        for source, records in self._sources:
            for where, row in records():
                try:
                    messages = messages_of(row, self.columns)
                    if self.refuse:
                        self.refuse(messages)
                except BadRow as bad:
                    problem = f"{source}, {where}: {bad}"
                    of_file = isinstance(row, NotUtf8) or Path(source).suffix.lower() == ".csv"
                    if isinstance(bad, NotUtf8) and of_file:
                        self._note(problem, not_utf8(source, problem))
                    else:
                        # After a good row, the columns are known, and this row is the exception.
                        self._note(problem, _bad_row(problem, "" if good else bad.fix))
                    continue
                yield {"messages": messages}
                good += 1
        if not good:
            why = f"All {self.skipped} rows are bad. {' '.join(self.reported[:1])}".strip()
            what = f"{self.name} has no conversation."
            raise Card(what, why, f"rows with {SHAPES}", WRONG_USAGE)

    def require_two_columns(self) -> None:
        """Check that the caller named two different columns.

        Raises:
            Card: if not; it names two columns of the first row.
        """
        names = self.columns or ()
        if len(names) == 2 and all(names) and names[0] != names[1]:
            return
        what = f"--columns {','.join(names)!r:.60} isn't two names."
        why = "It takes the column of the request and the column of the response."
        first = next((row for _, records in self._sources for _, row in records()), None)
        if isinstance(first, Mapping):
            row = cast(Row, first)
            why += f" The data has {', '.join(map(str, row))}."
            raise Card(what, why, _columns_of(row, names), WRONG_USAGE)
        raise Card(what, why, "--columns question,answer", WRONG_USAGE)

    def _note(self, problem: str, card: Card) -> None:
        if not self.skip:
            stop_all(card)
        self.skipped += 1
        if len(self.reported) < REPORTED:
            self.reported.append(problem)


def _bad_row(problem: str, fix: str) -> Card:
    """Return the card for a bad row; `fix` is the option that names its columns, if it helps."""
    what = "The dataset's columns aren't known." if fix else "A row of the dataset is bad."
    return Card(what, problem, fix or "correct the row; or add --bad-rows skip", WRONG_USAGE)


def requested(settings: Settings, refuse: Refuse | None = None) -> Conversations | None:
    """Return the data that --dataset names; None without that option.

    Args:
        settings: the settings of the run.
        refuse: raises BadRow for messages that the caller can't use.

    Raises:
        Card: if the data doesn't exist.
    """
    options = settings.own
    if options.dataset is None:
        return None
    skip = options.bad_rows == "skip"
    data = Conversations(options.dataset, settings.online, skip, refuse, options.columns)
    if options.columns:
        data.require_two_columns()
    return data


def check_first_rows(settings: Settings) -> None:
    """Read the first rows of --dataset, so that a problem is reported before the lab starts.

    Raises:
        Card: if it doesn't exist, or if one of these rows is bad and stops the reading.
    """
    for _ in islice(requested(settings) or (), FIRST):
        pass
