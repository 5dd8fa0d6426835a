"""Copies of all work at the start of the hub, and at `invoke hub --stop`."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hub import archive, copies, state

import pytest

NOW = 1_700_000_000.0


def engine_with(seats: list[str]) -> Any:
    return SimpleNamespace(containers=SimpleNamespace(list=lambda **_: seats))


def names(workshop: Path) -> list[str]:
    return sorted(path.name for path in (workshop / "copies").glob("*"))


def age(workshop: Path, seconds: float) -> None:
    """Let the only copy have an age."""
    (path,) = (workshop / "copies").iterdir()
    os.utime(path, (NOW - seconds, NOW - seconds))


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workshop with work of Ada, at a time that stands still."""
    (tmp_path / "learners" / "ada" / "work").mkdir(parents=True)
    (tmp_path / "learners" / "ada" / "work" / "sheet.py").write_text("1")
    monkeypatch.setattr(time, "time", lambda: NOW)
    return tmp_path


def test_the_next_copy_is_due_when_the_last_one_is_ten_minutes_old(workshop: Path) -> None:
    assert archive.seconds_until_due(workshop, NOW) == 0
    archive.copy(workshop, NOW)
    for seconds, due in ((0, 600), (480, 120), (600, 0), (7200, 0), (-7200, 0)):
        age(workshop, seconds)
        assert archive.seconds_until_due(workshop, NOW) == due


def test_a_hub_that_starts_again_copies_what_is_due_and_waits_for_the_rest(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    copies.copy_when_due(workshop, engine_with([]), "me")
    assert names(workshop) == []
    copies.copy_when_due(workshop, engine_with(["ada"]), "me")
    assert len(names(workshop)) == 1
    age(workshop, 480)
    copies.copy_when_due(workshop, engine_with(["ada"]), "me")
    assert waited == [0, 0, 120]


def test_a_copy_at_the_stop_prints_its_name_or_why_there_is_none(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "WORKSHOP", workshop)
    assert copies.main([]) == 0
    assert capsys.readouterr().out.split() == names(workshop)
    monkeypatch.setattr(state, "WORKSHOP", workshop / "nowhere")
    assert copies.main([]) == 1
    assert "No such file" in capsys.readouterr().err
