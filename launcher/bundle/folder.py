"""The folder of a bundle: its manifest, and files that fit a FAT file system."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from common.cards import WRONG_USAGE, Card
from launcher.engine.known_errors import explain

MANIFEST = "manifest.json"
MANIFEST_SUM = "manifest.sha256"
INCOMPLETE = "INCOMPLETE"  # contains the commit that is being bundled
WHEELS = "wheels"
CLONE = "clone.tar.gz"
SETUP = "setup"
README = "README.txt"
LICENCES = "THIRD-PARTY.md"
IMAGES = "images.tar.gz"  # with the number of a part behind it
PART_BYTES = 2**30  # FAT's limit is 4 GiB; a damaged part of 1 GiB is copied again sooner
CHUNK_BYTES = 2**20
FORMAT = 1
_NAMES = {MANIFEST, MANIFEST_SUM, INCOMPLETE, WHEELS, CLONE, SETUP, README, LICENCES}


@dataclass
class PartsWriter:
    """A file that is written in parts, each with a number: images.tar.gz.001.

    It has the methods that `gzip.GzipFile` needs.
    """

    stem: Path
    _part: IO[bytes] | None = None
    _count: int = 0
    _room: int = 0

    def write(self, data: bytes) -> int:
        """Write bytes, into as many parts as they need."""
        rest = memoryview(data)
        while rest:
            if self._part is None or not self._room:
                self._next_part()
            assert self._part is not None
            written = self._part.write(rest[: self._room])
            self._room -= written
            rest = rest[written:]
        return len(data)

    def flush(self) -> None:
        """Do nothing: `close` flushes."""

    def close(self) -> None:
        """Write the last part to the disk, so that a fault of it is seen here."""
        if self._part is not None:
            self._part.flush()
            os.fsync(self._part.fileno())
            self._part.close()
            self._part = None

    def _next_part(self) -> None:
        self.close()
        self._count += 1
        self._part = self.stem.with_name(f"{self.stem.name}.{self._count:03}").open("wb")
        self._room = PART_BYTES


def begin(folder: Path, commit: str, wheel_folders: tuple[str, ...]) -> None:
    """Prepare the folder of a bundle, and mark it as incomplete.

    What an earlier bundle wrote is removed. Wheels of the same commit stay: they are the downloads.

    Args:
        folder: The folder.
        commit: The commit that is bundled.
        wheel_folders: The folders of wheels that this bundle needs.

    Raises:
        Card: If the folder contains other files, or can't be written.
    """
    try:
        _refuse_other_files(folder)
        folder.mkdir(parents=True, exist_ok=True)
        keep = _commit_of(folder) == commit
        (folder / INCOMPLETE).write_text(commit, encoding="utf-8")
        for path in folder.iterdir():
            if path.name == WHEELS and keep:
                _remove([old for old in path.iterdir() if old.name not in wheel_folders])
            elif path.name != INCOMPLETE:
                _remove([path])
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: OSError) -> Card:
    """Return the card for a bundle that can't be written."""
    what = explain(str(error), f"The bundle can't be written to {folder}.").what
    fix = f"df -h {folder.parent}; or choose another folder"
    return Card(what, f"{error.strerror}: {error.filename or folder}", fix)


def _refuse_other_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        why = "It is a file, and a bundle is a folder."
        raise Card(f"{folder} can't be a bundle.", why, "invoke bundle NEW-FOLDER", WRONG_USAGE)
    if others := _other_files(folder):
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise Card(
            f"{folder} has other files.",
            "A bundle is written into an empty folder, or over an earlier bundle. "
            f"These files aren't part of one: {', '.join(others[:5])}{more}.",
            f"invoke bundle {folder / 'llm-labs-bundle'}",
            WRONG_USAGE,
        )


def _other_files(folder: Path) -> list[str]:
    """Return the names in this folder that no earlier bundle wrote."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    # Web pages and browser extensions have a manifest.json, too.
    if not (folder / INCOMPLETE).exists() and "format" not in read_manifest(folder):
        return names
    part = re.compile(re.escape(IMAGES) + r"\.\d{3}")
    return [name for name in names if name not in _NAMES and not part.fullmatch(name)]


def _commit_of(folder: Path) -> str:
    """Return the commit of an earlier bundle in this folder, complete or not; "" without one."""
    try:
        return (folder / INCOMPLETE).read_text(encoding="utf-8")
    except OSError:
        return read_manifest(folder).get("commit", "")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle; {} if it can't be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def finish(folder: Path, contents: dict[str, Any]) -> int:
    """Write the manifest with the size and SHA-256 of each file, and return the bundle's bytes.

    Raises:
        Card: If the folder can't be written or read.
    """
    try:
        files = {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != INCOMPLETE
        }
        text = json.dumps({"format": FORMAT, **contents, "files": files}, indent=1) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        (folder / MANIFEST_SUM).write_text(f"{digest}  {MANIFEST}\n", encoding="utf-8")
        (folder / INCOMPLETE).unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error
    return sum(int(file["bytes"]) for file in files.values())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_parts(folder: Path, stem: str) -> Iterator[bytes]:
    """Yield the bytes of a file in parts: those in the manifest, not those of an older bundle."""
    names = [name for name in read_manifest(folder)["files"] if name.startswith(f"{stem}.")]
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
