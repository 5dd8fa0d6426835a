"""Call the kernel where Python has no function for it. The numbers are those of x86-64."""

import ctypes
import os

LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446

# Options of prctl(2).
PR_SET_DUMPABLE = 4
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes) -> int:
    """Make a system call.

    Raises:
        OSError: if it fails.
    """
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *words)), f"system call {number}")


def set_attribute(option: int, *arguments: int | ctypes.Structure) -> None:
    """Change an attribute of this process; see prctl(2).

    Raises:
        OSError: if the kernel refuses.
    """
    words = [
        ctypes.c_ulong(one) if isinstance(one, int) else ctypes.byref(one) for one in arguments
    ]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    _checked(int(_libc.prctl(option, *words)), f"prctl {option}")


def adopts_orphans() -> bool:
    """Return whether orphans among this process's descendants become its own children."""
    answer = ctypes.c_int()
    _checked(int(_libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)), "prctl")
    return bool(answer.value)


def forbid_new_privileges() -> None:
    """Keep this process, and those that it starts, from gaining privileges by setuid programs."""
    set_attribute(PR_SET_NO_NEW_PRIVS, 1)


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result
