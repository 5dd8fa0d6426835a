"""End a container's lab when its launcher is gone: killed, or lost with its terminal.

The launcher holds a lock on a file in outputs/ (launcher/engine/heartbeat.py). A small process
waits for that lock: if it gets the lock, the launcher has ended. Docker Compose sets no lock.
"""

import ctypes
import fcntl
import os
import signal
import time

VARIABLE = "LABS_LAUNCHER_LOCK"
SECONDS_TO_END = 5
PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_launcher() -> None:
    """Start the process that ends this one when the launcher has ended."""
    path = os.environ.pop(VARIABLE, "")  # child processes end with this one
    if not path:
        return
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    lab = os.getpid()
    if _is_held(lock) and os.fork() == 0:
        _wait(lock, lab)
    os.close(lock)


def _is_held(lock: int) -> bool:
    """Return whether the lock is held; it never is if the engine runs in a virtual machine."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _wait(lock: int, lab: int) -> None:
    """Wait for the lock, then end the lab: TERM first, then KILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the terminal is the launcher's
    os.closerange(0, 3)
    try:
        if os.getppid() == lab:
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.kill(lab, signal.SIGTERM)
            time.sleep(SECONDS_TO_END)
            os.kill(lab, signal.SIGKILL)
    finally:
        os._exit(0)
