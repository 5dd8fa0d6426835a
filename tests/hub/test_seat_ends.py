"""Why the hub stopped a seat, until the seat starts again."""

from pathlib import Path

from hub import seat_ends

import pytest

NOW = 1_700_000_000


def test_a_reason_is_remembered_until_the_seat_starts_again(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    assert seat_ends.read(tmp_path, "ada") == {}
    seat_ends.record(tmp_path, "ada", "nobody used it for 1 hour.", NOW)
    end = {"when": "2023-11-14T22:13:20Z", "reason": "nobody used it for 1 hour."}
    assert seat_ends.read(tmp_path, "ada") == end
    assert seat_ends.read(tmp_path, "ben") == {}
    seat_ends.forget(tmp_path, "ada")
    seat_ends.forget(tmp_path, "ada")
    assert seat_ends.read(tmp_path, "ada") == {}


@pytest.mark.parametrize("damaged", [b"", b"\x00", b"[]", b'{"when": 1}', b"\xff"])
def test_a_file_that_a_power_failure_damaged_is_no_reason(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "state").mkdir()
    seat_ends.record(tmp_path, "ada", "a reason", NOW)
    (file,) = (tmp_path / "state" / seat_ends.ENDS).iterdir()
    file.write_bytes(damaged)
    assert seat_ends.read(tmp_path, "ada") == {}


def test_a_disk_that_is_full_doesn_t_keep_a_seat_running(tmp_path: Path) -> None:
    seat_ends.record(tmp_path, "ada", "a reason", NOW)  # without the folder state/
    assert seat_ends.read(tmp_path, "ada") == {}
