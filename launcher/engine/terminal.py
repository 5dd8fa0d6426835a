"""Connect the user's terminal to a container's: same size, and keys go to the container.

The launcher itself handles Ctrl-C, so that it ends the container even if the lab is busy. A chat
gets Ctrl-C, which stops a reply; pressed three times in a row, it reaches the launcher, too.
"""

import os
import select
import shutil
import signal
import socket
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
CTRL_C = b"\x03"
CTRL_C_TO_END = 3  # in a row
DISABLED = b"\0"  # termios: no key
CC = 6  # the index of the control characters in termios' attributes


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
def forward_keys(container: "Container", with_ctrl_c: bool = False) -> Generator[None]:
    """Send each key to the container, whose terminal echoes it.

    Args:
        container: The container.
        with_ctrl_c: Whether Ctrl-C is sent, too, instead of interrupting the launcher.
    """
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
        if with_ctrl_c:
            _disable_ctrl_c(keyboard)
        forward.start()
        yield
    finally:
        done.set()
        forward.join()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        stream.close()


def _disable_ctrl_c(keyboard: int) -> None:
    """Make Ctrl-C a key like others. Ctrl-Z still stops the launcher, which can be continued."""
    attributes: Any = termios.tcgetattr(keyboard)
    attributes[CC][termios.VINTR] = DISABLED
    termios.tcsetattr(keyboard, termios.TCSANOW, attributes)


@contextmanager
def forward_input(container: "Container") -> Generator[None]:
    """Send standard input to the container, and its end."""
    stream: Any = container.attach_socket(params={"stdin": 1, "stream": 1})
    # A daemon: reading standard input can't be ended from here.
    threading.Thread(target=_send_all, args=(stream,), daemon=True).start()
    yield


def _send_all(stream: Any) -> None:
    connection = getattr(stream, "_sock", stream)  # the SDK opens its stream for reading only
    with suppress(OSError):  # the container has ended
        while chunk := os.read(sys.stdin.fileno(), 65_536):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)


def _forward(keyboard: int, stream: Any, done: threading.Event) -> None:
    connection = getattr(stream, "_sock", stream)  # the SDK opens its stream for reading only
    interrupts = 0
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
            connection.sendall(keys)
        except OSError:  # the terminal is gone, or the container has ended
            return
        interrupts = interrupts + 1 if keys == CTRL_C else 0
        if interrupts == CTRL_C_TO_END:
            os.kill(os.getpid(), signal.SIGINT)


def _in_foreground(keyboard: int) -> bool:
    try:
        return os.tcgetpgrp(keyboard) == os.getpgrp()
    except OSError:  # not our controlling terminal, so reading it can't stop us
        return True
