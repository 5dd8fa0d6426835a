"""Write folders that exist complete or not at all: written aside, hashed, synced, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_STEP = "step-"
_PART = ".part"


def path_of(folder: Path, step: int) -> Path:
    """Return the path of the snapshot of a step."""
    return folder / f"{_STEP}{step:08d}"


def aside(folder: Path) -> Path:
    """Return the path at which the next snapshot is written until it is complete."""
    return folder / _PART


def all_in(folder: Path) -> list[Path]:
    """Return the snapshots in a folder, the newest first."""
    paths = (path for path in folder.glob(f"{_STEP}*") if path.name[len(_STEP) :].isdecimal())
    return sorted(paths, key=lambda path: int(path.name[len(_STEP) :]), reverse=True)


def publish(part: Path, snapshot: Path, facts: Mapping[str, Any]) -> None:
    """Turn a folder written aside into a snapshot, with a manifest of `facts` and hashes.

    A kill at any moment leaves a complete snapshot or none. It is on the disk when this returns.
    """
    files = {path.name: _sha256(path) for path in sorted(part.iterdir())}
    text = json.dumps({**facts, "files": files}, indent=1, sort_keys=True)
    (part / MANIFEST).write_text(text + "\n", encoding="utf-8")
    for path in part.iterdir():
        _sync(path)
    _sync(part)
    if snapshot.exists():
        shutil.rmtree(snapshot)
    part.rename(snapshot)
    _sync(snapshot.parent)


def read(snapshot: Path) -> dict[str, Any]:
    """Verify the files of a snapshot and return its manifest.

    Raises:
        ValueError: if a file has changed or is missing; it names the file.
    """
    try:
        manifest = json.loads((snapshot / MANIFEST).read_text(encoding="utf-8"))
        expected: dict[str, str] = manifest["files"]
        for name, digest in expected.items():
            if _sha256(snapshot / name) != digest:
                raise ValueError(f"{name} has changed since it was written")
    except OSError as error:
        raise ValueError(f"{Path(error.filename or snapshot).name}: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{MANIFEST} is damaged") from error
    return manifest


def read_manifest(snapshot: Path) -> dict[str, Any]:
    """Return the manifest without verifying the files; empty if it can't be read."""
    try:
        manifest = json.loads((snapshot / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
