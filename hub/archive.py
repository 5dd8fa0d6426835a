"""Collect the work of all learners into one archive, which opens as `invoke progress --class`."""

import fcntl
import io
import os
import tarfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common import safe_files
from hub import learners
from launcher.hub.folder import ARCHIVES, COPIES, LEARNERS

MAX_COPIES = 24
SHOWN = 10  # names of what was left out
TOP = "class"  # the folder that the archive unpacks to
SHEETS = (".py", ".json", ".ipynb")  # and progress: these come first, and have room
DATA = (".md", ".txt", ".csv")
MOST_BYTES = 32 * 2**20  # of one learner's files in an archive; no quota counts archives
SECONDS_BETWEEN_COPIES = 600


def collect(workshop: Path, now: float, folder: str = ARCHIVES) -> tuple[Path, list[str]]:
    """Write an archive of all learners' work; return its path, and what was left out.

    Sheets, notebooks and progress are in it; results of runs and files of other kinds aren't.

    Raises:
        OSError: If the disk refuses; then no archive is left.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
    path = workshop / folder / f"class-{stamp}.tar.gz"
    new = path.with_name(f".{path.name}.new")
    left_out: list[str] = []
    path.parent.mkdir(exist_ok=True)
    with _alone(path.parent):
        for unfinished in path.parent.glob(".class-*.new"):  # the hub was killed meanwhile
            unfinished.unlink()
        try:
            with tarfile.open(new, "w:gz") as archive:
                for name in learners.names(workshop):
                    _add_learner(archive, workshop / LEARNERS, name, now, left_out)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    return path, left_out


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Let one process or thread at a time write archives into a folder.

    Two of the same second have the same name, and each removes what others left unfinished.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # NFS can't lock a folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def describe(left_out: list[str]) -> str:
    """Return what was left out, for the teacher; "" if nothing was."""
    if not left_out:
        return ""
    # A name of a file may have bytes that no page can show.
    names = ", ".join(left_out[:SHOWN]).encode(errors="replace").decode()
    more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
    return f" Left out: {names}{more}."


def copy(workshop: Path, now: float) -> Path:
    """Keep a copy of all work for whoever removes their own; the oldest copies go.

    Returns:
        The path of the copy.

    Raises:
        OSError: If the disk refuses.
    """
    path, _ = collect(workshop, now, COPIES)
    for old in _copies(workshop)[:-MAX_COPIES]:
        old.unlink()
    return path


def seconds_until_due(workshop: Path, now: float) -> float:
    """Return in how many seconds the last copy is ten minutes old; 0 if it is older."""
    last = max((path.stat().st_mtime for path in _copies(workshop)), default=0)
    age = now - last
    return SECONDS_BETWEEN_COPIES - age if 0 <= age < SECONDS_BETWEEN_COPIES else 0


def _copies(workshop: Path) -> list[Path]:
    return sorted((workshop / COPIES).glob("class-*.tar.gz"))


def _add_learner(
    archive: tarfile.TarFile, root: Path, name: str, now: float, left_out: list[str]
) -> None:
    top = f"{TOP}/{name}/work"
    _add(archive, f"{top}/progress", None, now)
    contents, others = _read(root, name)
    for path, content in contents.items():
        _add(archive, f"{top}/{path}", content, now)
    left_out += [os.path.normpath(f"{top}/{path}") for path in others]


def _read(root: Path, name: str) -> tuple[dict[str, bytes], list[str]]:
    """Return the contents of a learner's files, and the paths that are left out."""
    contents: dict[str, bytes] = {}
    room = MOST_BYTES
    try:
        with safe_files.open_folder(root, name, "work") as work:
            for endings in (SHEETS, DATA):
                for path, folder in _files(work):
                    if not path.endswith(endings):
                        continue
                    most = min(room, safe_files.MAX_BYTES)
                    with suppress(OSError):
                        file = Path(path).name
                        contents[path] = safe_files.read_file(folder, file, most)
                        room -= len(contents[path])
            return contents, [path for path, _ in _files(work) if path not in contents]
    except FileNotFoundError:
        return contents, []
    except OSError:
        return contents, ["."]


def _files(work: int) -> Iterator[tuple[str, int]]:
    """Yield each file that isn't hidden, and the descriptor of its folder."""
    for folder, inner, files, descriptor in safe_files.walk(work, lambda _: None):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in sorted(name for name in files if not name.startswith(".")):
            yield os.path.normpath(f"{folder}/{file}"), descriptor


def _add(archive: tarfile.TarFile, name: str, content: bytes | None, now: float) -> None:
    """Add a file, or a folder without content."""
    member = tarfile.TarInfo(name)
    member.mtime = int(now)
    member.mode = 0o644
    if content is None:
        member.type = tarfile.DIRTYPE
        member.mode = 0o755
        archive.addfile(member)
        return
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
