"""Child processes that end with the launcher, and whose output can be captured."""

import ctypes
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from common.interrupts import Interrupted, defer_interrupts

SECONDS_TO_END = 20  # a training saves a checkpoint
SECONDS_TO_OBEY = 3  # Ctrl-C, before TERM ends what doesn't
PR_SET_PDEATHSIG = 1  # prctl(2)
TAIL_BYTES = 16_384  # the launcher looks for known errors in this much output


@contextmanager
def child_process(command: list[str], **options: Any) -> Generator[subprocess.Popen[Any]]:
    """Start a child process and end it with this block: TERM first, then KILL.

    If this process is killed, the kernel kills the child.

    Args:
        command: The command and its arguments.
        **options: Options of `subprocess.Popen`. With `process_group=0`, grandchildren end too.
    """
    child: subprocess.Popen[Any] | None = None
    try:
        with defer_interrupts():  # a signal inside Popen would leave a child that nobody ends
            end_with_launcher = _end_with(os.getpid())
            child = subprocess.Popen(command, preexec_fn=end_with_launcher, **options)
        yield child
    except Interrupted as interrupted:
        if child is not None and _gets_ctrl_c(interrupted, options):
            with suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS_TO_OBEY)
        raise
    finally:
        if child is not None and child.poll() is None:
            _end(child, as_group=options.get("process_group") == 0)


def _gets_ctrl_c(interrupted: Interrupted, options: Mapping[str, Any]) -> bool:
    """Return whether a terminal sent Ctrl-C to the child process, too."""
    by_key = interrupted.args == (signal.SIGINT,) and sys.stdin.isatty()
    return by_key and "process_group" not in options


def _end_with(launcher: int) -> Callable[[], None]:
    """Return a function that, called in a child process, ends it with the launcher."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec this could deadlock

    def request() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # it ended before the request
            os.kill(os.getpid(), signal.SIGKILL)

    return request


def capture(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its stdout, as `subprocess.run` does; see `child_process`."""
    with child_process(command, stdout=subprocess.PIPE, text=True, **options) as child:
        out, err = child.communicate()
        return subprocess.CompletedProcess(command, child.returncode, out, err)


def _end(child: "subprocess.Popen[Any]", as_group: bool) -> None:
    send = os.killpg if as_group else os.kill
    send(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(SECONDS_TO_END)
    if as_group or child.returncode is None:
        with suppress(ProcessLookupError):  # they have all ended
            send(child.pid, signal.SIGKILL)
    child.wait()


def show_output(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run `command` and show its output on stderr, in color if that is a terminal.

    Returns:
        Its exit code and the last TAIL_BYTES bytes of its output.
    """
    ours, theirs = pty.openpty() if sys.stderr.isatty() else os.pipe()
    if sys.stderr.isatty():
        size = fcntl.ioctl(sys.stderr, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    tail = b""
    options: dict[str, Any] = {"stdout": theirs, "stderr": theirs, "env": environment}
    # It isn't in the terminal's foreground, so a question for a password would stop it.
    options["stdin"] = subprocess.DEVNULL
    try:
        with child_process(command, process_group=0, **options) as child:
            os.close(theirs)
            while chunk := _read(ours):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
                tail = (tail + chunk)[-TAIL_BYTES:]
            return child.wait(), tail.decode(errors="replace")
    finally:
        os.close(ours)


def _read(descriptor: int) -> bytes:
    """Return the next bytes, or b"" at the end, which a pty reports as an error (EIO)."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""
