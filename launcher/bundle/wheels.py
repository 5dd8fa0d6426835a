"""The wheels of a bundle: for `invoke` itself, and for the environment where there is no engine."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from common.cards import Card
from launcher import DOCKER_FOLDER, ROOT
from launcher.bundle.folder import WHEELS
from launcher.environment import torch_source
from launcher.environment.installer import wheels_on_disk
from launcher.image.build import Step, run_build
from launcher.image.status import LOCK, NOTEBOOK_LOCK
from launcher.run.placement import Placement

HOST = "invoke"  # the folder of what `pip install -e .` needs
COMMON = "labs"  # the folder of the locks that every stack shares
PYTHONS = ("3.11", "3.12", "3.13")
_LOCK_OPTIONS = ("--no-deps", "--require-hashes", "--only-binary=:all:")


def folders_of(stacks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of wheels that a bundle needs; `stacks` are those with an environment."""
    return (HOST, COMMON, *stacks) if stacks else (HOST,)


def this_python() -> str:
    """Return the version of Python that an environment's wheels are for: 3.11."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def download_host(folder: Path, pythons: tuple[str, ...]) -> None:
    """Download what `pip install -e .` installs, for some versions of Python.

    Raises:
        Card: If a download fails.
    """
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    command = [*_download(folder / WHEELS / HOST), "--only-binary=:all:"]
    steps = [
        Step(
            f"Packages of invoke, for Python {version}",
            [*command, f"--python-version={version}", *wanted],
        )
        for version in pythons
    ]
    _run(steps)


def download_environment(folder: Path, placements: list[Placement]) -> None:
    """Download the packages of the environments of some stacks, and JupyterLab's, for this Python.

    Raises:
        Card: If a download fails.
    """
    steps = [_lock_step(folder, name) for name in (LOCK, NOTEBOOK_LOCK)]
    for placement in placements:
        words = torch_source.pip_arguments(placement.stack, placement.gfx)
        if placement.stack == "cpu" and "--no-deps" not in words:
            raise Card(
                "torch for the CPU can't be downloaded.",
                f"{torch_source.cpu_index()} is unreachable, and LABS_WHEELS has no wheel of it.",
                "name a mirror in LABS_TORCH_INDEX, or a folder with the wheel in LABS_WHEELS",
            )
        command = [*_download(folder / WHEELS / placement.stack), *words]
        steps.append(Step(f"torch for {placement.stack}", command))
    _run(steps)


def _lock_step(folder: Path, name: str) -> Step:
    lock = DOCKER_FOLDER / name
    count = len(re.findall(r"^\S+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
    words = [*_LOCK_OPTIONS, "--requirement", str(lock)]
    command = [*_download(folder / WHEELS / COMMON), *words]
    return Step(f"{count} packages, each verified by its hash", command)


def _download(folder: Path) -> list[str]:
    """Return the command that downloads wheels into a folder, without its requirements."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    return [*command, f"--dest={folder}", *wheels_on_disk()]


def _run(steps: list[Step]) -> None:
    if importlib.util.find_spec("pip") is None:
        raise Card(
            "pip is missing.",
            "It downloads the wheels of the bundle, and this Python has none.",
            f"{sys.executable} -m ensurepip",
        )
    run_build("The wheels couldn't be downloaded.", steps)
