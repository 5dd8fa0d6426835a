"""A request to save a checkpoint and stop: the signal USR1, which Slurm sends before a time limit.

Only a training follows it, also if the signal came before the training began. Everything else goes
on until the limit.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

_arrived = False


def hold() -> None:
    """Hold the signal back: it would end this process, and the children that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))


def listen() -> None:
    """Note the signal from now on, and one that was held back."""
    _handle_with(_note)


def arrived() -> bool:
    """Return whether the signal has arrived."""
    return _arrived


def pass_on_to(processes: Sequence[int]) -> None:
    """Send the signal to these processes from now on, and one that was held back."""

    def send(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)

    _handle_with(send)


def _handle_with(handler: Callable[[int, FrameType | None], None]) -> None:
    signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))


def _note(_number: int, _frame: FrameType | None) -> None:
    global _arrived
    _arrived = True
