"""The environment: the image's lock and models in a virtual environment, where no engine answers.

It is kept in .lab-env/, under a name that says what it was made from. `stack.json` is written last:
without it, an environment is one that was interrupted, and is made anew.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from launcher import ROOT, torch_source
from launcher.cards import Card, say
from launcher.errors import explain
from launcher.owners import Owner, make_folder
from launcher.processes import show_and_keep

FOLDER = ROOT / ".lab-env"
DOCKER = ROOT / "docker"
# What is downloaded, and GB on the disk: measured on Linux for x86-64, but for rocm, AMD's figure.
SIZES = {"cpu": ("490 MB", 3), "cuda": ("2.9 GB", 8), "rocm": ("1.6 GB", 8)}
# So that a lab's file runs as a script and as a notebook, from whichever folder.
FIND_THE_CLONE = (
    "import pathlib, sys, sysconfig;"
    "pathlib.Path(sysconfig.get_path('purelib'), 'llm-labs.pth').write_text(sys.argv[1] + '\\n')"
)
OLDEST, NEWEST = (3, 11), (3, 13)


@dataclass(frozen=True)
class Environment:
    """An environment of one stack, for one Python and one lock. It may not be made yet."""

    folder: Path
    stack: str
    gfx: str = ""

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def complete(self) -> bool:
        return (self.home / "stack.json").is_file()

    @property
    def lock(self) -> Path:
        return self.folder.with_suffix(".lock")

    @property
    def variables(self) -> dict[str, str]:
        """What a lab's process needs to find its models and the clone."""
        # The CPU stack means the CPU, whichever torch is here.
        cpu = {"CUDA_VISIBLE_DEVICES": ""} if self.stack == "cpu" else {}
        return {
            **cpu,
            "LABS_HOME": str(self.home),
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": str(ROOT),
        }


def wanted(stack: str, gfx: str = "") -> Environment:
    """The environment that this clone and this Python ask for, on AMD for one gfx target.

    Raises:
        Card: for a Python that the lock isn't made for.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise Card(
            f"Python {sys.version_info[0]}.{sys.version_info[1]} can't run the labs.",
            "The lock is made for Python 3.11 to 3.13.",
            "make the environment that invoke is in with one of those: python3.12 -m venv .venv",
        )
    digest = hashlib.sha256(f"{sys.version_info[:2]} {torch_source.VERSION}".encode())
    for name in ("requirements.lock", "requirements-cuda.lock", "assets.py", "stack.py"):
        digest.update((DOCKER / name).read_bytes())
    kind = f"{stack}-{gfx}" if gfx else stack
    return Environment(FOLDER / f"{kind}-{digest.hexdigest()[:12]}", stack, gfx)


@contextmanager
def ready(environment: Environment, owner: Owner) -> Generator[Environment]:
    """`environment`, made if need be, and kept from being removed while it is in use.

    Raises:
        Card: where it can't be made.
    """
    with _open_lock(environment, owner) as lock:
        if not environment.complete:
            _wait_for(lock.fileno())
            if not environment.complete:
                _make(environment, owner)
            _remove_others(environment)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield environment


def _open_lock(environment: Environment, owner: Owner) -> TextIO:
    """The file that processes wait for each other at; to read it is enough once all is made."""
    try:
        make_folder(FOLDER, owner)
        lock = environment.lock.open("r" if environment.complete else "a")
        if os.geteuid() == 0:
            os.chown(environment.lock, owner.uid, owner.gid)
    except OSError as error:
        raise Card(
            f"The environment can't be kept in {FOLDER}.",
            f"{error.strerror}: {error.filename}",
            f"give yourself access: ls -ld {ROOT} {FOLDER}",
        ) from error
    return lock


def _wait_for(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Another process is making the environment; waiting for it.")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _make(environment: Environment, owner: Owner) -> None:
    folder = environment.folder
    if folder.exists():
        say("An earlier build was interrupted; starting anew.")
        shutil.rmtree(folder)
    download, needed = SIZES[environment.stack]
    _refuse_a_full_disk(needed)
    say(f"Making an environment in {folder}: {download} to download, {needed} GB on disk.")
    make_folder(environment.home, owner)
    try:
        for command in steps(environment):
            _do(command)
        _give(folder, owner)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def steps(environment: Environment) -> list[list[str]]:
    """The commands that make an environment, in order; the last one marks it as complete."""
    python, home = str(environment.python), str(environment.home)
    lock = str(DOCKER / "requirements.lock")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    wheels = os.environ.get("LABS_WHEELS")
    install = [
        *pip,
        "install",
        "--only-binary=:all:",
        *(["--find-links", wheels] if wheels else []),
    ]
    return [
        [sys.executable, "-m", "venv", "--clear", str(environment.folder / "venv")],
        [*install, "--no-deps", "--require-hashes", "--requirement", lock],
        [*install, *torch_source.arguments(environment.stack, environment.gfx)],
        [python, "-c", FIND_THE_CLONE, str(ROOT)],
        [python, str(DOCKER / "assets.py"), str(environment.home / "assets")],
        [python, str(DOCKER / "stack.py"), home, environment.stack, torch_source.VERSION, lock],
    ]


def _do(command: list[str]) -> None:
    code, printed = show_and_keep(command, {**os.environ, "PYTHONNOUSERSITE": "1"})
    if code != 0:
        raise explain(printed, "The environment couldn't be made.")


def _give(folder: Path, owner: Owner) -> None:
    """Let the environment, made by root, belong to the owner of the clone."""
    if os.geteuid() != 0 or owner.uid == 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, owner.uid, owner.gid)


def _remove_others(environment: Environment) -> None:
    """Remove environments of earlier locks, except those in which a lab is running."""
    kind = environment.folder.name.rpartition("-")[0]
    for other in FOLDER.glob(f"{kind}-????????????.lock"):
        if other == environment.lock:
            continue
        with other.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(other.with_suffix(""), ignore_errors=True)
            other.unlink()


def _refuse_a_full_disk(needed_gb: int) -> None:
    free = shutil.disk_usage(FOLDER).free / 1e9
    if free < needed_gb:
        raise Card(
            "There isn't enough disk space for the environment.",
            f"{FOLDER} has {free:.1f} GB free; it needs about {needed_gb} GB.",
            f"make room: du -sh {ROOT}/*",
        )
