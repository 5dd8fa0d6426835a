"""Read single key presses from the terminal, and restore its settings however that ends."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # INT raises KeyboardInterrupt already


class TerminalGone(Exception):
    """Nobody can press a key any more: the terminal was closed."""


class Keyboard:
    """The keys of a terminal; without a terminal, no key is ever pressed."""

    def __init__(self, descriptor: int | None) -> None:
        """Create a keyboard; `descriptor` is a terminal, or None."""
        self._descriptor = descriptor
        self._before = None if descriptor is None else termios.tcgetattr(descriptor)

    @property
    def exists(self) -> bool:
        """Return whether there is a terminal."""
        return self._descriptor is not None

    def pressed(self) -> str:
        """Return the keys that were pressed since the last call, in lower case.

        Raises:
            TerminalGone: If the terminal was closed.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return ""
        try:
            if not _in_foreground(descriptor):  # reading, or another mode, would stop this process
                return ""
            # Set again each time: a shell resets the mode of a stopped job's terminal.
            tty.setcbreak(descriptor, termios.TCSANOW)
            if not select.select([descriptor], [], [], 0)[0]:
                return ""
            keys = os.read(descriptor, 1024)
        except (OSError, termios.error) as error:
            raise TerminalGone from error
        if not keys:
            raise TerminalGone
        return keys.decode(errors="replace").lower()

    def restore(self) -> None:
        """Give the terminal its settings from before."""
        if self._descriptor is None or self._before is None:
            return
        with suppress(OSError, termios.error):  # the terminal is gone
            if _in_foreground(self._descriptor):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


@contextmanager
def open_keyboard() -> Generator[Keyboard]:
    """Yield the keyboard; restore the terminal at the end of this block, also after TERM or HUP.

    Raises:
        SystemExit: On TERM or HUP, with 128 plus the signal's number.
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    keyboard = Keyboard(sys.stdin.fileno() if interactive else None)
    before = {
        number: signal.signal(number, _exit)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield keyboard
    finally:
        keyboard.restore()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not our controlling terminal, so reading it can't stop us
        return True
