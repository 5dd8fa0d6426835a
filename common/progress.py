"""A learner's progress: one JSON file for each lab in work/progress/, safe for concurrent use."""

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from common.cards import Card

FOLDER = Path("work") / "progress"
MAX_HINTS = 3


@dataclass
class Part:
    """The progress on one exercise.

    Attributes:
        done: when it first passed; it stays done, whatever is tried afterwards.
        tries: the number of different texts that were checked.
        text: a hash of the last of them.
        hints: the number of hints seen; the first one is in the sheet.
        solution: whether the solution was shown.
    """

    done: str = ""
    tries: int = 0
    text: str = ""
    hints: int = 1
    solution: bool = False

    def add_hint(self) -> None:
        """Count one more hint as seen."""
        self.hints = min(self.hints + 1, MAX_HINTS)

    @property
    def requested_hints(self) -> int:
        """The number of hints that the learner asked for."""
        return self.hints - 1

    @property
    def state(self) -> str:
        """One of "done", "tried" and "not started"."""
        return "done" if self.done else "tried" if self.tries else "not started"

    def add_try(self, text: str, right: bool) -> None:
        """Record a check; an unchanged text, or one after it passed, is not another try."""
        if text != self.text and not self.done:
            self.tries += 1
        self.text = text
        if right:
            self.done = self.done or now()


@dataclass
class Record:
    """The progress on one lab.

    Attributes:
        parts: the progress on each exercise.
        last: the last run of the lab's experiments on the learner's own parts.
        best: the best such run.
    """

    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    last: dict[str, Any] = field(default_factory=dict[str, Any])
    best: dict[str, Any] = field(default_factory=dict[str, Any])

    def of(self, part: str) -> Part:
        """Return the progress on an exercise, created at first use."""
        return self.parts.setdefault(part, Part())

    def add_run(self, run: dict[str, Any]) -> None:
        """Record a run of the experiments: the last one, and the best one if it is."""
        self.last = run
        if not self.best or _worth(run) >= _worth(self.best):
            self.best = run


def _worth(run: dict[str, Any]) -> tuple[int, int, int, float]:
    # A run that crashed, or was of one experiment, has fewer checks.
    return run["passed"] - run["of"], run["passed"], run["yours"], -run["seconds"]


def now() -> str:
    """Return the local time in ISO format, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read(lab: str, folder: Path = FOLDER) -> Record:
    """Return the progress on a lab; an empty record before the first check.

    Raises:
        Card: if the file is damaged.
    """
    path = folder / f"{lab}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: Part(**values) for name, values in data["parts"].items()}
        return Record(parts, _mapping(data["last"]), _mapping(data["best"]))
    except FileNotFoundError:
        return Record()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        fix = f"mv {path} {path}.damaged, which starts a new record"
        raise Card(f"{path} is damaged.", why, fix) from error


@contextmanager
def changing(lab: str, folder: Path = FOLDER) -> Generator[Record]:
    """Yield a lab's record for changes, and write it at the end.

    Other writers wait. A reader never sees an incomplete file.

    Raises:
        Card: if the folder can't be written.
    """
    path = folder / f"{lab}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f".{lab}.lock", "a", opener=_open_no_link) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = read(lab, folder)
            yield record
            _write(path, lab, record)
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        raise Card("Your progress can't be written.", why, f"ls -ld {folder}") from error


def _write(path: Path, lab: str, record: Record) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    data = {
        "lab": lab,
        "parts": {name: vars(progress) for name, progress in record.parts.items()},
        "last": record.last,
        "best": record.best,
    }
    with open(part, "w", encoding="utf-8", opener=_open_no_link) as file:
        file.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def _open_no_link(path: str, flags: int) -> int:
    """Open a file, and refuse a link: a sheet's code could have put it here."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}")
    return cast(dict[str, Any], value)
