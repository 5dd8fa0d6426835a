"""The hashed locks: made by uv from what stands in docker/*.in, each marked with what it is of."""

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from launcher import ROOT
from launcher.cards import Card, say
from launcher.errors import explain
from launcher.owners import of_the_files
from launcher.processes import answer

DOCKER = ROOT / "docker"
# For every Python that the labs run on; a lock names no index, so that a mirror will do.
COMPILE = (
    *("pip", "compile", "--universal", "--python-version", "3.11", "--fork-strategy", "fewest"),
    *("--only-binary", ":all:", "--generate-hashes", "--no-emit-index-url", "--quiet"),
)


@dataclass(frozen=True)
class Lock:
    """A lock, what it is made from, and how."""

    name: str
    inputs: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def path(self) -> Path:
        return DOCKER / self.name

    @property
    def mark(self) -> str:
        """A hash of what its inputs ask for, comments left out; the lock's first lines quote it."""
        digest = hashlib.sha256()
        for name in self.inputs:
            for line in (DOCKER / name).read_text(encoding="utf-8").splitlines():
                asked = line.partition("#")[0].strip()
                digest.update(f"{asked}\n".encode() if asked else b"")
        return digest.hexdigest()[:12]

    @property
    def fresh(self) -> bool:
        """Whether it was made from its inputs as they stand."""
        head = self.path.read_text(encoding="utf-8").splitlines()[:2]
        return bool(head) and f"inputs {self.mark}" in head[-1]


# The second leaves out what the first has, and may not contradict it.
LOCKS = (
    Lock(
        "requirements.lock",
        ("requirements.in", "overrides.txt"),
        ("--overrides", "docker/overrides.txt"),
    ),
    Lock(
        "requirements-cuda.lock",
        ("requirements-cuda.in", "overrides-cuda.txt"),
        ("--overrides", "docker/overrides-cuda.txt", "--constraint", "docker/requirements.lock"),
    ),
)


def names(lock: Path) -> list[str]:
    """The packages that a lock pins."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line and line[0] not in " #"]


def command(uv: str, lock: Lock, upgrade: bool) -> list[str]:
    """What makes a lock. It keeps the releases that the lock has, unless it is to upgrade them."""
    words = [uv, *COMPILE, *lock.options, *(["--upgrade"] if upgrade else [])]
    if lock.name != LOCKS[0].name:
        words += [word for name in names(LOCKS[0].path) for word in ("--no-emit-package", name)]
    words += ["--custom-compile-command", f"invoke lock (inputs {lock.mark})"]
    return [*words, "--output-file", f"docker/{lock.name}", f"docker/{lock.inputs[0]}"]


def make(upgrade: bool) -> None:
    """Make the locks anew, and say what changed in them.

    Raises:
        Card: where uv is missing, or finds no solution.
    """
    uv = _uv()
    for lock in LOCKS:
        before = _pins(lock)
        asked = answer(command(uv, lock, upgrade), cwd=ROOT, stderr=PIPE)
        if asked.returncode != 0:
            print(asked.stderr, file=sys.stderr)
            raise explain(asked.stderr, f"docker/{lock.name} can't be made.")
        _give(lock.path)
        _report(lock, before, _pins(lock))


def _uv() -> str:
    """The uv beside this Python, else the one on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("uv", path=path)
    if found is None:
        raise Card(
            "uv is missing.",
            "It finds one set of releases, with hashes, for every Python that the labs run on.",
            f"{Path(sys.executable).parent}/pip install uv",
        )
    return found


def _pins(lock: Lock) -> set[str]:
    text = lock.path.read_text(encoding="utf-8") if lock.path.exists() else ""
    return {
        line.split(" ")[0] for line in text.splitlines() if "==" in line and line[0] not in " #"
    }


def _report(lock: Lock, before: set[str], after: set[str]) -> None:
    say(f"docker/{lock.name}: {len(after)} packages, {len(after - before)} of them new.")
    for pin in sorted(after - before):
        print(f"+ {pin}")
    for pin in sorted(before - after):
        print(f"- {pin}")


def _give(path: Path) -> None:
    """A lock that root made belongs to the owner of the clone."""
    if os.geteuid() == 0:
        owner = of_the_files()
        os.chown(path, owner.uid, owner.gid)
