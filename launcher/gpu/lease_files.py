"""A lease as a file: the GPUs that somebody holds, readable by every user of the machine.

A lease is alive while its holder has the file's lock, or while the process lives that the file
names. The lock is the kernel's: it ends with the last process that has the file open, also by KILL.
No clock is involved, and nothing has to clean up.

The lock is a write lock of `fcntl`, and not of `flock`. It needs a file that is open for writing,
so only the file's owner can take it: other users can't make a dead lease look alive. Asking for it
(F_OFD_GETLK) takes nothing. As an open-file lock it isn't lost if the process opens and closes the
file once more. The user of a lease is the owner of its file, which nobody can forge.
"""

import errno
import fcntl
import json
import os
import secrets
import stat
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from launcher.gpu.lease_process import Process, ProcessTable

PREFIX = "llm-labs-lease-"
MOST_BYTES = 16_384  # 64 GPUs need 2,000
MOST_LETTERS = 80  # of a holder's name, which another user wrote
_FLOCK = "hhqqi4x"  # struct flock on x86-64: type, whence, start, length, process


@dataclass(frozen=True)
class Lease:
    """The GPUs that somebody holds.

    Attributes:
        holder: what holds them, for people, and to find the lease again.
        gpus: their names, as in `leases.lease_name`.
        per_gpu: how many leases the holder accepts on each of them, its own included.
        with_own: whether it accepts any number of leases of the same user.
        process: the process that keeps it alive beside the lock, such as a container's first.
        uid: its user.
        since: when it was taken, in seconds since 1970; for people only.
        path: its file.
    """

    holder: str
    gpus: tuple[str, ...]
    per_gpu: int = 1
    with_own: bool = False
    process: Process | None = None
    uid: int = 0
    since: float = 0
    path: Path = Path()


def create(folder: Path, lease: Lease) -> tuple[Lease, int]:
    """Write and lock a new lease; return it, and the descriptor that holds its lock.

    Raises:
        OSError: If the file can't be written.
    """
    path = folder / f"{PREFIX}{secrets.token_hex(6)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)  # nobody else can open it before it is locked
    try:
        lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        write(descriptor, lease)
        os.fchmod(descriptor, 0o644)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    status = os.fstat(descriptor)
    return replace(lease, uid=status.st_uid, since=status.st_mtime, path=path), descriptor


def write(descriptor: int, lease: Lease) -> None:
    """Write a lease into its file, in one piece.

    Raises:
        OSError: If the file can't be written.
    """
    fields = {**asdict(lease), "path": None, "uid": None, "since": None}
    text = json.dumps({name: value for name, value in fields.items() if value is not None})
    data = text.encode().ljust(os.fstat(descriptor).st_size)
    if os.pwrite(descriptor, data, 0) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def living(folder: Path, table: ProcessTable | None = None) -> list[Lease]:
    """Return all leases that are alive, the oldest first; remove dead ones of this user.

    Args:
        folder: The folder of leases.
        table: Where to look for processes; by default, in the namespace of this one.
    """
    table = table or ProcessTable.own()
    leases: list[Lease] = []
    for entry in os.scandir(folder):
        if not entry.name.startswith(PREFIX):
            continue
        path = Path(entry.path)
        try:
            lease, locked = _read(path)
        except OSError:  # another user's file that isn't readable, a link, or no file
            continue
        if lease is not None and (locked or (lease.process and lease.process.is_alive(table))):
            leases.append(lease)
        elif not locked:
            with suppress(FileNotFoundError):  # its holder has just removed it
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    path.unlink()
    return sorted(leases, key=lambda lease: lease.since)


def _read(path: Path) -> tuple[Lease | None, bool]:
    """Return a lease, or None if the file holds none, and whether it is locked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
        text = os.read(descriptor, MOST_BYTES)
    finally:
        os.close(descriptor)
    lease = _parse(text)
    if lease is not None:
        lease = replace(lease, uid=status.st_uid, since=status.st_mtime, path=path)
    return lease, found[0] == fcntl.F_WRLCK  # a read lock can be any user's


def _parse(text: bytes) -> Lease | None:
    """Return the lease in a file that any user may have written, or None."""
    try:
        fields: dict[str, Any] = json.loads(text)
        process = fields.get("process")
        return Lease(
            holder=_printable(str(fields["holder"])),
            gpus=tuple(str(name) for name in fields["gpus"]),
            per_gpu=int(fields["per_gpu"]),
            with_own=fields["with_own"] is True,
            process=_process(process) if process else None,
        )
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _process(fields: dict[str, Any]) -> Process:
    pid = int(fields["pid"])
    if not 0 < pid < 2**31:
        raise ValueError(pid)
    return Process(pid, int(fields["started"]), str(fields["boot"]), int(fields["namespace"]))


def _printable(text: str) -> str:
    """Return another user's text without control characters, which could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:MOST_LETTERS]
