"""Repair a damaged environment: reinstall the damaged packages and nothing else."""

import fcntl
import os
import re
import shutil
import sys
from pathlib import Path

from common.cards import print_status
from common.processes import show_output
from launcher import DOCKER_FOLDER
from launcher.environment import torch_source
from launcher.environment.check import PYTHON, Damage, find_damage
from launcher.environment.make import CACHE, Environment
from launcher.image.status import CUDA_LOCK, LOCK
from launcher.run.file_owner import Owner, give_to

SHOWN = 5  # damaged files
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==")


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
        shutil.rmtree(CACHE, ignore_errors=True)
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
