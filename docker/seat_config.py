"""JupyterLab in a seat of `invoke hub`: the labs' commands, the quota, locked solutions.

`jupyter_server_config.py` imports this file in a seat only.
"""

import os
import time
from base64 import encodebytes
from pathlib import Path
from typing import Any

from common import classroom, sheets
from common.syllabus import Lesson, lessons

import seat_notes
import seat_static
from jupyter_server.base.handlers import AuthenticatedFileHandler
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

TERMINAL = ["bash", "--rcfile", "/opt/labs/seat.bashrc"]


def locked_lesson(path: str) -> Lesson | None:
    """Return the lesson in a file, if its solutions are locked."""
    if classroom.open_labs() is None:
        return None
    here = Path(path).resolve()
    lesson = next((one for one in lessons() if one.path == here), None)
    return lesson if lesson and classroom.solutions_locked(lesson.name) else None


def without_solutions(lesson: Lesson) -> str:
    """Return a lesson with a remark in place of its solutions."""
    remark = f"raise NotImplementedError  # {classroom.LATER}"
    return sheets.blank(lesson.source).replace(sheets.SENTINEL, remark)


class Downloads(AuthenticatedFileHandler):
    """Files to download, but for lessons with locked solutions."""

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Refuse locked lessons."""
        if locked_lesson(absolute_path):
            raise HTTPError(403, classroom.LATER)
        return super().validate_absolute_path(root, absolute_path)


def configure(c: Any, lab_files: type) -> None:
    """Configure JupyterLab for a seat.

    Args:
        c: The configuration.
        lab_files: The contents manager of the labs.
    """
    # By the wall clock, a jump back would end what repeats, such as the look for dead kernels.
    IOLoop.time = lambda _: time.monotonic()
    usage = seat_notes.start(int(os.environ["LABS_QUOTA"]), int(os.environ["LABS_LONGEST"])).usage

    seat_static.send_compressed()

    class SeatFiles(lab_files):
        """The files of the labs, up to the learner's quota, and without locked solutions."""

        async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
            """Save a file, unless the quota is used up."""
            if usage.full:
                usage.measure()  # the learner may have removed files since
            if usage.full:
                raise HTTPError(507, usage.note)
            return await super().save(model, path)

        async def _read_file(self, os_path: str, format: str | None, raw: bool = False) -> Any:
            lesson = locked_lesson(os_path)
            if lesson is None:
                return await super()._read_file(os_path, format, raw)
            text = without_solutions(lesson)
            content = {"base64": encodebytes(text.encode()).decode(), "byte": text.encode()}
            result = (content.get(format or "", text), format or "text")
            return (*result, text.encode()) if raw else result

    c.ServerApp.contents_manager_class = SeatFiles
    c.SeatFiles.files_handler_class = Downloads
    c.ServerApp.jpserver_extensions = {"seat_notes": True}
    # Removed files would count against the quota, in a trash.
    c.LabFiles.delete_to_trash = False
    # The hub's proxy passes the host's name on; only the learner's cookie opens the seat.
    c.ServerApp.allow_remote_access = True
    c.ServerApp.terminado_settings = {"shell_command": TERMINAL}
