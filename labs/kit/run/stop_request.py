"""A request to save a checkpoint and stop: the signal USR1, which Slurm sends before a time limit.

Only a training follows it. Everything else ignores it, and goes on until the limit.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

_arrived = False


def ignore() -> None:
    """Ignore the signal, which would end this process and its children otherwise."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def listen() -> None:
    """Note the signal from now on."""
    signal.signal(signal.SIGUSR1, _note)


def arrived() -> bool:
    """Return whether the signal has arrived."""
    return _arrived


def pass_on_to(processes: Sequence[int]) -> None:
    """Send each later signal to these processes, too."""

    def send(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)

    signal.signal(signal.SIGUSR1, send)


def _note(_number: int, _frame: FrameType | None) -> None:
    global _arrived
    _arrived = True
