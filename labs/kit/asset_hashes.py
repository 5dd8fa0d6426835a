"""Check the files of models and packages against their recorded hashes, before a lab uses them."""

import base64
import csv
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from common.cards import Card
from labs.kit.home import home, rebuild_command


def verify_model(folder: Path) -> None:
    """Check each file of a model against its hash, once a process and again after a change.

    Hashing SmolLM2's 269 MB takes half a second. It is worth it: other numbers in the same file
    would give other results, and no error.

    Raises:
        Card: if a file is missing, cut short, or different.
    """
    _verify_model(folder, tuple(sorted(map(_stamp, folder.iterdir()))))


@cache
def _verify_model(folder: Path, stamps: tuple[Any, ...]) -> None:
    del stamps  # they are a part of the cache's key
    recorded = _recorded_hashes().get(folder.name, {})
    for name in sorted({"model.safetensors", *recorded}):
        if _sha256(folder / name) != recorded.get(name):
            raise Card(
                f"The embedded model {folder.name} is damaged.",
                f"{folder / name} isn't the file that was converted: its SHA-256 differs.",
                rebuild_command(),
            )


def _recorded_hashes() -> dict[str, dict[str, str]]:
    """Return the hash of each file of each model, as recorded when it was converted."""
    path = home() / "assets" / "assets.json"
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(record["sha256"]) for name, record in records.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{path} has the hashes of the models, and it can't be read."
        raise Card("The record of the models is damaged.", why, rebuild_command()) from error


def weights_hashes() -> dict[str, str]:
    """Return the SHA-256 of the weights of each embedded model; empty without models."""
    try:
        return {name: files["model.safetensors"] for name, files in _recorded_hashes().items()}
    except (Card, KeyError):
        return {}


@cache
def verify_installed(path: Path, site: Path) -> None:
    """Check a package's file, or all files of a folder, against the hashes that pip recorded.

    Raises:
        Card: if a file is missing, cut short, or different.
    """
    prefix = str(path.relative_to(site))
    for record in site.glob("*.dist-info/RECORD"):
        text = record.read_text(encoding="utf-8")
        if f"{prefix}/" not in text and f"{prefix}," not in text:
            continue
        for name, digest, _ in csv.reader(text.splitlines()):
            if (name == prefix or name.startswith(f"{prefix}/")) and digest:
                _verify_file(site / name, digest.removeprefix("sha256="))


def _verify_file(path: Path, digest: str) -> None:
    wanted = base64.urlsafe_b64decode(f"{digest}=").hex()
    if _sha256(path) != wanted:
        why = f"{path} isn't the file that was installed: its SHA-256 differs."
        raise Card("A text or an image of the labs is damaged.", why, rebuild_command())


def _sha256(path: Path) -> str:
    """Return the hash of a file; empty if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _stamp(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns, status.st_ino
