"""The line of learners who wait for GPUs: first come, first served."""

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic
from typing import Protocol

from launcher.gpu.model import Gpu

SECONDS_TO_LEAVE = 60  # without an open page
SECONDS_BETWEEN_TRIES = 2
SECONDS_BETWEEN_MESSAGES = 5


class GpuPool(Protocol):
    """The GPUs that seats take and release, such as `SeatLeases`."""

    def take(self, learner: str) -> tuple[Gpu, ...]:
        """Take GPUs for a learner and return them; none if too many are taken."""
        ...

    def release(self, learner: str) -> None:
        """Release a learner's GPUs, if there are any."""
        ...


class LeftTheLine(Exception):
    """A learner closed the page while waiting. JupyterHub shows the message."""

    jupyterhub_message = (
        "All GPUs were taken, and the page that waits for one was closed for a minute, "
        "so your place in the line is gone."
    )


class WaitingLine:
    """Learners who wait for GPUs."""

    def __init__(self, pool: GpuPool) -> None:
        """Create an empty line.

        Args:
            pool: The GPUs of seats.
        """
        self._pool = pool
        # When each learner's page last asked for a message, in the order of the line.
        self._last_request: dict[str, float] = {}

    async def wait(self, name: str) -> tuple[Gpu, ...]:
        """Wait until a learner has GPUs, and return them.

        Raises:
            LeftTheLine: If the learner closes the page.
            Card: If the leases can't be used.
        """
        self._last_request[name] = monotonic()
        try:
            while not (gpus := await self._try(name)):
                if monotonic() - self._last_request[name] > SECONDS_TO_LEAVE:
                    raise LeftTheLine
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)
            return gpus
        finally:
            del self._last_request[name]

    async def _try(self, name: str) -> tuple[Gpu, ...]:
        """Return GPUs for the first in the line, and none for others."""
        if next(iter(self._last_request)) != name:
            return ()
        taking = asyncio.ensure_future(asyncio.to_thread(self._pool.take, name))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.wait([taking])  # a thread can't be cancelled
            self._pool.release(name)
            raise

    async def messages(self, name: str) -> AsyncGenerator[str]:
        """Yield what a waiting learner reads, again and again, to the end of the waiting.

        A learner whose page asks for the next message is there.
        """
        while name in self._last_request:
            self._last_request[name] = monotonic()
            yield _message(list(self._last_request).index(name), len(self._last_request))
            await asyncio.sleep(SECONDS_BETWEEN_MESSAGES)


def _message(before: int, waiting: int) -> str:
    place = "You are the first" if before == 0 else f"{before} before you"
    line = f"{waiting} learner{'s wait' if waiting > 1 else ' waits'}"
    return f"All GPUs are taken. {line}: {place}. Your seat starts when a GPU is free."
