"""When a learner was last here: a person's doing, and not the start or the end of a seat."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hub import presence

import pytest

START = datetime(2026, 11, 29, 8, tzinfo=UTC)


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path


def user(minutes: float) -> dict[str, Any]:
    """Return the hub's model of Ada, whose seat was active some minutes after its start."""
    active = (START + timedelta(minutes=minutes)).isoformat()
    server = {"ready": True, "started": START.isoformat(), "last_activity": active}
    return {"name": "ada", "servers": {"": server}}


def minutes_after_start(workshop: Path) -> float:
    return (presence.last_seen(workshop, "ada") - START.timestamp()) / 60


def test_the_start_of_a_seat_is_nobody_s_activity(workshop: Path) -> None:
    presence.record_activities(workshop, [user(minutes=2)])
    assert presence.last_seen(workshop, "ada") == 0
    assert not presence.is_here(workshop, "ada", user(2)["servers"][""])


def test_an_activity_long_after_the_start_is_a_person_s(workshop: Path) -> None:
    """Somebody who is logged in since the day before opens the seat without a login."""
    presence.record_activities(workshop, [user(minutes=10)])
    assert minutes_after_start(workshop) == 10


def test_an_activity_after_the_login_is_a_person_s(workshop: Path) -> None:
    presence.record(workshop, "ada", START.timestamp() + 60)
    assert presence.is_here(workshop, "ada", user(2)["servers"][""])
    presence.record_activities(workshop, [user(minutes=3)])
    assert minutes_after_start(workshop) == 3


def test_a_login_before_the_start_of_the_seat_does_not_count(workshop: Path) -> None:
    presence.record(workshop, "ada", START.timestamp() - 3600)
    presence.record_activities(workshop, [user(minutes=2)])
    assert minutes_after_start(workshop) == -60
    assert not presence.is_here(workshop, "ada", user(2)["servers"][""])


@pytest.mark.parametrize(("seconds", "begins"), [(0.5, True), (-0.5, True), (3, False)])
def test_a_route_that_begins_is_nobody_s_activity(seconds: float, begins: bool) -> None:
    """A proxy that starts again gets to know each seat, and reports that as its activity."""
    active = (START + timedelta(seconds=seconds)).isoformat()
    route = {"user": "ada", "last_activity": active}
    assert presence.is_beginning(route, {"ada": START.timestamp()}) is begins
    assert not presence.is_beginning(route, {"ben": START.timestamp()})
    assert not presence.is_beginning({"user": "ada"}, {"ada": START.timestamp()})


def test_an_earlier_time_changes_nothing_and_neither_does_a_seat_that_ended(workshop: Path) -> None:
    presence.record(workshop, "ada", START.timestamp() + 3600)
    presence.record(workshop, "ada", START.timestamp())
    presence.record_activities(workshop, [{"name": "ada", "servers": {}}])
    assert minutes_after_start(workshop) == 60
