"""Restrict the files that this process can change, by Landlock (Linux 5.13 and newer).

https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

# System call numbers, the same on every architecture.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38  # prctl(2)
_WRITE_FILE = 1 << 1
_TRUNCATE = 1 << 14
_FOLDER_RIGHTS = sum(1 << bit for bit in range(4, 13))  # remove and make: files, folders, nodes
_TRUNCATE_SINCE = 3
_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the kernel's Landlock version; 0 if the kernel lacks it or has it switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def allow_writes_only_to(paths: Iterable[Path]) -> bool:
    """Restrict this process, and those that it starts, to changes below `paths`.

    Returns:
        False if the kernel has no Landlock: then nothing is restricted.
    """
    kernel = version()
    if not kernel:
        return False
    file_rights = _WRITE_FILE | (_TRUNCATE if kernel >= _TRUNCATE_SINCE else 0)
    handled = struct.pack("=Q", file_rights | _FOLDER_RIGHTS)
    rules = _call(_CREATE_RULESET, handled, len(handled), 0)
    for path in paths:
        access = file_rights | (_FOLDER_RIGHTS if path.is_dir() else 0)
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", access, descriptor), 0)
        os.close(descriptor)
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call(_RESTRICT_SELF, rules, 0)
    os.close(rules)
    return True


def _call(number: int, *arguments: int | bytes) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"syscall {number}")
    return result
