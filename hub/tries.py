"""Slow down whoever guesses passwords."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

TRIES = 8  # wrong passwords for one name from one source, until this name has to wait there
SECONDS_TO_WAIT = 60
MOST_COUNTED = 4096  # sources with a name; the one whose last wrong password is oldest goes first
ANY_NAME = ""


@dataclass
class Tries:
    """Count wrong passwords by source and name. A restart of the hub forgets them.

    A source is an address, or a browser in which somebody has logged in with this name before. So
    no flood from elsewhere makes anybody wait.

    Attributes:
        most: The wrong passwords for all learners' names together from one source, until all
            learners there have to wait: one shared password can be guessed under any name.
        clock: The time in seconds; no jump of the wall clock changes it.
        wrong: The times of recent wrong passwords.
    """

    most: int = TRIES
    clock: Callable[[], float] = time.monotonic
    wrong: dict[tuple[str, str], list[float]] = field(
        default_factory=dict[tuple[str, str], list[float]]
    )

    def seconds_to_wait(self, source: str, name: str, is_teacher: bool) -> int:
        """Return how long a name is refused from a source; 0 if it may try.

        Only wrong passwords for the teacher's own name make the teacher wait.
        """
        wait = self._wait((source, name), TRIES)
        return wait if is_teacher else max(wait, self._wait((source, ANY_NAME), self.most))

    def add_wrong(self, source: str, name: str, is_teacher: bool) -> None:
        """Count a wrong password."""
        self._add((source, name))
        if not is_teacher:
            self._add((source, ANY_NAME))

    def forget(self, source: str, name: str) -> None:
        """Start to count again, after the right password."""
        self.wrong.pop((source, name), None)

    def _wait(self, key: tuple[str, str], most: int) -> int:
        recent = self._recent(key)
        if len(recent) < most:
            return 0
        return max(1, round(recent[-most] + SECONDS_TO_WAIT - self.clock()))

    def _add(self, key: tuple[str, str]) -> None:
        times = [*self._recent(key), self.clock()]
        self.wrong.pop(key, None)
        self.wrong[key] = times  # the last key
        if len(self.wrong) > MOST_COUNTED:
            del self.wrong[next(iter(self.wrong))]

    def _recent(self, key: tuple[str, str]) -> list[float]:
        since = self.clock() - SECONDS_TO_WAIT
        return [when for when in self.wrong.get(key, ()) if when > since]
