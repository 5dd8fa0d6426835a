"""A GPU, who wants to open it, and whether they may: what amd.py and nvidia.py share."""

import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

AMD, NVIDIA = "amd", "nvidia"
_DISPLAYS_AND_ACCELERATORS = ("0x03", "0x12")  # PCI classes
_ACL_USER, _ACL_MASK = 0x02, 0x10
_PCI_VENDORS = {AMD: "0x1002", NVIDIA: "0x10de"}


@dataclass(frozen=True)
class Gpu:
    """A GPU, and why it can't be used, in words that follow its name; empty where it can."""

    vendor: str
    index: int  # in the vendor's own order
    name: str
    target: str = ""  # AMD: gfx942; NVIDIA: the compute capability, 9.0; empty: unknown
    vram_bytes: int = 0  # 0: unknown
    node: str = ""  # /dev/dri/renderD128, /dev/nvidia0
    unusable: str = ""
    remedy: str = ""
    integrated: bool = False
    uuid: str = ""
    devices: tuple[str, ...] = ()  # every node that has to be opened
    gids: tuple[int, ...] = ()  # the groups that open those nodes, where not everybody may


class Problem(NamedTuple):
    """Why a GPU can't be used, and what helps."""

    unusable: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Found:
    """What there is of one vendor's."""

    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()
    absence: str = ""  # where there is no GPU: what was looked at


@dataclass(frozen=True)
class User:
    """Who is going to open the devices."""

    uid: int
    groups: frozenset[int]
    joins: bool = False  # --group-add: given whatever group a device belongs to
    process: bool = False  # this process: the kernel can be asked
    rootless: bool = (
        False  # in no group at all, but sees the host's own nodes, access lists and all
    )

    @classmethod
    def caller(cls) -> "User":
        """Whoever runs this process."""
        return cls(os.getuid(), frozenset({os.getgid(), *os.getgroups()}), process=True)

    @classmethod
    def of(cls, uid: int, gid: int) -> "User":
        """A user of this machine, in all of their groups."""
        try:
            groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
        except KeyError:
            groups = [gid]
        return cls(uid, frozenset(groups))

    @classmethod
    def contained(cls, uid: int, gid: int) -> "User":
        """A container's user: no group of the host's but those that devices are given with."""
        return cls(uid, frozenset({gid}), joins=True)

    @classmethod
    def behind_a_rootless_engine(cls, uid: int) -> "User":
        """The caller, whose groups such an engine's container leaves behind; none can be added."""
        return cls(uid, frozenset(), rootless=True)

    def __str__(self) -> str:
        try:
            return f"{pwd.getpwuid(self.uid).pw_name} (uid {self.uid})"
        except KeyError:
            return f"uid {self.uid}"


def may_open(path: Path, user: User) -> bool:
    """Whether `user` may read and write `path`.

    For another user the mode decides: a container's device has neither the host's access lists
    nor, without capabilities, a root who is above the mode.
    """
    if user.process:
        return os.access(path, os.R_OK | os.W_OK)
    status = path.stat()
    if status.st_uid == user.uid:
        bits = status.st_mode >> 6
    elif user.rootless and (listed := _listed(path, user.uid)) is not None:
        bits = listed
    elif status.st_gid in user.groups or user.joins:
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & 0o6 == 0o6


def _listed(path: Path, uid: int) -> int | None:
    """What a node's access list lets a user do, as mode bits; None where it doesn't name the user.

    https://github.com/torvalds/linux/blob/master/include/uapi/linux/posix_acl_xattr.h
    """
    try:
        entries = struct.iter_unpack("<HHI", os.getxattr(path, "system.posix_acl_access")[4:])
    except OSError:
        return None
    allowed = {(tag, who if tag == _ACL_USER else 0): bits for tag, bits, who in entries}
    if (_ACL_USER, uid) not in allowed:
        return None
    return allowed[_ACL_USER, uid] & allowed.get((_ACL_MASK, 0), 0o7)


def refusal(root: Path, devices: Iterable[str], user: User) -> Problem:
    """Which of the devices `user` may not open, and the group that would help."""
    shut = [device for device in devices if not may_open(below(root, device), user)]
    if not shut:
        return Problem()
    nodes = " and ".join(shut)
    refused = f"{user} may not open {nodes}"
    if user.rootless:
        unusable = f"{refused}: a rootless engine's container is in none of the user's groups"
        remedy = f"sudo setfacl -m u:{user.uid}:rw {' '.join(shut)}; or, without it: --runtime venv"
        return Problem(unusable, remedy)
    states = [below(root, device).stat() for device in shut]
    if any(stat.S_IMODE(state.st_mode) & 0o060 != 0o060 for state in states):
        return Problem(f"{refused}: not even its group may", f"sudo chmod 660 {' '.join(shut)}")
    gids = sorted({state.st_gid for state in states})
    missing = " and ".join(_group(gid) for gid in gids)
    return Problem(f"{refused}: not in group {missing}", _join(gids, user))


def _group(gid: int) -> str:
    name = _group_name(gid)
    return f"{name} (gid {gid})" if name else f"{gid}, which has no name here"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _join(gids: list[int], user: User) -> str:
    """What puts `user` into groups, which need a name for it; who has none is a container's."""
    try:
        login = pwd.getpwuid(user.uid).pw_name
    except KeyError:
        return "a container's user gets it by " + " ".join(f"--group-add {gid}" for gid in gids)
    making = [f"sudo groupadd --gid {gid} gpu{gid}" for gid in gids if not _group_name(gid)]
    names = ",".join(_group_name(gid) or f"gpu{gid}" for gid in gids)
    return " && ".join([*making, f"sudo usermod -aG {names} {login}"]) + ", and log in again"


def gids(root: Path, devices: Iterable[str], user: User) -> tuple[int, ...]:
    """The groups that open the devices, for a container's user to be given; few are open to all.

    None behind a rootless engine: they would mean nothing, and some it couldn't even name.
    """
    if user.rootless:
        return ()
    there = (path for device in devices if (path := below(root, device)).exists())
    states = [path.stat() for path in there]
    return tuple(sorted({one.st_gid for one in states if one.st_mode & 0o066 == 0o060}))


def below(root: Path, path: str) -> Path:
    """An absolute path, seen from `root`."""
    return root / path.lstrip("/")


def text(path: Path) -> str:
    """What a file says; nothing where it can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def on_the_bus(root: Path, vendor: str) -> list[tuple[str, str]]:
    """The vendor's GPUs on the PCI bus, each with the kernel driver that has it, if one has.

    Those that are set aside for a virtual machine are not this machine's.
    """
    found: list[tuple[str, str]] = []
    for device in sorted(below(root, "/sys/bus/pci/devices").glob("*")):
        ours = text(device / "vendor") == _PCI_VENDORS[vendor]
        if ours and text(device / "class").startswith(_DISPLAYS_AND_ACCELERATORS):
            driver = device / "driver"
            found.append((device.name, driver.resolve().name if driver.exists() else ""))
    return [(place, driver) for place, driver in found if driver != "vfio-pci"]
