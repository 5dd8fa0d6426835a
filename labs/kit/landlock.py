"""Let this process change no files but some: Landlock, which Linux has had since 5.13.

https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_OF_A_FOLDER = sum(1 << bit for bit in range(4, 13))  # remove and make: files, folders, nodes
_TRUNCATE_SINCE = 3
_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's version of Landlock; 0 where it has none, or has it switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def only_writes_to(paths: Iterable[Path]) -> bool:
    """From now on this process, and what it starts, may change only what is below `paths`.

    Returns:
        False where the kernel has no Landlock: nothing is forbidden then.
    """
    found = version()
    if not found:
        return False
    of_a_file = _WRITE_FILE | (_TRUNCATE if found >= _TRUNCATE_SINCE else 0)
    handled = struct.pack("=Q", of_a_file | _OF_A_FOLDER)
    rules = _call(_CREATE_RULESET, handled, len(handled), 0)
    for path in paths:
        access = of_a_file | (_OF_A_FOLDER if path.is_dir() else 0)
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", access, place), 0)
        os.close(place)
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call(_RESTRICT_SELF, rules, 0)
    os.close(rules)
    return True


def _call(number: int, *arguments: int | bytes) -> int:
    answer = int(_libc.syscall(number, *arguments))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"syscall {number}")
    return answer
