"""Restrict the files that this process can open, by Landlock (Linux 5.13 and newer).

https://docs.kernel.org/userspace-api/landlock.html
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from labs.kit.sandbox import syscalls

_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_FOLDER = 1 << 3
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))  # remove and make: files, folders, nodes
_MOVE = 1 << 13  # to another folder
_TRUNCATE = 1 << 14
_MOVE_SINCE = 2
_TRUNCATE_SINCE = 3
_SCOPES_SINCE = 6
_SCOPES = 1 | 2  # abstract sockets, signals


def version() -> int:
    """Return the kernel's Landlock version; 0 if the kernel lacks it or has it switched off."""
    try:
        return syscalls.call(syscalls.LANDLOCK_CREATE_RULESET, 0, 0, _VERSION)
    except OSError:
        return 0


def restrict_files(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Restrict this process, and those that it starts, to these files and folders.

    It then can't trace processes outside. From Landlock 6 on (Linux 6.12), it can't send them
    signals either.

    Args:
        readable: files and folders that may be read and executed.
        writable: files and folders that may be read and changed. Missing paths are skipped.

    Returns:
        False if the kernel has no Landlock: then nothing is restricted.
    """
    kernel = version()
    if not kernel:
        return False
    read = _EXECUTE | _READ_FILE | _READ_FOLDER
    write = _WRITE_FILE | _CHANGE_FOLDER
    write |= _MOVE if kernel >= _MOVE_SINCE else 0
    write |= _TRUNCATE if kernel >= _TRUNCATE_SINCE else 0
    attributes = struct.pack("=Q", read | write)
    if kernel >= _SCOPES_SINCE:
        attributes = struct.pack("=QQQ", read | write, 0, _SCOPES)
    rules = syscalls.call(syscalls.LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    for path in readable:
        _allow(rules, path, read)
    for path in writable:
        _allow(rules, path, read | write)
    syscalls.forbid_new_privileges()
    syscalls.call(syscalls.LANDLOCK_RESTRICT_SELF, rules, 0)
    os.close(rules)
    return True


def _allow(rules: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not path.is_dir():
        access &= ~(_READ_FOLDER | _CHANGE_FOLDER | _MOVE)
    rule = struct.pack("=Qi", access, descriptor)
    syscalls.call(syscalls.LANDLOCK_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
    os.close(descriptor)
