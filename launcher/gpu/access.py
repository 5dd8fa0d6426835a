"""Whether a user may open a GPU's device nodes, and the command that grants access."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launcher.gpu.model import Problem, under
from launcher.run.access_control_list import acl_bits
from launcher.run.file_owner import Owner

_DENIED = (errno.EPERM, errno.EACCES)
_READ_WRITE = 0o6


@dataclass(frozen=True)
class User:
    """The user whose process opens the device nodes."""

    uid: int
    groups: frozenset[int]
    joins_device_groups: bool = False  # docker run --group-add, for every node
    this_process: bool = False  # so the kernel can be asked
    # In none of the user's groups, but on the host's own nodes, so access control lists count.
    rootless: bool = False

    @classmethod
    def caller(cls) -> "User":
        """Return the user of this process."""
        groups = frozenset({os.getgid(), *os.getgroups()})
        return cls(os.getuid(), groups, this_process=True)

    @classmethod
    def on_host(cls, owner: Owner) -> "User":
        """Return a user of this machine, in all of their groups."""
        return cls(owner.uid, frozenset(owner.groups))

    @classmethod
    def in_container(cls, owner: Owner) -> "User":
        """Return a container's user, who joins the groups of the devices and no others."""
        return cls(owner.uid, frozenset({owner.gid}), joins_device_groups=True)

    @classmethod
    def in_rootless_container(cls, uid: int) -> "User":
        """Return a rootless engine's user: its containers leave all groups and can't join any."""
        return cls(uid, frozenset(), rootless=True)

    def __str__(self) -> str:
        """Return the login name and the uid."""
        try:
            return f"{pwd.getpwuid(self.uid).pw_name} (uid {self.uid})"
        except KeyError:
            return f"uid {self.uid}"


def may_open(path: Path, user: User) -> bool:
    """Return whether `user` may read and write `path`.

    For a user of another process the mode decides. A device in a container has no access control
    list of the host, and a container's root without capabilities can't override the mode.

    A device cgroup, as a batch system uses it, denies this process other jobs' GPUs. It doesn't
    confine the engine's containers, and yet they may not use those GPUs.
    """
    if user.this_process:
        return _error_of_opening(path) == 0
    if _error_of_opening(path) == errno.EPERM:
        return False
    status = path.stat()
    if status.st_uid == user.uid:
        bits = status.st_mode >> 6
    elif user.rootless and (named_bits := acl_bits(path, user.uid)) is not None:
        bits = named_bits
    elif status.st_gid in user.groups or user.joins_device_groups:
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & _READ_WRITE == _READ_WRITE


def _error_of_opening(path: Path) -> int:
    """Return the error number of an attempt to open a node; `os.access` sees no device cgroup.

    The number is EPERM for a device cgroup, and EACCES for the mode.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return error.errno or 0
    return 0


def access_problem(root: Path, devices: Iterable[str], user: User) -> Problem:
    """Return which of the devices `user` may not open, and the group that would help."""
    closed = [device for device in devices if not may_open(under(root, device), user)]
    if not closed:
        return Problem()
    refused = f"{user} may not open {' and '.join(closed)}"
    nodes = " ".join(closed)
    errors = [_error_of_opening(under(root, device)) for device in closed]
    if user.this_process and (others := [error for error in errors if error not in _DENIED]):
        return Problem(
            f"{nodes} can't be opened: {os.strerror(others[0])}",
            "sudo dmesg | grep -i -e kfd -e drm",
        )
    if errno.EPERM in errors:
        return Problem(
            f"{refused}: a device cgroup denies it to this process",
            "in a batch job, ask for this GPU; in a container, start it with --device",
        )
    if user.rootless:
        return Problem(
            f"{refused}: a rootless engine's container is in none of the user's groups",
            f"sudo setfacl -m u:{user.uid}:rw {nodes}; or, without it: --runtime venv",
        )
    statuses = [under(root, device).stat() for device in closed]
    if any(stat.S_IMODE(status.st_mode) & 0o060 != 0o060 for status in statuses):
        return Problem(f"{refused}: its group may not either", f"sudo chmod 660 {nodes}")
    gids = sorted({status.st_gid for status in statuses})
    missing = " and ".join(_group(gid) for gid in gids)
    return Problem(f"{refused}: not in group {missing}", _join_groups(gids, user))


def node_groups(root: Path, devices: Iterable[str], user: User) -> tuple[int, ...]:
    """Return the groups that open nodes which are closed to other users.

    A rootless engine's container can't join any, so the result is empty for its user.
    """
    if user.rootless:
        return ()
    existing = (path for device in devices if (path := under(root, device)).exists())
    statuses = [path.stat() for path in existing]
    group_only = {status.st_gid for status in statuses if status.st_mode & 0o066 == 0o060}
    return tuple(sorted(group_only))


def _group(gid: int) -> str:
    name = _group_name(gid)
    return f"{name} (gid {gid})" if name else f"{gid} (unnamed)"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _join_groups(gids: list[int], user: User) -> str:
    """Return the command that adds `user` to the groups; it creates those without a name."""
    try:
        login = pwd.getpwuid(user.uid).pw_name
    except KeyError:
        return "for a container's user: " + " ".join(f"--group-add {gid}" for gid in gids)
    unnamed = [gid for gid in gids if not _group_name(gid)]
    create = [f"sudo groupadd --gid {gid} gpu{gid}" for gid in unnamed]
    names = ",".join(_group_name(gid) or f"gpu{gid}" for gid in gids)
    return " && ".join([*create, f"sudo usermod -aG {names} {login}"]) + ", and log in again"
