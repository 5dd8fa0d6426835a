"""Who owns the files of a run: the caller, or for root the owner of the clone."""

import os
import pwd
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cards import Card
from common.processes import child_process
from launcher import ROOT
from launcher.run import folder_problems


@dataclass(frozen=True)
class Owner:
    """A user and group that files belong to."""

    uid: int
    gid: int

    @property
    def home(self) -> Path:
        """Return the user's home folder."""
        try:
            return Path(pwd.getpwuid(self.uid).pw_dir)
        except KeyError:
            return Path.home()

    @property
    def groups(self) -> list[int]:
        """Return the ids of all groups that the user is in on this machine."""
        try:
            return os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            return [self.gid]


def file_owner(clone: Path = ROOT) -> Owner:
    """Return the caller; for root, and so under sudo, the owner of the clone."""
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid())
    status = clone.stat()
    return Owner(status.st_uid, status.st_gid)


def container_user(owner: Owner, rootless: bool) -> Owner:
    """Return the user that a container's process runs as, so that `owner` owns its files.

    A rootless engine maps the container's root to the user who runs the engine.
    https://docs.docker.com/engine/security/rootless/
    """
    return Owner(0, 0) if rootless else owner


def give_to(owner: Owner, paths: Iterable[Path]) -> None:
    """Change the owner of `paths` if this process is root; skip paths that don't exist."""
    if os.geteuid() != 0:
        return
    for path in paths:
        with suppress(FileNotFoundError):
            os.lchown(path, owner.uid, owner.gid)


def give_caches_to_owner(clone: Path = ROOT) -> None:
    """Give the bytecode caches that root's imports wrote to the owner of the clone."""
    if os.geteuid() != 0:
        return
    owner = file_owner(clone)
    caches = [clone / "__pycache__"]
    for package in ("common", "hub", "labs", "launcher"):
        caches += (clone / package).rglob("__pycache__")
    for cache in caches:
        give_to(owner, (cache, *cache.glob("*")))


def make_folder(path: Path, owner: Owner) -> None:
    """Create `path` and its missing parents for `owner`.

    Raises:
        OSError: If the folder can't be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    give_to(owner, missing)


def make_writable_folder(folder: Path, owner: Owner) -> None:
    """Create a folder for a lab's files; the engine would create it for root.

    Raises:
        Card: If the folder can't be created, or its owner can't write to it.
    """
    folder_problems.refuse_file_or_link(folder)
    try:
        make_folder(folder, owner)
    except OSError as error:
        raise folder_problems.cannot_create(folder, error) from error
    if os.geteuid() == owner.uid and not os.access(folder, os.W_OK):
        raise folder_problems.cannot_write(folder)


def run_as_owner(
    owner: Owner, command: list[str], variables: dict[str, str], inherited: tuple[int, ...] = ()
) -> int:
    """Run a command in the clone; if this process is root, as `owner`.

    Args:
        owner: The user who runs the command.
        command: The command and its arguments.
        variables: Its environment variables.
        inherited: The open files that it gets, such as a lease's.

    Returns:
        The exit code; 128 plus the number of the signal that ended the command.

    Raises:
        Card: If the owner may not execute the command.
    """
    options: dict[str, Any] = {"pass_fds": inherited}
    if os.geteuid() == 0 and owner.uid != 0:
        variables = {**variables, "HOME": str(owner.home)}
        groups = sorted(owner.groups)
        options |= {"user": owner.uid, "group": owner.gid, "extra_groups": groups}
    try:
        with child_process(command, cwd=ROOT, env=variables, **options) as child:
            code = child.wait()
    except PermissionError as error:
        raise Card(
            f"The owner of this folder (uid {owner.uid}) can't run {command[0]}.",
            "That user has no access to the Python that created the environment.",
            "run invoke as that user, without sudo",
        ) from error
    return code if code >= 0 else 128 - code
