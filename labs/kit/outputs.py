"""The folder that one run leaves behind: outputs/LLM06/2026-11-25_14-03-59/."""

import errno
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from labs.kit.cards import Card

_WHY = {
    errno.ENOSPC: "No space is left there.",
    errno.EDQUOT: "Your quota there is used up.",
    errno.EROFS: "It is read-only.",
    errno.EACCES: "This user may not write there.",
    errno.EPERM: "This user may not write there.",
    errno.ENOTDIR: "A part of that path is a file.",
}
LITTLE_ROOM = 4 * 2**20  # bytes: less than a run writes


def refused(error: OSError, folder: Path) -> bool:
    """Was it the disk under `folder` that refused? A write names no file: look at its room."""
    if error.filename is not None:
        return error.errno in _WHY and folder in (path := Path(error.filename), *path.parents)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return False
    room = os.statvfs(folder)
    return error.errno == errno.EDQUOT or room.f_bavail * room.f_frsize < LITTLE_ROOM


def refusal(error: Exception, folder: Path) -> str:
    """What the disk under `folder` refused, in a sentence; nothing where it isn't at fault.

    safetensors tells the number in its text, and torch tells none: a trial does.
    """
    if isinstance(error, OSError):
        return _WHY[error.errno or 0] if refused(error, folder) else ""
    told = re.search(r"\(os error (\d+)\)", str(error))
    return _WHY.get(int(told[1]) if told else _tried(folder), "")


def _tried(folder: Path) -> int:
    """The error that writing a little there gives; 0 where it gives none."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(LITTLE_ROOM))
            file.flush()
    except OSError as error:
        return error.errno or 0
    return 0


@contextmanager
def writing_to(folder: Path) -> Generator[None]:
    """Turn a refusal of the disk under `folder` into a card.

    Raises:
        Card: no space, read-only, no permission.
    """
    try:
        yield
    except OSError as error:
        if not refused(error, folder):
            raise
        raise Card(
            f"The run's files can't be written to {folder}.",
            _WHY[error.errno or 0],
            f"make room or give access (df -h {folder}; ls -ld {folder}), then run it again",
        ) from error


def new_folder(root: Path, lab: str) -> Path:
    """Make the folder of a run that starts now; a second run in the same second gets its own."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with writing_to(root):
        (root / lab).mkdir(parents=True, exist_ok=True)
        for attempt in count(1):
            folder = root / lab / (stamp if attempt == 1 else f"{stamp}_{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            (folder / "figures").mkdir()
            return folder
    raise AssertionError("unreachable")
