"""When and why a seat ended, until it starts again."""

from datetime import timedelta
from pathlib import Path

from hub import seat_ends
from hub.quota import Growth
from hub.seat_times import SeatTimes

import pytest

NOW = 1_700_000_000
REASON = seat_ends.stopped("nobody used it for 1 hour.", "unused for 1 hour")


def test_a_reason_is_remembered_until_the_seat_starts_again(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    assert seat_ends.read(tmp_path, "ada") is None
    seat_ends.record(tmp_path, "ada", REASON, NOW)
    end = seat_ends.read(tmp_path, "ada")
    assert end is not None
    assert (end.when, end.state, end.brief) == (
        "2023-11-14T22:13:20Z",
        "stopped",
        "unused for 1 hour",
    )
    assert f"Your seat {end.before} 22:13{end.after}" == (
        "Your seat was stopped at 22:13: nobody used it for 1 hour."
    )
    assert seat_ends.read(tmp_path, "ben") is None
    seat_ends.forget(tmp_path, "ada")
    seat_ends.forget(tmp_path, "ada")
    assert seat_ends.read(tmp_path, "ada") is None


def test_each_reason_has_words_for_the_learner_and_for_the_teacher() -> None:
    growth = Growth(60 * 2**20, {"ada": 350 * 2**20, "eve": None})
    reason = growth.reason("ada")
    assert reason.after == ": your files take 350 of 60 MB. Delete some once it runs again."
    assert reason.brief == "quota, 350 of 60 MB"
    assert growth.reason("eve").brief == "files can't be measured"
    times = SeatTimes(3600, 0, lambda: 0.0)
    times.since["/user/ada/", "last_activity"] = ("2026-11-29T08:00:00Z", -3600.0)
    server = {"url": "/user/ada/", "started": "2026-11-29T08:00:00Z", "last_activity": None}
    unused = times.reason_to_stop(inactive=timedelta(hours=1), server=server)
    assert unused is not None and unused.brief == "unused for 1 hour"


@pytest.mark.parametrize(
    "damaged", [b"", b"\x00", b"[]", b'{"when": 1}', b"\xff", b'{"when": "2023", "reason": "a"}']
)
def test_a_file_that_a_power_failure_damaged_is_no_reason(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "state").mkdir()
    seat_ends.record(tmp_path, "ada", REASON, NOW)
    (file,) = (tmp_path / "state" / seat_ends.ENDS).iterdir()
    file.write_bytes(damaged)
    assert seat_ends.read(tmp_path, "ada") is None


def test_a_disk_that_is_full_doesn_t_keep_a_seat_running(tmp_path: Path) -> None:
    seat_ends.record(tmp_path, "ada", REASON, NOW)  # without the folder state/
    assert seat_ends.read(tmp_path, "ada") is None
