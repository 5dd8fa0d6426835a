"""INT, TERM and HUP, in one way: the first one raises, so that what was started is ended."""

import signal
import weakref
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_BETWEEN_REMINDERS = 0.2


class Interrupted(BaseException):
    """The user, or the system, wants this to end."""


class Interrupts:
    """While entered, the first of the signals raises Interrupted; the clean-up is left in peace.

    Without this, TERM and HUP end Python on the spot, and a container that it started lives on.
    A signal that was ignored from the start, as HUP under nohup, stays ignored.

    Where Python happens to be finalizing a file or a response of the engine, it drops what is
    raised without a word (iobase_finalize in CPython's Modules/_io/iobase.c), and a signal that
    comes just before a system call does not break it off. So an alarm reminds of it, until this is
    left: an exception that is gone before that was dropped, and is raised again.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._held = False
        self._arrived = False
        self._raised: weakref.ref[Interrupted] | None = None

    def __enter__(self) -> "Interrupts":
        _ENTERED.append(self)
        for one in SIGNALS:
            if signal.getsignal(one) is not signal.SIG_IGN:
                self._before[one] = signal.signal(one, self._handle)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._remind)
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in self._before.items():
            signal.signal(one, handler)
        _ENTERED.remove(self)

    def _handle(self, _signum: int, _frame: FrameType | None) -> None:
        self._arrived = True
        signal.setitimer(signal.ITIMER_REAL, SECONDS_BETWEEN_REMINDERS, SECONDS_BETWEEN_REMINDERS)
        self._raise_once()

    def _remind(self, _signum: int, _frame: FrameType | None) -> None:
        self._raise_once()

    def _raise_once(self) -> None:
        if not self._arrived or self._held or (self._raised and self._raised()):
            return
        interrupted = Interrupted()
        self._raised = weakref.ref(interrupted)
        try:
            raise interrupted
        finally:
            del interrupted  # else its own traceback could keep it alive

    @contextmanager
    def held(self) -> Generator[None]:
        """Put a signal off until the end of this block: what it makes must not be lost sight of."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._raise_once()


_ENTERED: list[Interrupts] = []


def held() -> AbstractContextManager[None]:
    """The same for who isn't handed the Interrupts; nothing where there are none."""
    return _ENTERED[-1].held() if _ENTERED else nullcontext()
