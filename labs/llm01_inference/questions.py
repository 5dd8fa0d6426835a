"""Questions whose replies can be checked: the built-in ones, or a learner's file.

A file is JSONL, one object a line, or CSV with a header. `EXAMPLES_OF_A_LINE` shows the columns.
Several accepted solutions are a list in JSONL; in CSV they are separated by |.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cards import VISIBLE_FOLDERS, WRONG_USAGE, Card
from common.options import Settings

EXAMPLES = 4  # the first questions are the examples of few-shot prompts
FEWEST = EXAMPLES + 4
MOST = 2_000
LARGEST_FILE = 2**22  # bytes
LONGEST = 2_000  # characters of a question
EXAMPLES_OF_A_LINE = {
    ".jsonl": '{"question": "What is 2 + 2?", "answer": ["4", "four"]}',
    ".csv": "What is 2 + 2?,4|four",
}

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Greece": "Athens",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Hungary": "Budapest",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Ireland": "Dublin",
    "Belgium": "Brussels",
    "Russia": "Moscow",
    "Turkey": "Ankara",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "Delhi",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Canada": "Ottawa",
    "Australia": "Canberra",
    "Thailand": "Bangkok",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
    "Ukraine": "Kyiv|Kiev",
    "the Netherlands": "Amsterdam",
    "Switzerland": "Bern",
    "Iceland": "Reykjavík|Reykjavik",
    "Slovakia": "Bratislava",
    "Indonesia": "Jakarta",
    "Malaysia": "Kuala Lumpur",
    "Vietnam": "Hanoi",
    "Pakistan": "Islamabad",
    "Argentina": "Buenos Aires",
    "Colombia": "Bogotá|Bogota",
    "Venezuela": "Caracas",
    "Ethiopia": "Addis Ababa",
    "Morocco": "Rabat",
    "Croatia": "Zagreb",
    "Serbia": "Belgrade",
}


@dataclass(frozen=True)
class Item:
    """A question and the solutions that count as right."""

    question: str
    answers: tuple[str, ...]


def built_in() -> list[Item]:
    """Return the lab's own questions: a country's capital."""
    return [
        Item(f"What is the capital of {name}?", tuple(city.split("|")))
        for name, city in CAPITALS.items()
    ]


def all_items(path: Path | None) -> list[Item]:
    """Return the items of a file, or the built-in ones without a file.

    Raises:
        Card: for a bad file.
    """
    return built_in() if path is None else read(path)


def check_prompts(settings: Settings) -> None:
    """Check that the file of --prompts can be read, before the lab starts.

    Raises:
        Card: if it can't.
    """
    all_items(settings.own.prompts)


def read(path: Path) -> list[Item]:
    """Read the items of a JSONL or CSV file.

    Raises:
        Card: for a bad file; it names the line.
    """
    text = _text_of(path)
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    items = [_item(path, line, row) for line, row in rows]
    if not FEWEST <= len(items) <= MOST:
        why = (
            f"It has {len(items):,} questions. The lab needs {FEWEST} to {MOST:,}: the first "
            f"{EXAMPLES} are examples, the others are asked."
        )
        raise _refused(path, why, "add or remove questions; 40 or more give small standard errors")
    return items


def _text_of(path: Path) -> str:
    if path.suffix.lower() not in (".jsonl", ".csv"):
        raise _refused(path, "Its name must end in .jsonl or .csv.", "rename it")
    if not path.is_file():
        why = f"There is no file of that name. {VISIBLE_FOLDERS}"
        raise _refused(path, why, f"put it into work/: work/{path.name}")
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
    except OSError as error:
        raise _refused(path, f"{error.strerror}.", f"ls -l {path}") from error
    if not data.strip():
        size = path.stat().st_size
        limit = f"It has {size:,} bytes, and the limit is {LARGEST_FILE:,}."
        raise _refused(path, limit if size > LARGEST_FILE else "It is empty.", "another file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _bad_line(path, line, "it isn't valid UTF-8") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _bad_line(path, number, f"it isn't JSON: {error}") from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    first = 1
    try:
        columns = [name.strip() for name in next(reader, list[str]())]
        missing = [name for name in ("question", "answer") if columns.count(name) != 1]
        if missing:
            raise _bad_line(path, 1, f"the header must name the column {missing[0]!r} once")
        first = reader.line_num + 1  # a row may have several lines
        for row in reader:
            if row and len(row) != len(columns):
                problem = f"it has {len(row)} fields, and the header has {len(columns)}"
                raise _bad_line(path, first, problem)
            if row:
                fields = dict(zip(columns, row, strict=True))
                yield first, {**fields, "answer": fields["answer"].split("|")}
            first = reader.line_num + 1
    except csv.Error as error:
        raise _bad_line(path, first, f"it isn't CSV: {error}") from error


def _item(path: Path, line: int, row: Any) -> Item:
    """Return the item of a row.

    Raises:
        Card: if the row has no question or no solution.
    """
    if not isinstance(row, dict):
        raise _bad_line(path, line, "it must be an object with question and answer")
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise _bad_line(path, line, "it has no text as its question")
    if len(question) > LONGEST:
        problem = f"its question has {len(question):,} characters; the limit is {LONGEST:,}"
        raise _bad_line(path, line, problem)
    answer = row.get("answer")
    given = answer if isinstance(answer, list) else [answer]
    texts = [text.strip() for text in given if isinstance(text, str) and words(text)]
    if not texts or len(texts) < len(given):
        raise _bad_line(path, line, "its answer must be a text with letters or digits, or a list")
    return Item(question.strip(), tuple(texts))


def _bad_line(path: Path, line: int, problem: str) -> Card:
    return _refused(
        path, f"Line {line}: {problem}.", f"a line like {EXAMPLES_OF_A_LINE[path.suffix.lower()]}"
    )


def _refused(path: Path, why: str, fix: str) -> Card:
    return Card(f"{path} can't be used as questions.", why, fix, WRONG_USAGE)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.casefold())


def is_right(reply: str, item: Item) -> bool:
    """Return whether the first line of a reply contains a solution as complete words."""
    line = (reply.strip().splitlines() or [""])[0]
    said = f" {' '.join(words(line))} "
    return any(f" {' '.join(words(answer))} " in said for answer in item.answers)
