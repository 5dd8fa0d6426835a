"""The record of `invoke accept`, accept.json: signed by the SHA-256 of its content."""

import hashlib
import json
from pathlib import Path
from typing import Any

from launcher.cards import WRONG_USAGE, Card

NAME = "accept.json"
FORMAT = "llm-labs accept 1"
Record = dict[str, Any]
Key = tuple[str, str]  # a card or core, and a measurement or lab


def digest(record: Record) -> str:
    """Return the SHA-256 of a record's content, however the file is formatted."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write(record: Record, folder: Path) -> Record:
    """Sign a record and write it; return it."""
    signed = {**record, "sha256": digest(record)}
    text = json.dumps(signed, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")
    return signed


def read(path: Path) -> Record:
    """Read a record, or that of a folder.

    Raises:
        Card: If the file is missing, it has another format, or its content was changed.
    """
    file = path / NAME if path.is_dir() else path
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = str(error) if isinstance(error, OSError) else "It isn't JSON."
        raise _refused(f"{file} can't be read.", why) from error
    record: Record = content if isinstance(content, dict) else {}
    if "format" not in record:
        raise _refused(f"{file} isn't a record of invoke accept.", "It names no format.")
    if record["format"] != FORMAT:
        why = f"Its format is {record['format']!r}, and this release compares {FORMAT!r}."
        raise _refused(f"{file} has another format.", why)
    if record.get("sha256") != digest(record):
        why = "Its content doesn't have the SHA-256 that it names: it was damaged or edited."
        raise _refused(f"{file} was changed.", why)
    return record


def _refused(what: str, why: str) -> Card:
    fix = f"name files that invoke accept wrote: outputs/accept/…/{NAME}"
    return Card(what, why, fix, WRONG_USAGE)


def measurements(record: Record) -> dict[Key, dict[str, Any]]:
    """Return the measurements by card or core, and name."""
    return {
        (one["core"] or card["name"], one["name"]): one
        for card in record["cards"]
        for one in card["measurements"]
    }


def labs(record: Record) -> dict[Key, dict[str, Any]]:
    """Return the results of the labs by card and lab."""
    return {(one["card"], one["lab"]): one for one in record["labs"]}
