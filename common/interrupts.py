"""Handle INT, TERM and HUP alike: the first signal raises, so that clean-up code runs."""

import signal
import weakref
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

INTERRUPTED = 130  # exit code
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_BETWEEN_REMINDERS = 0.2


class Interrupted(BaseException):
    """The user or the system wants this process to end. The argument is the signal.

    Attributes:
        explained: whether the user knows what ends and what goes on.
    """

    explained = False


class Interrupts:
    """While entered, raise Interrupted at the first signal, and ignore later ones.

    By default TERM and HUP end Python at once, and a container that it started lives on. A signal
    that was ignored from the start, such as HUP under nohup, stays ignored.

    Python can lose the exception. While it finalizes a file or a response of the engine, it drops
    exceptions silently (iobase_finalize in CPython's Modules/_io/iobase.c), and a signal just
    before a system call doesn't interrupt that call. So an alarm repeats until the context exits:
    if the exception object no longer exists, Python dropped it, and the alarm raises a new one.
    """

    def __init__(self) -> None:
        """Create a handler that isn't active yet."""
        self._before: dict[signal.Signals, Any] = {}
        self._deferred = False
        self._arrived: int | None = None
        self._raised: weakref.ref[Interrupted] | None = None

    def __enter__(self) -> "Interrupts":
        """Install the signal handlers."""
        _active.append(self)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._remind)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the signal handlers from before."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _active.remove(self)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self._arrived = self._arrived or signum
        signal.setitimer(signal.ITIMER_REAL, SECONDS_BETWEEN_REMINDERS, SECONDS_BETWEEN_REMINDERS)
        self._raise_once()

    def _remind(self, _signum: int, _frame: FrameType | None) -> None:
        self._raise_once()

    def _raise_once(self) -> None:
        if not self._arrived or self._deferred or (self._raised and self._raised()):
            return
        interrupted = Interrupted(self._arrived)
        self._raised = weakref.ref(interrupted)
        try:
            raise interrupted
        finally:
            del interrupted  # otherwise its own traceback could keep it alive

    @contextmanager
    def deferred(self) -> Generator[None]:
        """Defer signals to the end of this block, so that what it creates can be cleaned up."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self._raise_once()


@contextmanager
def leave_ctrl_c_to_child() -> Generator[None]:
    """Ignore INT in this block: the terminal sends it to the child process, too, which obeys it."""
    # Not SIG_IGN, which the child would inherit.
    before = signal.signal(signal.SIGINT, _ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    pass


_active: list[Interrupts] = []


def defer_interrupts() -> AbstractContextManager[None]:
    """Defer signals of the innermost active Interrupts, if there is one."""
    return _active[-1].deferred() if _active else nullcontext()
