"""Read and write files in learners' folders, where a learner may have put links, pipes or anything.

Every part of a path is opened without following links. So a file is always the learner's own.
"""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_BYTES = 4 * 2**20  # of a sheet or a record
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@contextmanager
def open_folder(root: Path, *parts: str) -> Generator[int]:
    """Yield the descriptor of a folder below `root`.

    Raises:
        OSError: If a part is missing, a link, or no folder.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(folder: int, name: str, most: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: If it is missing, a link, no regular file, or has more than `most` bytes.
    """
    descriptor = os.open(name, os.O_RDONLY | _NO_LINK, dir_fd=folder)
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor has no path)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise OSError(f"{name} is no regular file, or larger than {most} bytes")
        return file.read(most)


def write_new_file(folder: int, name: str, content: bytes) -> bool:
    """Write a new file; return False, and change nothing, if the name is taken.

    Raises:
        OSError: If the disk refuses.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
    try:
        descriptor = os.open(name, flags, 0o644, dir_fd=folder)
    except FileExistsError:
        return False
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(content)
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    return True


def size_of(root: Path, *parts: str) -> int | None:
    """Return the bytes that a folder takes on the disk; None if a folder in it can't be read.

    A learner can close a folder to the hub and write there all the same.
    """
    total = 0
    closed: list[OSError] = []
    try:
        with open_folder(root, *parts) as top:
            for _, folders, names, folder in os.fwalk(".", dir_fd=top, onerror=closed.append):
                for name in (*folders, *names):
                    with suppress(OSError):
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        total += status.st_blocks * 512
    except FileNotFoundError:
        return total
    except (OSError, RecursionError):  # too many folders in folders
        return None
    # Others vanish while the hub looks.
    return None if any(not isinstance(error, FileNotFoundError) for error in closed) else total
