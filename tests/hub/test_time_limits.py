"""When the hub stops a seat, in words."""

from hub.time_limits import describe


def test_both_limits_are_named_in_hours_or_minutes() -> None:
    assert describe(3600, 12 * 3600).startswith(
        "A seat is stopped when nobody has used it for 1 hour, and 12 hours after its start. "
    )
    assert describe(90 * 60, 0).startswith("A seat is stopped when nobody has used it for 90 min")
    assert describe(0, 60).startswith("A seat is stopped 1 minute after its start. Your files stay")


def test_without_limits_nothing_is_said() -> None:
    assert describe(0, 0) == ""
