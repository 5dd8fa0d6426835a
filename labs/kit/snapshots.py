"""Folders that are there whole or not at all: written aside, hashed, synced, then renamed."""

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
    """Where the snapshot of a step stands."""
    return folder / f"{_STEP}{step:08d}"


def aside(folder: Path) -> Path:
    """Where the next one is written until it is whole."""
    return folder / _PART


def all_in(folder: Path) -> list[Path]:
    """The snapshots in a folder, the newest first."""
    found = (one for one in folder.glob(f"{_STEP}*") if one.name[len(_STEP) :].isdecimal())
    return sorted(found, key=lambda one: int(one.name[len(_STEP) :]), reverse=True)


def seal(part: Path, whole: Path, facts: Mapping[str, Any]) -> None:
    """Turn what was written aside into a snapshot, beside a manifest with `facts` and hashes.

    Killed at any moment, it leaves the snapshot whole or none. The disk has it when this returns.
    """
    files = {one.name: _sha256(one) for one in sorted(part.iterdir())}
    text = json.dumps({**facts, "files": files}, indent=1, sort_keys=True)
    (part / MANIFEST).write_text(text + "\n", encoding="utf-8")
    for one in part.iterdir():
        _sync(one)
    _sync(part)
    if whole.exists():
        shutil.rmtree(whole)
    part.rename(whole)
    _sync(whole.parent)


def read(whole: Path) -> dict[str, Any]:
    """The manifest of a snapshot whose files are what they were when it was sealed.

    Raises:
        ValueError: where they aren't; it says what is wrong.
    """
    try:
        manifest = json.loads((whole / MANIFEST).read_text(encoding="utf-8"))
        expected: dict[str, str] = manifest["files"]
        for name, digest in expected.items():
            if _sha256(whole / name) != digest:
                raise ValueError(f"{name} isn't what was written")
    except OSError as error:
        raise ValueError(f"{Path(error.filename or whole).name}: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{MANIFEST} can't be understood") from error
    return manifest


def glance(whole: Path) -> dict[str, Any]:
    """The manifest alone, unproved; nothing where it can't be read."""
    try:
        manifest = json.loads((whole / MANIFEST).read_text(encoding="utf-8"))
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
