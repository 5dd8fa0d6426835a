"""What a learner has done: one small file for each lab in work/progress/, safe between windows."""

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from labs.kit.cards import Card

FOLDER = Path("work") / "progress"
MOST_HINTS = 3


@dataclass
class Part:
    """One exercise: `done` once it passed, whatever was tried afterwards."""

    done: str = ""  # when it first passed
    tries: int = 0  # different texts that were checked
    text: str = ""  # the last of them, hashed
    hints: int = 1  # seen; the first is in the sheet
    solution: bool = False  # seen

    def one_more_hint(self) -> None:
        self.hints = min(self.hints + 1, MOST_HINTS)

    @property
    def hints_asked(self) -> int:
        return self.hints - 1

    @property
    def state(self) -> str:
        return "done" if self.done else "tried" if self.tries else "not started"

    def tried(self, text: str, right: bool) -> None:
        """It was checked; the same text again is no other try, nor is one after it passed."""
        if text != self.text and not self.done:
            self.tries += 1
        self.text = text
        if right:
            self.done = self.done or now()


@dataclass
class Record:
    """One lab: its exercises; the last and the best run of its experiments on their own parts."""

    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    last: dict[str, Any] = field(default_factory=dict[str, Any])
    best: dict[str, Any] = field(default_factory=dict[str, Any])

    def of(self, part: str) -> Part:
        return self.parts.setdefault(part, Part())


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read(lab: str, folder: Path = FOLDER) -> Record:
    """What is known of a lab; nothing where nothing was done.

    Raises:
        Card: where the file was damaged.
    """
    path = folder / f"{lab}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: Part(**one) for name, one in data["parts"].items()}
        return Record(parts, _mapping(data["last"]), _mapping(data["best"]))
    except FileNotFoundError:
        return Record()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what, why = f"{path} can't be understood.", f"{type(error).__name__}: {error}"
        raise Card(what, why, f"mv {path} {path}.damaged, and begin anew") from error


@contextmanager
def changing(lab: str, folder: Path = FOLDER) -> Generator[Record]:
    """A lab's record, to be changed: others wait, and a reader never sees half a file."""
    path = folder / f"{lab}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{lab}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = read(lab, folder)
            yield record
            part = path.with_suffix(f".{os.getpid()}.part")
            data = {
                "lab": lab,
                "parts": {name: vars(one) for name, one in record.parts.items()},
                "last": record.last,
                "best": record.best,
            }
            part.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
            part.replace(path)
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        raise Card("Your progress can't be written.", why, f"ls -ld {folder}") from error


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a table was expected, {value!r} came")
    return cast(dict[str, Any], value)
