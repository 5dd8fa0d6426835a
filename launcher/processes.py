"""Child processes that are ended when the launcher is, and whose last words are kept."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from launcher.interrupts import held

SECONDS_TO_END = 10
KEPT = 16_384  # bytes of output that an error is looked for in


@contextmanager
def started(command: list[str], **how: Any) -> Generator[subprocess.Popen[Any]]:
    """A child process, which doesn't outlive this block: TERM first, KILL if that doesn't help.

    With `process_group=0` its own children are ended with it.
    """
    child: subprocess.Popen[Any] | None = None
    try:
        with held():  # a signal in the middle of this would leave a child that nobody knows of
            child = subprocess.Popen(command, **how)
        yield child
    finally:
        if child is not None and child.poll() is None:
            _end(child, as_group=how.get("process_group") == 0)


def answer(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """What a command prints and how it ends, as `subprocess.run` tells; see `started`."""
    with started(command, stdout=subprocess.PIPE, text=True, **how) as child:
        out, err = child.communicate()
        return subprocess.CompletedProcess(command, child.returncode, out, err)


def _end(child: "subprocess.Popen[Any]", as_group: bool) -> None:
    send = os.killpg if as_group else os.kill
    send(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(SECONDS_TO_END)
    if as_group or child.returncode is None:
        with suppress(ProcessLookupError):  # all have ended
            send(child.pid, signal.SIGKILL)
    child.wait()


def show_and_keep(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run `command` with its output on the user's screen, in colour where that is a terminal.

    Returns:
        Its exit code, and the end of what it printed.
    """
    ours, theirs = pty.openpty() if sys.stderr.isatty() else os.pipe()
    if sys.stderr.isatty():
        size = fcntl.ioctl(sys.stderr, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    kept = b""
    try:
        how: dict[str, Any] = {"stdout": theirs, "stderr": theirs, "env": environment}
        with started(command, process_group=0, **how) as child:
            os.close(theirs)
            while chunk := _read(ours):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
                kept = (kept + chunk)[-KEPT:]
            return child.wait(), kept.decode(errors="replace")
    finally:
        os.close(ours)


def _read(descriptor: int) -> bytes:
    """What is there; nothing at the end. A pty tells its end by an error (EIO)."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""
