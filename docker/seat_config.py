"""JupyterLab in a seat of `invoke hub`: the labs' commands in a terminal, and the quota.

`jupyter_server_config.py` imports this file in a seat only.
"""

import os
import threading
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir
from tornado.web import HTTPError

FOLDERS = (Path("/lab/work"), Path("/lab/outputs"))
NOTE = Path("/tmp/quota")  # seat.bashrc shows it above each prompt
WARN_FROM = 0.8
SECONDS_BETWEEN = 20
TERMINAL = ["bash", "--rcfile", "/opt/labs/seat.bashrc"]


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

    def watch(self) -> None:
        """Measure again and again, and leave a note for the terminal.

        A learner's `rm -rf ~` removes the folder in which Jupyter starts kernels; it comes back.
        """
        while True:
            Path(jupyter_runtime_dir()).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.measure()
            with suppress(OSError):  # /tmp may be full, and the learner's own
                NOTE.write_text(self.note)
            time.sleep(SECONDS_BETWEEN)


def configure(c: Any, lab_files: type) -> None:
    """Configure JupyterLab for a seat.

    Args:
        c: The configuration.
        lab_files: The contents manager of the labs.
    """
    usage = Usage(int(os.environ["LABS_QUOTA"]))
    threading.Thread(target=usage.watch, daemon=True).start()

    class SeatFiles(lab_files):
        """The files of the labs, up to the learner's quota."""

        async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
            """Save a file, unless the quota is used up."""
            if usage.full:
                usage.measure()  # the learner may have removed files since
            if usage.full:
                raise HTTPError(507, usage.note)
            return await super().save(model, path)

    c.ServerApp.contents_manager_class = SeatFiles
    # Removed files would count against the quota, in a trash.
    c.LabFiles.delete_to_trash = False
    # The hub's proxy passes the host's name on; only the learner's cookie opens the seat.
    c.ServerApp.allow_remote_access = True
    c.ServerApp.terminado_settings = {"shell_command": TERMINAL}
