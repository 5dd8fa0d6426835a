"""The environment: the image's lock and models in a virtual environment, for use without an engine.

It is stored in .lab-env/, in a folder named after a hash of its inputs. The last step writes
`stack.json`. An environment without it was interrupted, and one without its Python is damaged:
both are created again.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from common.cards import Card, print_status
from launcher import DOCKER_FOLDER, ROOT
from launcher.engine.known_errors import WITHOUT_IMAGE
from launcher.environment import torch_source
from launcher.environment.installer import choose_installer
from launcher.image.build import Step, refuse_full_disk, run_build, sizes_of
from launcher.image.status import CUDA_LOCK, LOCK, SCRIPTS
from launcher.run.file_owner import Owner, give_to, make_folder

FOLDER = ROOT / ".lab-env"
CACHE = FOLDER / "cache"  # uv's downloads; the environments share its files, so they take no space
SECONDS_BETWEEN = 0.5  # between looks at an environment that another process creates
OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 13)
# Writes a .pth file, so that a lab's file runs as a script or a notebook from any folder.
_ADD_CLONE_TO_PATH = (
    "import pathlib, sys, sysconfig;"
    "pathlib.Path(sysconfig.get_path('purelib'), 'llm-labs.pth').write_text(sys.argv[1] + '\\n')"
)


@dataclass(frozen=True)
class Environment:
    """The environment of a stack, for one Python and one lock. It may not exist yet."""

    folder: Path
    stack: str
    gfx: str = ""

    @property
    def python(self) -> Path:
        """Return the path of its Python."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def build_command(self) -> str:
        """Return the command that creates it."""
        target = f" --gfx {self.gfx}" if self.gfx else ""
        return f"invoke build --runtime venv --stack {self.stack}{target}"

    @property
    def home(self) -> Path:
        """Return the folder with the models and stack.json."""
        return self.folder / "home"

    @property
    def is_complete(self) -> bool:
        """Return whether every step has succeeded, and the Python that made it still exists."""
        try:
            json.loads((self.home / "stack.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return os.access(self.python, os.X_OK)

    @property
    def lock_file(self) -> Path:
        """Return the file that processes lock while they create or use the environment."""
        return self.folder.with_suffix(".lock")

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables that a lab's process needs to find its models and the clone."""
        # The CPU stack hides the GPUs: its torch may be a build with CUDA.
        cpu = {"CUDA_VISIBLE_DEVICES": ""} if self.stack == "cpu" else {}
        return {
            **cpu,
            "LABS_HOME": str(self.home),
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": str(ROOT),
        }


def required_environment(stack: str, gfx: str = "") -> Environment:
    """Return the environment that this clone and this Python need.

    Raises:
        Card: If the lock doesn't support this Python.
    """
    version = sys.version_info[:2]
    if not OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        raise Card(
            f"Python {version[0]}.{version[1]} can't run the labs.",
            "The lock supports Python 3.11 to 3.13.",
            "install invoke with one of those: python3.12 -m venv .venv",
        )
    digest = hashlib.sha256(f"{version} {torch_source.torch_version()}".encode())
    for name in (LOCK, CUDA_LOCK, *SCRIPTS):
        digest.update((DOCKER_FOLDER / name).read_bytes())
    prefix = f"{stack}-{gfx}" if gfx else stack
    return Environment(FOLDER / f"{prefix}-{digest.hexdigest()[:12]}", stack, gfx)


@contextmanager
def ready(environment: Environment, owner: Owner) -> Generator[Environment]:
    """Create the environment if necessary, and protect it from removal inside this block.

    Raises:
        Card: If it can't be created.
    """
    with _open_lock_file(environment, owner) as lock_file:
        if _may_create(environment, lock_file.fileno()):
            _create(environment, owner)
            _remove_outdated(environment)
        fcntl.flock(lock_file, fcntl.LOCK_SH)
        yield environment


def _open_lock_file(environment: Environment, owner: Owner) -> TextIO:
    """Open the lock file; a complete environment needs no write access to it."""
    path = environment.lock_file
    try:
        make_folder(FOLDER, owner)
        lock_file = path.open("r" if environment.is_complete else "a")
        give_to(owner, [path])
    except OSError as error:
        raise Card(
            f"The environment can't be stored in {FOLDER}.",
            f"{error.strerror}: {error.filename}",
            f"give yourself access: ls -ld {ROOT} {FOLDER}",
        ) from error
    return lock_file


def _may_create(environment: Environment, lock_file: int) -> bool:
    """Lock a missing environment; return False if there is one, or another process has made it.

    Who has made it keeps a shared lock while a lab runs, so waiting for the lock would be long.
    """
    told = False
    while not environment.is_complete:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return not environment.is_complete
        except BlockingIOError:
            if not told:
                print_status("Another process is creating the environment; waiting for it.")
            told = True
            time.sleep(SECONDS_BETWEEN)
    return False


def _create(environment: Environment, owner: Owner) -> None:
    folder = environment.folder
    if folder.exists():
        print_status("The environment is incomplete or damaged; starting over.")
        shutil.rmtree(folder)
    sizes = sizes_of(environment.stack, environment.gfx)
    _check_disk_space(sizes.environment_gb)
    print_status(
        f"Creating an environment in {folder}: {sizes.download} to download, "
        f"{sizes.environment_gb} GB on disk, about a minute on 2 cores with a fast network."
    )
    try:
        make_folder(environment.home, owner)
        run_build("The environment couldn't be created.", build_steps(environment))
        give_to(owner, (folder, *folder.rglob("*"), CACHE, *CACHE.rglob("*")))
    except Card as card:
        shutil.rmtree(folder, ignore_errors=True)
        fix = card.fix.removesuffix(WITHOUT_IMAGE)
        fix = fix.replace("invoke build", environment.build_command)
        raise Card(card.what, card.why, fix, card.code) from card
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def steps(environment: Environment) -> list[list[str]]:
    """Return the commands that create an environment; the last one marks it as complete."""
    return [step.words for step in build_steps(environment)]


def build_steps(environment: Environment) -> list[Step]:
    """Return the steps that create an environment; the last one marks it as complete."""
    python = str(environment.python)
    lock = str(DOCKER_FOLDER / LOCK)
    stack = str(DOCKER_FOLDER / "stack.py")
    home = str(environment.home)
    version = torch_source.torch_version()
    installer = choose_installer(environment.folder / "venv", CACHE)
    if installer.why_pip:
        print_status(f"pip installs the packages, because {installer.why_pip}.")
    finish = [python, stack, home, environment.stack, version, lock]
    return [
        *installer.create(),
        installer.install_lock(),
        installer.install_torch(environment.stack, environment.gfx),
        Step("", [python, "-c", _ADD_CLONE_TO_PATH, str(ROOT)]),
        Step("A test of torch, and two models converted to safetensors", finish),
    ]


def _remove_outdated(environment: Environment) -> None:
    """Remove environments of earlier locks, except those that a running lab uses."""
    prefix = environment.folder.name.rpartition("-")[0]
    for path in FOLDER.glob(f"{prefix}-????????????.lock"):
        if path == environment.lock_file:
            continue
        with path.open() as lock_file:
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink()
            _remove_unused_downloads()


def _remove_unused_downloads() -> None:
    """Remove the packages in uv's cache whose files no environment shares."""
    for record in CACHE.glob("archive-v*/*/*.dist-info/RECORD"):
        if record.stat().st_nlink == 1:
            shutil.rmtree(record.parents[1], ignore_errors=True)


def _check_disk_space(needed_gb: int) -> None:
    refuse_full_disk(FOLDER, needed_gb, "the environment", f"free disk space: du -sh {ROOT}/*")
