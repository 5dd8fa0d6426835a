"""Slow down whoever guesses passwords."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

TRIES = 8  # wrong passwords for one name, until it has to wait
SECONDS_TO_WAIT = 60


@dataclass
class Tries:
    """Count wrong passwords for each name. A restart of the hub forgets them."""

    clock: Callable[[], float] = time.monotonic  # no jump of the wall clock changes it
    wrong: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def seconds_to_wait(self, name: str) -> int:
        """Return how long a name is refused; 0 if it may try."""
        recent = self._recent(name)
        if len(recent) < TRIES:
            return 0
        return max(1, round(recent[-TRIES] + SECONDS_TO_WAIT - self.clock()))

    def add_wrong(self, name: str) -> None:
        """Count a wrong password."""
        self.wrong[name] = [*self._recent(name), self.clock()]

    def forget(self, name: str) -> None:
        """Start to count again, after the right password."""
        self.wrong.pop(name, None)

    def _recent(self, name: str) -> list[float]:
        since = self.clock() - SECONDS_TO_WAIT
        return [when for when in self.wrong.get(name, ()) if when > since]
