"""When the hub stops a seat: by two clocks, and in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hub.seat_times import SeatTimes
from hub.time_limits import in_words, seconds_between_reports

import pytest

HOUR = 3600
START = datetime(2026, 11, 29, 8, tzinfo=UTC)


class Server:
    """A seat, which JupyterHub describes, on a server whose wall clock can jump."""

    def __init__(self, idle: int = HOUR, longest: int = 12 * HOUR) -> None:
        self.monotonic = 0.0
        self.wall = START
        self.model = {"url": "/user/ada/", "started": START.isoformat(), "last_activity": None}
        self.times = self.new_times(idle, longest)

    def new_times(self, idle: int = HOUR, longest: int = 12 * HOUR) -> SeatTimes:
        return SeatTimes(idle, longest, lambda: self.monotonic)

    def jump(self, hours: float) -> None:
        self.wall += timedelta(hours=hours)

    def use(self) -> None:
        """Report an activity; JupyterHub ignores times before the last one."""
        before = self.model["last_activity"] or ""
        self.model["last_activity"] = max(before, self.wall.isoformat())

    def is_over(self, minutes: float) -> bool:
        """Return whether the seat ends within some minutes; the hub looks in each of them."""
        for _ in range(int(minutes)):
            self.monotonic += 60
            self.wall += timedelta(minutes=1)
            if self._is_over_now():
                return True
        return False

    def _is_over_now(self) -> bool:
        last: Any = self.model["last_activity"] or self.model["started"]
        inactive = self.wall - datetime.fromisoformat(last)
        reason = self.times.reason_to_stop(inactive=inactive, server=self.model, now=self.wall)
        return reason is not None


def test_an_unused_seat_ends_and_a_used_one_goes_on_to_the_longest_time() -> None:
    server = Server()
    assert not server.is_over(58)
    server.use()
    assert not server.is_over(58)
    assert server.is_over(4)
    busy = Server()
    for _ in range(11):
        assert not busy.is_over(59)
        busy.use()
    assert busy.is_over(100)


@pytest.mark.parametrize("hours", [2, -2])
def test_no_seat_ends_early_because_the_clock_jumps(hours: float) -> None:
    server = Server()
    assert not server.is_over(50)
    server.use()
    server.jump(hours)
    for _ in range(6):  # in use, on both sides of the jump
        assert not server.is_over(55)
        server.use()


@pytest.mark.parametrize(("hours", "minutes"), [(2, 61), (-2, 3 * 60 + 1)])
def test_an_unused_seat_still_ends_after_a_jump(hours: float, minutes: int) -> None:
    server = Server()
    server.use()
    server.jump(hours)
    assert server.is_over(minutes)


@pytest.mark.parametrize("hours", [2, -2])
def test_a_jump_changes_nothing_about_the_longest_time(hours: float) -> None:
    server = Server(idle=0, longest=4 * HOUR)
    assert not server.is_over(60)
    server.jump(hours)
    assert not server.is_over(179)
    assert server.is_over(2)


def test_a_hub_that_starts_later_knows_how_old_a_seat_is() -> None:
    server = Server()
    server.wall += timedelta(hours=11)
    server.use()
    assert not server.is_over(1)
    server.use()
    assert server.is_over(60)


def test_a_new_seat_of_the_same_learner_begins_anew() -> None:
    server = Server(idle=0, longest=4 * HOUR)
    assert server.is_over(4 * 60 + 1)
    server.model["started"] = server.wall.isoformat()
    assert not server.is_over(4 * 60 - 1)


def test_a_seat_in_use_reports_several_times_within_the_idle_time() -> None:
    assert [seconds_between_reports(idle) for idle in (0, 60, 3600)] == [60, 15, 60]


def test_the_reason_names_the_limit_that_was_reached() -> None:
    times = SeatTimes(HOUR, 12 * HOUR, lambda: 0.0)
    model = {"url": "/user/ada/", "started": START.isoformat(), "last_activity": None}
    late = START + timedelta(hours=12)
    reason = times.reason_to_stop(inactive=timedelta(), server=model, now=late)
    assert reason is not None and reason.after.startswith(": it had run for 12 hours.")
    assert reason.brief == "ran for 12 hours"
    young = {**model, "url": "/user/ben/"}
    assert times.reason_to_stop(inactive=timedelta(), server=young, now=START) is None


def test_a_limit_is_named_in_hours_or_minutes() -> None:
    named = [in_words(seconds) for seconds in (3600, 12 * 3600, 90 * 60, 60)]
    assert named == ["1 hour", "12 hours", "90 minutes", "1 minute"]
