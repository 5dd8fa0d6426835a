"""Find damage in an environment.

The environment's last build step records each installed file with its size and its SHA-256, in
home/files.json. Comparing the sizes of 40,000 files takes about 0.2 s, so this is done at every
start. `invoke build` compares the hashes too.
"""

import hashlib
import json
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from common.cards import Card

FIX = "invoke build --runtime venv"
File = tuple[str, Path, int, str]  # package, path, size, SHA-256
PYTHON = "Python"  # damage that no single package can repair


@dataclass(frozen=True)
class Damage:
    """A damaged file.

    Attributes:
        package: Its package with the version, "torch-2.13.0"; PYTHON for what no package owns.
        path: The file.
        reason: What is wrong with it, such as "is missing".
    """

    package: str
    path: Path
    reason: str

    def __str__(self) -> str:
        """Return the file and the reason."""
        return f"{self.path} {self.reason}"


def refuse_damage(folder: Path) -> None:
    """Compare the sizes of an environment's files with those recorded.

    Raises:
        Card: If a file is missing or has another size.
    """
    found = find_damage(folder, by_hash=False)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Card("The environment is damaged.", f"{found[0]}{more}.", FIX)


def find_damage(folder: Path, by_hash: bool) -> list[Damage]:
    """Return the damaged files of an environment.

    Args:
        folder: The environment's folder, with venv/ and home/.
        by_hash: Whether to compare the content, which takes some seconds.
    """
    python = folder / "venv" / "bin" / "python"  # a link to the Python that made it
    found: list[Damage] = []
    if not os.access(python, os.X_OK):
        found.append(Damage(PYTHON, python, "is missing or can't be run"))
    if not (folder / "venv" / "pyvenv.cfg").is_file():
        found.append(Damage(PYTHON, folder / "venv" / "pyvenv.cfg", "is missing"))
    stack = folder / "home" / "stack.json"
    if not _read(stack):
        found.append(Damage(PYTHON, stack, "isn't JSON"))
    files = folder / "home" / "files.json"
    recorded = _read(files)
    if "packages" not in recorded:
        return [*found, Damage(PYTHON, files, "isn't the record of the installed files")]
    site = Path(recorded["site"])
    files_recorded = _recorded_files(site, recorded["packages"])
    if not by_hash:
        return [*found, *filter(None, map(_compare_size, files_recorded))]
    with ThreadPoolExecutor() as pool:  # hashlib releases the lock of the interpreter
        return [*found, *filter(None, pool.map(_compare_hash, files_recorded))]


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty if the file is missing or damaged."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], data) if isinstance(data, dict) else {}


def _recorded_files(site: Path, packages: dict[str, Any]) -> Generator[tuple[str, Path, int, str]]:
    """Yield the recorded files.

    A package that somebody has installed again or replaced by another version is left out.
    """
    for package, record in packages.items():
        path = site / f"{package}.dist-info" / "RECORD"
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != record["record"]:
            continue
        name = package.rpartition("-")[0]
        if not path.is_file() and list(site.glob(f"{name}-*.dist-info")):
            continue
        for file, (size, digest) in record["files"].items():
            yield package, site / file, size, digest


def _compare_size(file: File) -> Damage | None:
    package, path, size, _ = file
    try:
        found = os.stat(path).st_size  # noqa: PTH116 - takes a fifth of the time of Path.stat
    except OSError:
        return Damage(package, path, "is missing")
    return None if found == size else Damage(package, path, f"has {found} bytes, not {size}")


def _compare_hash(file: File) -> Damage | None:
    package, path, _, digest = file
    if damage := _compare_size(file):
        return damage
    if _sha256(path) != digest:
        return Damage(package, path, "has another SHA-256 than what was installed")
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
