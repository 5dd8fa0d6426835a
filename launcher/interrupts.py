"""INT, TERM and HUP, in one way: the first one raises, so that what was started is ended."""

import signal
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the system, wants this to end."""


class Interrupts:
    """While entered, the first of the signals raises Interrupted; the clean-up is left in peace.

    Without this, TERM and HUP end Python on the spot, and a container that it started lives on.
    A signal that was ignored from the start, as HUP under nohup, stays ignored.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._held = False
        self._arrived = False
        self._raised = False

    def __enter__(self) -> "Interrupts":
        _ENTERED.append(self)
        for one in SIGNALS:
            if signal.getsignal(one) is not signal.SIG_IGN:
                self._before[one] = signal.signal(one, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        _ENTERED.remove(self)

    def _handle(self, _signum: int, _frame: FrameType | None) -> None:
        self._arrived = True
        if not self._held:
            self._raise_once()

    def _raise_once(self) -> None:
        if self._arrived and not self._raised:
            self._raised = True
            raise Interrupted

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
