"""Read the progress files of a class: a learner may have put anything in their place."""

import json
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from common import safe_files
from common.progress import Part, Record

MOST = 10**6  # tries or hints: nobody comes this far


def records(root: Path, parts: Iterable[str], labs: Iterable[str]) -> dict[str, Record | None]:
    """Return the record of each lab that has one; None for one that can't be read.

    Args:
        root: A folder that no learner can replace.
        parts: The names of the folders from there to the progress files; none may be a link.
        labs: The names of the labs.

    Raises:
        OSError: If the folder of progress files exists and can't be read.
    """
    found: dict[str, Record | None] = {}
    try:
        with safe_files.open_folder(root, *parts) as folder:
            for lab in labs:
                try:
                    content = safe_files.read_file(folder, f"{lab}.json")
                except FileNotFoundError:
                    continue
                except OSError:
                    found[lab] = None
                else:
                    found[lab] = parse(content)
    except FileNotFoundError:
        return {}
    return found


def parse(content: bytes) -> Record | None:
    """Return the exercises in a progress file, without runs; None if it is damaged or forged."""
    try:
        parts: dict[str, Any] = json.loads(content)["parts"]
        return Record({name: _part(values) for name, values in parts.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _part(values: dict[str, Any]) -> Part:
    """Return a part whose values have the right types and are possible.

    Raises:
        TypeError: If a type is wrong.
        ValueError: If a value isn't possible.
    """
    part = Part(**values)
    for field in fields(part):
        # Not isinstance: True would pass as a number.
        if type(getattr(part, field.name)) is not type(field.default):
            raise TypeError(f"{field.name} has another type")
    if not (0 <= part.tries < MOST and 0 <= part.hints < MOST):
        raise ValueError("a number isn't possible")
    if part.done:
        part.done.encode("ascii")  # fromisoformat accepts half a character, which no page can show
        datetime.fromisoformat(part.done)
    return part
