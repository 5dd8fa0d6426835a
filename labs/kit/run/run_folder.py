"""The folder of one run, outputs/LLM06/2026-11-25_14-03-59/, and what prevents writing to it."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from common.cards import Card

_WHY = {
    errno.ENOSPC: "The disk is full.",
    errno.EDQUOT: "Your quota on that disk is used up.",
    errno.EROFS: "It is read-only.",
    errno.EACCES: "This user may not write there.",
    errno.EPERM: "This user may not write there.",
    errno.ENOTDIR: "A part of that path is a file.",
}
MIN_FREE = 4 * 2**20  # bytes: less than a run writes
FIRST_LINES = 2**14  # bytes: the log writes its first lines before an error of it becomes a card


def refused(error: OSError, folder: Path) -> bool:
    """Return whether the disk of `folder` caused an error.

    A failed write doesn't name its file. Then the free space decides.
    """
    if error.filename is not None:
        return error.errno in _WHY and folder in (path := Path(error.filename), *path.parents)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return False
    disk = os.statvfs(folder)
    return error.errno == errno.EDQUOT or disk.f_bavail * disk.f_frsize < MIN_FREE


def refusal(error: Exception, folder: Path) -> str:
    """Return why the disk of `folder` refused a write; empty if the disk isn't the cause.

    safetensors puts the error number into its message. torch leaves it out: a trial write finds it.
    """
    if isinstance(error, OSError):
        return _WHY[error.errno or 0] if refused(error, folder) else ""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return _WHY.get(int(number[1]) if number else _try_writing(folder, MIN_FREE), "")


def _try_writing(folder: Path, size: int) -> int:
    """Return the error number of a trial write of `size` bytes; 0 if it succeeds."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
            file.flush()
    except OSError as error:
        return error.errno or 0
    return 0


@contextmanager
def writing_to(folder: Path) -> Generator[None]:
    """Turn an error of the disk of `folder` into a card.

    Raises:
        Card: if the disk is full or read-only, or permission is missing.
    """
    try:
        yield
    except OSError as error:
        if not refused(error, folder):
            raise
        raise Card(
            f"The run's files can't be written to {folder}.",
            _WHY[error.errno or 0],
            f"free space or grant access (df -h {folder}; ls -ld {folder}), then run it again",
        ) from error


def new_folder(root: Path, lab: str) -> Path:
    """Create the folder of a run that starts now; a second run in the same second gets another."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with writing_to(root):
        (root / lab).mkdir(parents=True, exist_ok=True)
        for attempt in count(1):
            folder = root / lab / (stamp if attempt == 1 else f"{stamp}_{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            _prepare(folder)
            return folder
    raise AssertionError("unreachable")


def _prepare(folder: Path) -> None:
    """Make a run's folder ready, or remove it again.

    Raises:
        Card: if the disk is full.
    """
    try:
        with writing_to(folder):
            (folder / "figures").mkdir()
            if number := _try_writing(folder, FIRST_LINES):
                raise OSError(number, os.strerror(number))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
