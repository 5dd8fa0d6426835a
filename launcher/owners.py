"""Whose files a run leaves behind: never root's by accident."""

import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher import ROOT


@dataclass(frozen=True)
class Owner:
    """A user and group that files belong to."""

    uid: int
    gid: int

    @property
    def home(self) -> Path:
        try:
            return Path(pwd.getpwuid(self.uid).pw_dir)
        except KeyError:
            return Path.home()


def of_the_files(clone: Path = ROOT) -> Owner:
    """The caller; for root, and so for sudo, the owner of the clone."""
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid())
    status = clone.stat()
    return Owner(status.st_uid, status.st_gid)


def in_the_container(owner: Owner, rootless: bool) -> Owner:
    """Who the container's process must be so that its files are `owner`'s.

    A rootless engine maps the container's root to the user who runs the engine.
    https://docs.docker.com/engine/security/rootless/
    """
    return Owner(0, 0) if rootless else owner


def make_folder(path: Path, owner: Owner) -> None:
    """Make `path`, and what is missing above it, as `owner`'s.

    Raises:
        OSError: where it can't be made.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for one in missing:
            os.chown(one, owner.uid, owner.gid)


def give_back_caches(clone: Path = ROOT) -> None:
    """Let what Python keeps of the modules that root imported belong to the owner of the clone."""
    if os.geteuid() != 0:
        return
    owner = of_the_files(clone)
    for folder in (".", "launcher", "labs", "labs/kit", "labs/checks"):
        cache = clone / folder / "__pycache__"
        for path in (cache, *cache.glob("*")):
            with suppress(FileNotFoundError):
                os.lchown(path, owner.uid, owner.gid)
