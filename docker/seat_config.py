"""JupyterLab in a seat of `invoke hub`: the labs' commands in a terminal, and the quota.

`jupyter_server_config.py` loads this file in a seat only.
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
QUOTA = int(os.environ.get("LABS_QUOTA", "0"))

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821
used = 0


def measure() -> int:
    """Return the bytes that the learner's files take on the disk."""
    total = 0
    for folder, _, names in chain.from_iterable(map(os.walk, FOLDERS)):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(folder, name).lstat().st_blocks * 512
    return total


def note() -> str:
    """Return what the learner should know about the quota, or ""."""
    if not QUOTA or used < WARN_FROM * QUOTA:
        return ""
    taken = f"Your files take {used / 2**20:,.0f} of {QUOTA / 2**20:,.0f} MB."
    if used < QUOTA:
        return f"{taken} Remove old runs: du -sm outputs/*/*"
    return (
        f"{taken} Nothing more can be saved, and a seat that goes on writing is stopped. "
        "Remove old runs: du -sm outputs/*/*"
    )


def watch() -> None:
    """Measure again and again, and leave a note for the terminal.

    A learner's `rm -rf ~` removes the folder in which Jupyter starts kernels, so it comes back.
    """
    global used
    while True:
        Path(jupyter_runtime_dir()).mkdir(mode=0o700, parents=True, exist_ok=True)
        used = measure()
        NOTE.write_text(note())
        time.sleep(SECONDS_BETWEEN)


class SeatFiles(c.ServerApp.contents_manager_class):
    """The files of the labs, up to the learner's quota."""

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Save a file, unless the quota is used up."""
        global used
        if QUOTA and used >= QUOTA:
            used = measure()  # the learner may have removed files since
            if used >= QUOTA:
                raise HTTPError(507, note())
        return await super().save(model, path)


if QUOTA:
    threading.Thread(target=watch, daemon=True).start()
c.ServerApp.contents_manager_class = SeatFiles
c.SeatFiles.notebook_metadata_filter = c.LabFiles.notebook_metadata_filter
c.SeatFiles.cell_metadata_filter = c.LabFiles.cell_metadata_filter
c.SeatFiles.delete_to_trash = False  # the trash would count against the quota
# The hub's proxy passes the host's name on; only the learner's cookie opens the seat.
c.ServerApp.allow_remote_access = True
c.ServerApp.terminado_settings = {"shell_command": ["bash", "--rcfile", "/opt/labs/seat.bashrc"]}
