"""The user's terminal and a container's: one size, and what is typed into one arrives in the other.

Ctrl-C stays the launcher's own: it ends the container, however busy that is.
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
    from docker.models.containers import Container as Running

SHOW_THE_CURSOR = "\x1b[?25h"
SECONDS_BETWEEN_LOOKS = 0.2


def can_type() -> bool:
    """Is somebody at a terminal, who sees what comes and can answer?"""
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def same_size(running: "Running") -> Generator[None]:
    """Keep the container's terminal, which starts with no size at all, as large as the user's."""

    def resize(*_: object) -> None:
        from docker.errors import APIError

        columns, lines = shutil.get_terminal_size()
        with suppress(APIError):  # it may have ended just now
            running.resize(height=lines, width=columns)

    before = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        sys.stdout.write(SHOW_THE_CURSOR)  # a progress bar that was cut short has hidden it
        sys.stdout.flush()


@contextmanager
def typing(running: "Running") -> Generator[None]:
    """Pass on what is typed, key by key; the container's terminal echoes it."""
    keyboard = sys.stdin.fileno()
    if not _in_the_foreground(keyboard):  # a shell's `&`: touching the terminal would stop us
        yield
        return
    stream: Any = running.attach_socket(params={"stdin": 1, "stream": 1})
    before, done = termios.tcgetattr(keyboard), threading.Event()
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
    socket = getattr(stream, "_sock", stream)  # the SDK's own is opened for reading alone
    while not done.is_set():
        ready = select.select([keyboard], [], [], SECONDS_BETWEEN_LOOKS)[0]
        if not ready:
            continue
        if not _in_the_foreground(keyboard):
            done.wait(SECONDS_BETWEEN_LOOKS)
            continue
        try:
            keys = os.read(keyboard, 1024)
            if not keys:
                return
            socket.sendall(keys)
        except OSError:  # the terminal is gone, or the container has ended
            return


def _in_the_foreground(keyboard: int) -> bool:
    try:
        return os.tcgetpgrp(keyboard) == os.getpgrp()
    except OSError:  # it isn't our controlling terminal: nobody can stop us for reading it
        return True
