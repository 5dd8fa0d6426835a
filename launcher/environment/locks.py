"""The hashed locks in docker/: uv compiles them from *.in, and each names its inputs' hash."""

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from common.cards import Card, print_status
from common.processes import capture
from launcher import DOCKER_FOLDER, ROOT
from launcher.engine.known_errors import explain
from launcher.image.status import CUDA_LOCK, HUB_LOCK, LOCK, NOTEBOOK_LOCK
from launcher.run.file_owner import file_owner, give_to

# One lock for every Python that the labs run on. It names no index, so that any mirror works.
COMPILE = (
    *("pip", "compile", "--universal", "--python-version", "3.11", "--fork-strategy", "fewest"),
    *("--only-binary", ":all:", "--generate-hashes", "--no-emit-index-url", "--quiet"),
)


@dataclass(frozen=True)
class Lock:
    """A lock file, its input files, uv's options for it, and the locks whose packages it omits."""

    name: str
    inputs: tuple[str, ...]
    options: tuple[str, ...] = ()
    extends: tuple[str, ...] = (LOCK,)

    @property
    def path(self) -> Path:
        """Return the lock's path."""
        return DOCKER_FOLDER / self.name

    @property
    def inputs_hash(self) -> str:
        """Return a hash of the inputs without comments; the lock's first lines contain it."""
        digest = hashlib.sha256()
        for name in self.inputs:
            for line in (DOCKER_FOLDER / name).read_text(encoding="utf-8").splitlines():
                requirement = line.partition("#")[0].strip()
                digest.update(f"{requirement}\n".encode() if requirement else b"")
        return digest.hexdigest()[:12]

    @property
    def is_current(self) -> bool:
        """Return whether uv compiled the lock from the inputs as they are now."""
        head = self.path.read_text(encoding="utf-8").splitlines()[:2]
        return bool(head) and f"inputs {self.inputs_hash}" in head[-1]

    @property
    def pins(self) -> set[str]:
        """Return the pins of the lock, such as numpy==2.4.6."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = (line for line in text.splitlines() if "==" in line and line[0] not in " #")
        return {line.split(" ")[0] for line in lines}


# The other locks omit the packages of the main lock, and may not contradict it.
LOCKS = (
    Lock(
        LOCK,
        ("requirements.in", "overrides.txt"),
        ("--overrides", "docker/overrides.txt"),
        extends=(),
    ),
    Lock(
        CUDA_LOCK,
        ("requirements-cuda.in", "overrides-cuda.txt"),
        ("--overrides", "docker/overrides-cuda.txt"),
    ),
    Lock(NOTEBOOK_LOCK, ("requirements-notebook.in",)),
    Lock(HUB_LOCK, ("requirements-hub.in",), extends=(LOCK, NOTEBOOK_LOCK)),
)


def compile_command(uv: str, lock: Lock, upgrade: bool) -> list[str]:
    """Return the command that compiles a lock; without `upgrade`, it keeps the pinned releases."""
    words = [uv, *COMPILE, *lock.options, *(["--upgrade"] if upgrade else [])]
    for extended in (other for other in LOCKS if other.name in lock.extends):
        words += ["--constraint", f"docker/{extended.name}"]
        for pin in sorted(extended.pins):
            words += ["--no-emit-package", pin.partition("==")[0]]
    words += ["--custom-compile-command", f"invoke lock (inputs {lock.inputs_hash})"]
    return [*words, "--output-file", f"docker/{lock.name}", f"docker/{lock.inputs[0]}"]


def compile_locks(upgrade: bool) -> None:
    """Compile the locks again, and print what changed.

    Raises:
        Card: If uv is missing, or finds no solution.
    """
    uv = _find_uv()
    for lock in LOCKS:
        before = lock.pins
        result = capture(compile_command(uv, lock, upgrade), cwd=ROOT, stderr=PIPE)
        if result.returncode != 0:
            print(result.stderr, file=sys.stderr)
            raise explain(result.stderr, f"docker/{lock.name} can't be compiled.")
        give_to(file_owner(), [lock.path])
        _report(lock, before)


def _find_uv() -> str:
    """Return the path of uv: beside this Python, else on PATH."""
    folder = Path(sys.executable).parent
    uv = shutil.which("uv", path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise Card(
            "uv is missing.",
            "It resolves one set of releases, with hashes, for every Python that the labs run on.",
            f"{folder}/pip install uv",
        )
    return uv


def _report(lock: Lock, before: set[str]) -> None:
    after = lock.pins
    new = len(after - before)
    print_status(f"docker/{lock.name}: {len(after)} packages, {new} of them new.")
    for pin in sorted(after - before):
        print(f"+ {pin}")
    for pin in sorted(before - after):
        print(f"- {pin}")
