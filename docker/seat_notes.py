"""What a seat shows its learner: what to open first, the teacher's message, quota, end of the seat.

JupyterLab loads this module as an extension of its server. seat_lab/static/notes.js asks it for the
notes, and seat.bashrc shows them in the terminal.
"""

import json
import os
import re
import shlex
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from common import classroom
from common.syllabus import Lesson, lessons

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

HOME = Path("/lab")
FOLDERS = (HOME / "work", HOME / "outputs")
PROGRESS = HOME / "work" / "progress"
FILE = Path("/tmp/notes")  # seat.bashrc shows it above a prompt, once
WARN_FROM = 0.8
SECONDS_BETWEEN = 20
SECONDS_BEFORE_THE_END = 900
NAME = "llm-labs-notes"
SHOWN = 3  # of the largest files and folders, if they take
LEAST = 2**20  # bytes
MOST_DEPTH = 4  # of those: work/a/b/c
_TIME = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d):\d\dZ")


class Usage:
    """What the learner's files take on the disk, compared with the quota."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.used = 0
        self.sizes: dict[Path, int] = {}  # of files and folders, with all that is in them

    @property
    def full(self) -> bool:
        """Return whether the quota is used up."""
        return self.used >= self.quota

    def measure(self) -> None:
        """Add up the learner's files."""
        total = 0
        sizes: dict[Path, int] = {}
        for folder, _, names in chain.from_iterable(map(os.walk, FOLDERS)):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    size = path.lstat().st_blocks * 512
                    total += size
                    _add(sizes, path.relative_to(HOME), size)
        self.used = total
        self.sizes = sizes

    @property
    def note(self) -> str:
        """Return what the learner should know, or ""."""
        if self.used < WARN_FROM * self.quota:
            return ""
        text = f"Your files take {self.used / 2**20:,.1f} of {self.quota / 2**20:,.1f} MB. "
        if self.full:
            text += "Nothing more can be saved, and a seat that goes on writing is stopped. "
        largest = _largest(self.sizes)
        if not largest:
            return f"{text}Remove what you don't need: rm -r FILE"
        named = [f"{path} {size / 2**20:,.0f} MB" for path, size in largest]
        first = shlex.quote(str(largest[0][0]))
        text += f"The largest: {', '.join(named)}. "
        return f"{text}Remove what you don't need, such as: rm -r {first}"


def _add(sizes: dict[Path, int], path: Path, size: int) -> None:
    """Add the size of a file to it and to the folders above it."""
    for depth in range(2, min(len(path.parts), MOST_DEPTH) + 1):
        part = Path(*path.parts[:depth])
        sizes[part] = sizes.get(part, 0) + size


def _largest(sizes: dict[Path, int]) -> list[tuple[Path, int]]:
    """Return the largest files and folders, the largest first.

    A folder of which one file or folder takes more than half is left out: that one is named.
    """
    main = {
        path.parent: path
        for path, size in sizes.items()
        if len(path.parts) > 2 and size > sizes[path.parent] / 2
    }
    found: list[tuple[Path, int]] = []
    for path in [path for path in sizes if len(path.parts) == 2]:
        while path in main:
            path = main[path]
        if sizes[path] >= LEAST:
            found.append((path, sizes[path]))
    return sorted(found, key=lambda entry: (-entry[1], entry[0]))[:SHOWN]


@dataclass(frozen=True)
class Seat:
    """A seat.

    Attributes:
        usage: The learner's files.
        longest: The seconds after which the hub stops the seat; 0 is never.
        started: When it started, by the monotonic clock: the wall clock can jump.
    """

    usage: Usage
    longest: int
    started: float

    def notes(self, now: float) -> dict[str, str]:
        """Return notes on the seat itself; what they are about stays the same while they change.

        Args:
            now: The time of the monotonic clock.
        """
        about = {"full" if self.usage.full else "quota": self.usage.note, "end": self._end(now)}
        return {topic: note for topic, note in about.items() if note}

    def _end(self, now: float) -> str:
        left = self.started + self.longest - now
        if not self.longest or left > min(SECONDS_BEFORE_THE_END, self.longest / 4):
            return ""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + left))
        return (
            f"This seat stops at {at}. Save your work: files stay, variables are lost. "
            "Afterwards you can start the seat again."
        )

    def watch(self) -> None:
        """Measure again and again, and leave notes for the terminal.

        A learner's `rm -rf ~` removes the folder in which Jupyter starts kernels; it comes back.
        """
        while True:
            Path(jupyter_runtime_dir()).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.usage.measure()
            with suppress(OSError):  # /tmp may be full, and the learner's own
                notes = self.notes(time.monotonic()).values()
                FILE.write_text("".join(f"{_in_utc(note)}\n" for note in notes))
            time.sleep(SECONDS_BETWEEN)


def _in_utc(note: str) -> str:
    """Return a note for the terminal, which doesn't know the learner's time zone."""
    return _TIME.sub(r"\1 UTC", note)


def _teacher_s_note() -> dict[str, str]:
    """Return the teacher's message by its time, if there is one."""
    when, text = classroom.message()
    return {when: f"{when} Your teacher: {text}"} if text else {}


def _first_step() -> dict[str, str]:
    """Return what to open, until the learner has checked a sheet."""
    if any(PROGRESS.glob("*.json")):
        return {}
    known = _lessons()
    handed_out = [path for path in PROGRESS.parent.glob("*.py") if path.name in known]
    if not handed_out:
        lesson = _path_of(next(iter(known.values())))
        text = (
            f"Start here: in the list of files, open a lesson, such as {lesson}. For a sheet of "
            "your own, run invoke learn LLM01 in a terminal: File, New, Terminal."
        )
        return {"start": text}
    sheet = max(handed_out, key=lambda path: path.stat().st_mtime)
    lesson = known[sheet.name]
    text = (
        f"Start here: in the list of files, open work/{sheet.name}, your sheet of {lesson.name}. "
        f"The lesson is {_path_of(lesson)}."
    )
    return {f"start {lesson.name}": text}


@cache
def _lessons() -> dict[str, Lesson]:
    """Return the lessons by the names of their sheets; reading them takes a moment."""
    return {lesson.sheet_name: lesson for lesson in lessons()}


def _path_of(lesson: Lesson) -> str:
    return f"labs/{lesson.folder}/{lesson.path.name}"


def start(quota: int, longest: int) -> Seat:
    """Start to watch this seat."""
    global _seat
    _seat = Seat(Usage(quota), longest, time.monotonic())
    threading.Thread(target=_seat.watch, daemon=True).start()
    return _seat


_seat: Seat | None = None


class NotesHandler(JupyterHandler):
    """The notes, as JSON. A request isn't an activity of the learner's."""

    @authenticated
    def get(self) -> None:
        """Send the notes."""
        assert _seat is not None
        notes = {**_seat.notes(time.monotonic()), **_teacher_s_note(), **_first_step()}
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps([{"id": name, "text": text} for name, text in notes.items()]))


def _load_jupyter_server_extension(server: Any) -> None:
    """Serve the notes; JupyterLab calls this."""
    web = server.web_app
    web.add_handlers(".*$", [(url_path_join(web.settings["base_url"], NAME), NotesHandler)])
