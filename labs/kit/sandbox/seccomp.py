"""Refuse system calls that a lab never needs, by a seccomp filter.

Landlock restricts the opening of files. It doesn't cover the modes and times of files, sockets
other than TCP, or memory that outlives its process. A refused call fails with EPERM, which Python
raises as PermissionError. https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import os
import platform
import socket
import struct

from labs.kit.sandbox import syscalls

_X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000  # numbers from here on are those of the x32 ABI
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_NUMBER = 0  # offsets in struct seccomp_data, of which the low words of the arguments are compared
_ARCHITECTURE = 4
_FIRST_ARGUMENT = 16
_SECOND_ARGUMENT = 24
_SECCOMP_MODE_FILTER = 2

# Calls that no lab makes. Most would reach other processes, or files that Landlock doesn't guard.
_NEVER = {
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "chmod": 90,
    "fchmod": 91,
    "fchmodat": 268,
    "fchmodat2": 452,
    "chown": 92,
    "fchown": 93,
    "lchown": 94,
    "fchownat": 260,
    "utime": 132,
    "utimes": 235,
    "futimesat": 261,
    "utimensat": 280,
    "setxattr": 188,
    "lsetxattr": 189,
    "fsetxattr": 190,
    "removexattr": 197,
    "lremovexattr": 198,
    "fremovexattr": 199,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "io_uring_setup": 425,  # makes other calls, past this filter
    "unshare": 272,
    "setns": 308,
    "mount": 165,
    "bpf": 321,
    "userfaultfd": 323,
}
_SOCKET = 41
# Calls that the check of an exercise doesn't make, but an experiment may.
_NOT_IN_A_CHECK = {
    "socket": _SOCKET,
    "memfd_create": 319,  # these allocate memory that its limit doesn't count
    "memfd_secret": 447,
    "shmget": 29,
    "semget": 64,
    "msgget": 68,
    "mq_open": 240,
    "tkill": 200,
    "rt_sigqueueinfo": 129,
    "rt_tgsigqueueinfo": 297,
    "pidfd_send_signal": 424,
    "pidfd_getfd": 438,
}
_PRCTL = 157
_IOCTL = 16
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into the terminal
_KILL = (62, 234)  # kill and tgkill: a check may only signal itself


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def restrict_calls(as_check: bool, unix_sockets: bool = False) -> bool:
    """Refuse these calls to this process and those that it starts.

    Args:
        as_check: also refuse what the check of an exercise doesn't need: sockets, signals to other
            processes, and shared memory that no limit counts.
        unix_sockets: whether an experiment may connect to other programs of this machine. One of
            them could be a container engine, which does everything that root can.

    Returns:
        False if this isn't x86-64, or the kernel has no seccomp filters: then nothing is refused.
    """
    if platform.machine() != "x86_64":
        return False
    refused = [*_NEVER.values(), *(_NOT_IN_A_CHECK.values() if as_check else ())]
    rows = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
        *_refuse_if(_AT_LEAST, _X32),
    ]
    for number in refused:
        rows += _refuse_if(_EQUAL, number)
    rows += _refuse_argument(_IOCTL, _SECOND_ARGUMENT, _TERMINAL_INPUT)
    rows += _refuse_argument(_PRCTL, _FIRST_ARGUMENT, (syscalls.PR_SET_CHILD_SUBREAPER,))
    if not unix_sockets:
        rows += _refuse_argument(_SOCKET, _FIRST_ARGUMENT, (socket.AF_UNIX,))
    for number in _KILL if as_check else ():
        rows += _allow_argument_only(number, _FIRST_ARGUMENT, os.getpid())
    rows.append((_RETURN, 0, 0, _ALLOW))
    program = b"".join(struct.pack("=HBBI", *row) for row in rows)
    syscalls.forbid_new_privileges()
    filled = _Program(len(rows), program)
    try:
        syscalls.set_attribute(syscalls.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filled)
    except OSError:
        return False
    return True


Rows = list[tuple[int, int, int, int]]  # operation, jump if true, jump if false, constant


def _refuse_if(comparison: int, constant: int) -> Rows:
    return [(comparison, 0, 1, constant), (_RETURN, 0, 0, _REFUSE)]


def _refuse_argument(number: int, offset: int, values: tuple[int, ...]) -> Rows:
    """Refuse the call `number` if its argument is one of `values`."""
    rows: Rows = [(_LOAD, 0, 0, offset)]
    for value in values:
        rows += _refuse_if(_EQUAL, value)
    rows.append((_LOAD, 0, 0, _NUMBER))
    return [(_EQUAL, 0, len(rows), number), *rows]


def _allow_argument_only(number: int, offset: int, value: int) -> Rows:
    """Refuse the call `number` unless its argument is `value`."""
    rows: Rows = [
        (_LOAD, 0, 0, offset),
        (_EQUAL, 1, 0, value),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
    ]
    return [(_EQUAL, 0, len(rows), number), *rows]
