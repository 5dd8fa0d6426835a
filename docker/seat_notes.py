"""What a seat shows its learner: the teacher's message, the quota, the end of the seat.

JupyterLab loads this module as an extension of its server. seat_lab/static/notes.js asks it for the
notes, and seat.bashrc shows them in the terminal.
"""

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from labs.course import classroom

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

FOLDERS = (Path("/lab/work"), Path("/lab/outputs"))
FILE = Path("/tmp/notes")  # seat.bashrc shows it above each prompt
WARN_FROM = 0.8
SECONDS_BETWEEN = 20
SECONDS_BEFORE_THE_END = 900
NAME = "llm-labs-notes"


class Usage:
    """What the learner's files take on the disk, compared with the quota."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.used = 0

    @property
    def full(self) -> bool:
        """Return whether the quota is used up."""
        return self.used >= self.quota

    def measure(self) -> None:
        """Add up the learner's files."""
        total = 0
        for folder, _, names in chain.from_iterable(map(os.walk, FOLDERS)):
            for name in names:
                with suppress(FileNotFoundError):
                    total += Path(folder, name).lstat().st_blocks * 512
        self.used = total

    @property
    def note(self) -> str:
        """Return what the learner should know, or ""."""
        if self.used < WARN_FROM * self.quota:
            return ""
        text = f"Your files take {self.used / 2**20:,.1f} of {self.quota / 2**20:,.1f} MB. "
        if self.full:
            text += "Nothing more can be saved, and a seat that goes on writing is stopped. "
        return text + "Remove old runs: du -sm outputs/*/*"


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
        at = time.strftime("%H:%M", time.localtime(time.time() + left))
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
                FILE.write_text("".join(f"{note}\n" for note in notes))
            time.sleep(SECONDS_BETWEEN)


def _teacher_s_note() -> dict[str, str]:
    """Return the teacher's message by its time, if there is one."""
    when, text = classroom.message()
    return {when: f"{when[11:16]} Your teacher: {text}"} if text else {}


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
        notes = {**_seat.notes(time.monotonic()), **_teacher_s_note()}
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps([{"id": name, "text": text} for name, text in notes.items()]))


def _load_jupyter_server_extension(server: Any) -> None:
    """Serve the notes; JupyterLab calls this."""
    web = server.web_app
    web.add_handlers(".*$", [(url_path_join(web.settings["base_url"], NAME), NotesHandler)])
