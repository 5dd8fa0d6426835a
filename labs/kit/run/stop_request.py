"""A request to save a checkpoint and stop: USR1, which Slurm sends before a time limit, or Ctrl-C.

Only a training follows it. USR1 is noted also before the training begins, and everything else goes
on until the limit. Outside of a training, Ctrl-C and TERM have their usual effect.
"""

import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

ENDS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a launcher or an engine sends
_arrived = 0
_before: dict[int, Any] = {}  # the handlers of ENDS before the training


def hold() -> None:
    """Hold USR1 back: it would end this process, and the children that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))


def listen() -> None:
    """Note Ctrl-C, TERM and USR1 from now on, and a USR1 that was held back."""
    for number in ENDS:
        if signal.getsignal(number) not in (signal.SIG_IGN, _note):
            _before[number] = signal.signal(number, _note)
    _handle_usr1_with(_note)


def arrived() -> int:
    """Return the signal that has arrived; 0 if none has."""
    return _arrived


def end() -> None:
    """Give Ctrl-C and TERM their usual effect again.

    Raises:
        KeyboardInterrupt: if one of them has arrived.
    """
    global _arrived
    while _before:
        signal.signal(*_before.popitem())
    if _arrived in ENDS:
        _arrived = 0
        raise KeyboardInterrupt


@contextmanager
def passed_on_to(processes: Sequence[int]) -> Generator[None]:
    """Send USR1, also one that was held back, and TERM to these processes in this block.

    Ctrl-C isn't passed on: a terminal sends it to all of them.
    """

    def send(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)

    _handle_usr1_with(send)
    before = signal.signal(signal.SIGTERM, send)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _handle_usr1_with(handler: Callable[[int, FrameType | None], None]) -> None:
    signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))


def _note(number: int, frame: FrameType | None) -> None:
    """Note a signal; a second Ctrl-C doesn't wait for the checkpoint."""
    global _arrived
    if number == _arrived == signal.SIGINT:
        signal.default_int_handler(number, frame)
    _arrived = number
