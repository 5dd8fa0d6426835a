"""Collect the work of all learners into one archive, which opens as `invoke progress --class`."""

import io
import os
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from hub import learners, safe_files

FOLDER = "archives"
COPIES = "copies"
MAX_COPIES = 24
SHOWN = 10  # names of what was left out
TOP = "class"  # the folder that the archive unpacks to
ENDINGS = (".py", ".json", ".ipynb", ".md", ".txt", ".csv")


def collect(workshop: Path, now: float, folder: str = FOLDER) -> tuple[Path, list[str]]:
    """Write an archive of all learners' work; return its path, and what was left out.

    Sheets, notebooks and progress are in it; results of runs and files of other kinds aren't.

    Raises:
        OSError: If the disk refuses; then no archive is left.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
    (workshop / folder).mkdir(exist_ok=True)
    path = workshop / folder / f"class-{stamp}.tar.gz"
    new = path.with_name(f".{path.name}.new")
    left_out: list[str] = []
    try:
        with tarfile.open(new, "w:gz") as archive:
            for name in learners.names(workshop):
                _add_learner(archive, workshop / learners.FOLDER, name, now, left_out)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return path, left_out


def describe(left_out: list[str]) -> str:
    """Return what was left out, for the teacher; "" if nothing was."""
    if not left_out:
        return ""
    # A name of a file may have bytes that no page can show.
    names = ", ".join(left_out[:SHOWN]).encode(errors="replace").decode()
    more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
    return f" Left out: {names}{more}."


def copy(workshop: Path, now: float) -> None:
    """Keep a copy of all work for whoever removes their own; the oldest copies go.

    Raises:
        OSError: If the disk refuses.
    """
    collect(workshop, now, COPIES)
    for old in sorted((workshop / COPIES).glob("class-*.tar.gz"))[:-MAX_COPIES]:
        old.unlink()


def _add_learner(
    archive: tarfile.TarFile, root: Path, name: str, now: float, left_out: list[str]
) -> None:
    _add(archive, f"{TOP}/{name}/work/progress", None, now)
    with suppress(OSError), safe_files.open_folder(root, name, "work") as work:
        for folder, inner, files, descriptor in os.fwalk(".", dir_fd=work):
            inner[:] = sorted(part for part in inner if not part.startswith("."))
            for file in sorted(entry for entry in files if not entry.startswith(".")):
                target = os.path.normpath(f"{TOP}/{name}/work/{folder}/{file}")
                if not file.endswith(ENDINGS):
                    left_out.append(target)
                    continue
                try:
                    content = safe_files.read_file(descriptor, file)
                except OSError:
                    left_out.append(target)
                else:
                    _add(archive, target, content, now)


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
