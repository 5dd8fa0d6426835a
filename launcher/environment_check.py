"""Find damage in an environment, and repair it: reinstall the damaged packages and nothing else.

The environment's last build step records each installed file with its size and its SHA-256, in
home/files.json. Comparing the sizes of 40,000 files takes about 0.2 s, so this is done at every
start. `invoke build` compares the hashes too.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from launcher import DOCKER_FOLDER, torch_source
from launcher.cards import Card, print_status
from launcher.environment import FOLDER, Environment
from launcher.file_owner import Owner, give_to
from launcher.image_status import CUDA_LOCK, LOCK
from launcher.processes import show_output

FIX = "invoke build --runtime venv"
File = tuple[str, Path, int, str]  # package, path, size, SHA-256
PYTHON = "Python"  # damage that no single package can repair
SHOWN = 5  # damaged files
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==")


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


def repair(environment: Environment, owner: Owner) -> None:
    """Compare an existing environment with its hashes, and repair what is damaged.

    If reinstalling packages isn't enough, the environment is removed, so that it is created again.
    """
    if not environment.is_complete:
        return
    with environment.lock_file.open("a") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_status("A lab runs in the environment, so its files aren't compared.")
            return
        folder = environment.folder
        if _repair(folder, environment.stack, environment.gfx):
            give_to(owner, (folder, *folder.rglob("*")))
        else:
            print_status("That isn't enough: the environment is created again.")
            shutil.rmtree(folder)


def _repair(folder: Path, stack: str, gfx: str) -> bool:
    """Reinstall the damaged packages of an environment, and convert damaged models again.

    Returns:
        Whether the environment is intact now.
    """
    print_status("Comparing the environment's files with their hashes.")
    damaged = find_damage(folder, by_hash=True)
    for one in damaged[:SHOWN]:
        print_status(f"Damaged: {one}.")
    python = str(folder / "venv" / "bin" / "python")
    commands = [[python, str(DOCKER_FOLDER / "assets.py"), str(folder / "home" / "assets")]]
    if damaged:
        # uv's cache shares its files with the environment, so it may share the damage.
        shutil.rmtree(FOLDER / "cache", ignore_errors=True)
        commands = [*_repair_commands(folder, damaged, stack, gfx), *commands]
    return all(_succeeds(command) for command in commands) and not find_damage(folder, by_hash=True)


def _repair_commands(folder: Path, damaged: list[Damage], stack: str, gfx: str) -> list[list[str]]:
    venv = str(folder / "venv")
    python = f"{venv}/bin/python"
    packages = sorted({one.package for one in damaged} - {PYTHON})
    commands: list[list[str]] = []
    if not os.access(python, os.X_OK) or not Path(venv, "pyvenv.cfg").is_file():
        commands.append([sys.executable, "-m", "venv", "--without-pip", venv])
    if packages:
        print_status(f"Installing again: {', '.join(packages)}.")
        commands += _install_commands(folder, packages, stack, gfx)
    lock = str(DOCKER_FOLDER / LOCK)
    home = str(folder / "home")
    record = [python, str(DOCKER_FOLDER / "stack.py"), home, stack, torch_source.torch_version()]
    return [*commands, [*record, lock]]


def _succeeds(command: list[str]) -> bool:
    try:
        code, _ = show_output(command, {**os.environ, "PYTHONNOUSERSITE": "1"})
    except OSError:
        return False
    return code == 0


def _install_commands(folder: Path, packages: list[str], stack: str, gfx: str) -> list[list[str]]:
    """Return the commands that install packages again, each with its hashes if the lock has it."""
    install = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    install += ["install", "--force-reinstall", "--no-deps", "--only-binary=:all:"]
    if wheels := os.environ.get("LABS_WHEELS"):
        install += ["--find-links", wheels]
    locked = _requirements(DOCKER_FOLDER / LOCK)
    if stack == "cuda":
        locked |= _requirements(DOCKER_FOLDER / CUDA_LOCK)
    wanted = {_normalised(package.rpartition("-")[0]): package for package in packages}
    commands: list[list[str]] = []
    if chosen := [locked[name] for name in wanted if name in locked]:
        subset = folder / "repair.txt"
        subset.write_text("".join(chosen), encoding="utf-8")
        commands.append([*install, "--require-hashes", "--requirement", str(subset)])
    for name, package in wanted.items():
        if name == "torch" and name not in locked:
            commands.append([*install, *torch_source.pip_arguments(stack, gfx)])
        elif name not in locked:
            commands.append([*install, f"{name}=={package.rpartition('-')[2]}"])
    return commands


def _requirements(lock: Path) -> dict[str, str]:
    """Return the lines of a lock by the package that they install, with its hashes."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if match := _REQUIREMENT.match(line):
            name = _normalised(match[1])
            found[name] = line
        elif line.startswith("    --hash=") and name:
            found[name] += line
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
