"""Read and write files in learners' folders, where a learner may have put links, pipes or anything.

Every part of a path is opened without following links. So a file is always the learner's own.
"""

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_BYTES = 4 * 2**20  # of a sheet or a record
MOST_DEPTH = 200  # of folders in folders; each takes a descriptor
_TO_READ = stat.S_IRUSR | stat.S_IXUSR  # a folder, by its owner
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


def names_in(root: Path, *parts: str) -> frozenset[str]:
    """Return the names in a folder below `root`; none if it can't be read or is a link."""
    try:
        with open_folder(root, *parts) as folder, os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


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


def walk(
    top: int, report: Callable[[OSError], object]
) -> Generator[tuple[str, list[str], list[str], int]]:
    """Yield the path of each folder in a folder, its folders, its files, and its descriptor.

    This is `os.fwalk`, which opens a link or a pipe before it looks at what it has opened. Folders
    that the caller removes from the list aren't entered.

    Args:
        top: The descriptor of a folder, which the walk leaves open.
        report: Is called with the error for each folder that can't be opened or listed.
    """
    opened: list[tuple[str, int, list[str]]] = [("", os.dup(top), ["."])]
    try:
        while opened:
            above, folder, names = opened[-1]
            if not names:
                os.close(folder)
                opened.pop()
                continue
            name = names.pop()
            try:
                folders, files, inner = _list(folder, name, len(opened))
            except OSError as error:
                report(error)
                continue
            path = f"{above}/{name}" if above else name
            opened.append((path, inner, []))
            yield path, folders, files, inner
            opened[-1][2].extend(reversed(folders))
    finally:
        for _, folder, _ in opened:
            os.close(folder)


def _list(folder: int, name: str, depth: int) -> tuple[list[str], list[str], int]:
    """Return the folders and the files in a folder, and its descriptor.

    Raises:
        OSError: If it can't be listed, or there are too many folders above it.
    """
    if depth > MOST_DEPTH:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), name)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=folder)
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(inner) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                (folders if is_folder else files).append(entry.name)
    except OSError:
        os.close(inner)
        raise
    return folders, files, inner


def open_closed_folders(root: Path, *parts: str) -> None:
    """Let the owner read each folder in a folder again, where the owner had closed it.

    The hub and the learners' seats run as the same user, so the hub can do this.
    """
    with suppress(OSError), open_folder(root, *parts) as top:
        for _, folders, _, folder in walk(top, lambda _: None):
            for name in folders:  # before the walk enters it
                with suppress(OSError):
                    _open_to_owner(folder, name)


def _open_to_owner(folder: int, name: str) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | _NO_LINK, dir_fd=folder)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & _TO_READ != _TO_READ:
            # Through the descriptor, because the name may lead to another file by now.
            Path(f"/proc/self/fd/{descriptor}").chmod(mode | _TO_READ)
    finally:
        os.close(descriptor)


def size_of(root: Path, *parts: str) -> int | None:
    """Return the bytes that a folder takes on the disk; None if a folder in it can't be read.

    A learner can close a folder and write there all the same.
    """
    total = 0
    closed: list[OSError] = []
    try:
        with open_folder(root, *parts) as top:
            for _, folders, names, folder in walk(top, closed.append):
                for name in (*folders, *names):
                    with suppress(OSError):
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        total += status.st_blocks * 512
    except FileNotFoundError:
        return total
    except OSError:
        return None
    # Others vanish while the hub looks, or their owner replaces them by a file.
    gone = (FileNotFoundError, NotADirectoryError)
    return None if any(not isinstance(error, gone) for error in closed) else total
