"""Connect the user's terminal to a container's: same size, and keys go to the container.

The launcher itself handles Ctrl-C, so that it ends the container even if the lab is busy.
"""

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docker.models.containers import Container

SHOW_CURSOR = "\x1b[?25h"
POLL_SECONDS = 0.2


def is_interactive() -> bool:
    """Return whether a user at a terminal can see the output and type."""
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def sync_size(container: "Container") -> Generator[None]:
    """Give the container's terminal, which starts without a size, the size of the user's."""

    def resize(*_: object) -> None:
        from docker.errors import APIError

        columns, lines = shutil.get_terminal_size()
        with suppress(APIError):  # the container may have just ended
            container.resize(height=lines, width=columns)

    before = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        sys.stdout.write(SHOW_CURSOR)  # an interrupted progress bar leaves it hidden
        sys.stdout.flush()


@contextmanager
def forward_keys(container: "Container") -> Generator[None]:
    """Send each key to the container, whose terminal echoes it."""
    keyboard = sys.stdin.fileno()
    if not _in_foreground(keyboard):  # started with `&`: touching the terminal would stop us
        yield
        return
    stream: Any = container.attach_socket(params={"stdin": 1, "stream": 1})
    before = termios.tcgetattr(keyboard)
    done = threading.Event()
    forward = threading.Thread(target=_forward, args=(keyboard, stream, done), daemon=True)
    try:
        tty.setcbreak(keyboard)
        forward.start()
        yield
    finally:
        done.set()
        forward.join()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        stream.close()


def _forward(keyboard: int, stream: Any, done: threading.Event) -> None:
    socket = getattr(stream, "_sock", stream)  # the SDK opens its stream for reading only
    while not done.is_set():
        ready = select.select([keyboard], [], [], POLL_SECONDS)[0]
        if not ready:
            continue
        if not _in_foreground(keyboard):
            done.wait(POLL_SECONDS)
            continue
        try:
            keys = os.read(keyboard, 1024)
            if not keys:
                return
            socket.sendall(keys)
        except OSError:  # the terminal is gone, or the container has ended
            return


def _in_foreground(keyboard: int) -> bool:
    try:
        return os.tcgetpgrp(keyboard) == os.getpgrp()
    except OSError:  # not our controlling terminal, so reading it can't stop us
        return True
