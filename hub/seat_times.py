"""Which seats have reached the times `idle` and `longest`, also if the server's clock jumps.

JupyterHub writes times of the wall clock. If it jumps ahead by two hours, every seat looks as if
nobody had used it for two hours. So a seat counts as unused only if its last activity has also
stayed the same for as long by the monotonic clock, which never jumps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hub.seat_ends import Reason, stopped
from hub.time_limits import in_words

REST = "Your files are saved."


@dataclass
class SeatTimes:
    """Compare seats with the limits, again and again.

    Attributes:
        idle: The seconds after which an unused seat is stopped; 0 is never.
        longest: The seconds after which any seat is stopped; 0 is never.
        clock: The monotonic clock.
        since: By the URL of a seat and what changes: its last value, and when it came.
    """

    idle: int
    longest: int
    clock: Callable[[], float] = time.monotonic
    since: dict[tuple[str, str], tuple[str, float]] = field(
        default_factory=dict[tuple[str, str], tuple[str, float]]
    )

    def reason_to_stop(
        self, *, inactive: timedelta, server: dict[str, Any], now: datetime | None = None
    ) -> Reason | None:
        """Return why a seat is to be stopped, or None.

        Args:
            inactive: The time since its last activity, by the wall clock.
            server: The hub's model of the seat.
            now: The time of the wall clock.
        """
        started: str = server["started"]
        age = ((now or datetime.now(UTC)) - datetime.fromisoformat(started)).total_seconds()
        # The hub may have started after the seat; only then the wall clock decides how old it is.
        age = self._seconds_since(server, "started", started, max(0.0, age))
        unused = self._seconds_since(server, "last_activity", server["last_activity"] or started)
        unused = min(unused, inactive.total_seconds())
        if 0 < self.longest <= age:
            limit = in_words(self.longest)
            return stopped(f"it had run for {limit}. {REST}", f"ran for {limit}")
        if 0 < self.idle <= unused:
            limit = in_words(self.idle)
            return stopped(f"nobody used it for {limit}. {REST}", f"unused for {limit}")
        return None

    def _seconds_since(
        self, server: dict[str, Any], name: str, value: str, seconds_before: float = 0
    ) -> float:
        """Return for how long a value of a seat is the same, by the monotonic clock.

        Args:
            server: The hub's model of the seat.
            name: The name of the value.
            value: The value now.
            seconds_before: For how long it was the same before this object first saw it.
        """
        key = (server["url"], name)
        if key not in self.since or self.since[key][0] != value:
            self.since[key] = (value, self.clock() - seconds_before)
        return self.clock() - self.since[key][1]
