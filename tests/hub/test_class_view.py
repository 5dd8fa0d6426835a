"""What the teacher sees of each learner, whatever the learner has put into the folder."""

import errno
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from common.syllabus import find
from hub import archive, class_view, handout, presence, seat_ends
from labs.cli.progress import main as progress

import pytest

LESSON = find("LLM06")[0]
USERS: list[dict[str, Any]] = [
    {"name": "ada", "servers": {"": {"ready": True, "started": "2026-01-01T10:00:00Z"}}},
    {"name": "teacher", "servers": {}},
]


def record(folder: Path, name: str, **parts: dict[str, Any]) -> Path:
    path = folder / "learners" / name / "work" / "progress" / "LLM06.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"parts": parts, "last": {}, "best": {}}))
    return path


def row(folder: Path, name: str) -> class_view.Row:
    return next(r for r in class_view.rows(folder, USERS, {"ada": 5}, "teacher") if r.name == name)


def test_a_row_has_the_seat_the_progress_and_who_is_stuck(tmp_path: Path) -> None:
    done = {"done": "2026-01-01T09:00:00+00:00", "tries": 2, "hints": 3}
    record(tmp_path, "ada", masked_softmax=done, attention={"tries": 5})
    (tmp_path / "state").mkdir()
    presence.record(tmp_path, "ada", 1_800_000_000)
    ada = row(tmp_path, "ada")
    assert (ada.seat, ada.memory, ada.done, ada.tries, ada.hints) == ("works", 5, 1, 7, 2)
    assert ada.marks == [("LLM06", "✓✗·····")]
    assert ada.stuck == "LLM06 attention (5 tries)"
    assert ada.disk and ada.disk > 0
    assert ada.last_seen == "2027-01-15T08:00:00Z"


def test_a_seat_that_was_started_beforehand_is_ready_and_nobody_was_seen(tmp_path: Path) -> None:
    record(tmp_path, "ada")
    ada = row(tmp_path, "ada")
    assert (ada.seat, ada.last_seen) == ("ready, not entered yet", "")


def test_a_seat_that_ended_is_shown_with_the_time_and_the_reason(tmp_path: Path) -> None:
    for name in ("ada", "ben", "cem"):
        record(tmp_path, name)
    (tmp_path / "state").mkdir()
    full = seat_ends.stopped("your files take 350 of 60 MB.", "quota, 350 of 60 MB")
    seat_ends.record(tmp_path, "ben", full, 1_700_000_000)
    seat_ends.record(tmp_path, "cem", seat_ends.UNEXPECTED, 1_700_000_000)
    seats = [row(tmp_path, name).seat_csv for name in ("ada", "ben", "cem")]
    assert seats == [
        "ready, not entered yet",
        "stopped 2023-11-14T22:13:20Z: quota, 350 of 60 MB",
        "ended 2023-11-14T22:13:20Z",
    ]


def test_a_lab_that_was_handed_out_is_shown_here_and_by_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "ada", attention={"tries": 1})
    handout.hand_out(tmp_path, "LLM01", ["ben"])
    assert (row(tmp_path, "ben").marks, row(tmp_path, "ben").untouched) == ([], "LLM01")
    assert [lab for lab, _ in row(tmp_path, "ada").marks] == ["LLM06"]
    assert progress(["--class", str(tmp_path / "learners")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["learner", "LLM01", "LLM06", "done"]
    (ada,) = [line.split() for line in lines if "ada" in line]
    (ben,) = [line.split() for line in lines if "ben" in line]
    assert ada[1] == "·✗·····" and set(ben[1]) == {"·"}


def test_of_many_labs_that_were_only_handed_out_the_number_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "ada", attention={"tries": 1})
    done = handout.hand_out(tmp_path, "all", ["ada"])
    assert row(tmp_path, "ada").untouched == f"{len(done) - 1} labs"
    assert [lab for lab, _ in row(tmp_path, "ada").marks] == ["LLM06"]
    assert progress(["--class", str(tmp_path / "learners")]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].split() == ["learner", "LLM06", "done"]
    assert "not started by anybody: LLM01, LLM02, " in told


def test_who_is_stuck_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, "ada", attention={"tries": 4})
    record(tmp_path, "ben", attention={"tries": 1})
    record(tmp_path, "cem", attention={"tries": 6})
    table = class_view.rows(tmp_path, USERS, {}, "teacher")
    assert [row.name for row in table] == ["cem", "ada", "ben"]
    heading, *lines = class_view.csv_rows(table)
    stuck = heading.index("stuck")
    assert [(line[0], line[2]) for line in lines if line[stuck]] == [("cem", "attention")]
    assert progress(["--class", str(tmp_path / "learners")]) == 0
    told = capsys.readouterr().out
    assert "cem is stuck: LLM06 attention (6 tries)" in told and "ada is stuck" not in told


def test_four_tries_are_not_stuck_and_a_solved_exercise_never_is(tmp_path: Path) -> None:
    done = {"done": "2026-01-01T09:00:00+00:00", "tries": 40}
    record(tmp_path, "ada", masked_softmax=done, attention={"tries": 4})
    assert row(tmp_path, "ada").stuck == ""


def test_learners_without_a_seat_are_listed_and_the_teacher_isn_t(tmp_path: Path) -> None:
    record(tmp_path, "ben", attention={"tries": 1})
    names = [r.name for r in class_view.rows(tmp_path, USERS, {}, "teacher")]
    assert names == ["ada", "ben"]
    assert row(tmp_path, "ben").seat == ""


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"parts": 3}',
        '{"parts": {"attention": {"tries": "<b>"}}}',
        '{"parts": {"attention": {"done": "=1+1"}}}',
        '{"parts": {"attention": {"tries": true}}}',
        '{"parts": {"attention": {"other": 1}}}',
        f'{{"parts": {{"attention": {{"tries": 1, "hints": -{"9" * 4300}}}}}}}',
        f'{{"parts": {{"attention": {{"tries": {"9" * 4300}}}}}}}',
        '{"parts": {"attention": {"done": "2026-01-01\\ud80009:00"}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_or_forged_record_is_shown_as_damaged(tmp_path: Path, text: str) -> None:
    record(tmp_path, "ada").write_text(text)
    assert row(tmp_path, "ada").damaged == ("LLM06",)
    assert row(tmp_path, "ada").labs == ()


@pytest.mark.parametrize("kind", ["link", "pipe", "large", "folder"])
def test_a_record_that_is_no_plain_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = record(tmp_path, "ada")
    path.unlink()
    secret = tmp_path / "state.json"
    secret.write_text('{"parts": {"attention": {"tries": 9}}}')
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.touch()
        os.truncate(path, 2**33)
    else:
        path.mkdir()
    assert row(tmp_path, "ada").damaged == ("LLM06",)


def test_a_link_in_place_of_a_folder_isn_t_followed(tmp_path: Path) -> None:
    record(tmp_path, "ben", attention={"tries": 9})
    (tmp_path / "learners" / "ada").mkdir()
    (tmp_path / "learners" / "ada" / "work").symlink_to(tmp_path / "learners" / "ben" / "work")
    assert row(tmp_path, "ada").labs == ()
    assert row(tmp_path, "ben").tries == 9


def test_the_csv_has_a_line_for_each_exercise_of_a_started_lab(tmp_path: Path) -> None:
    record(tmp_path, "ada", attention={"tries": 5})
    lines = list(class_view.csv_rows(class_view.rows(tmp_path, USERS, {}, "teacher")))
    assert len({len(line) for line in lines}) == 1
    assert lines[2][:5] == ("ada", "LLM06", "attention", "tried", 5)


def test_all_times_of_the_csv_are_written_alike(tmp_path: Path) -> None:
    record(tmp_path, "ada", attention={"done": "2026-01-01T09:00:00+00:00", "tries": 1})
    (tmp_path / "state").mkdir()
    presence.record(tmp_path, "ada", 1_800_000_000)
    _, _, line, *_ = class_view.csv_rows(class_view.rows(tmp_path, USERS, {}, "teacher"))
    assert {"2026-01-01T09:00:00Z", "2027-01-15T08:00:00Z"} < set(line)


def test_the_archive_opens_as_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "archives").mkdir()
    record(tmp_path, "ada", attention={"done": "2026-01-01T09:00:00+00:00", "tries": 1})
    handout.hand_out(tmp_path, "LLM06", ["ada", "ben"])
    work = tmp_path / "learners" / "ada" / "work"
    (work / "secret.py").symlink_to(tmp_path / "hub.toml")
    (tmp_path / "hub.toml").write_text("password")
    (work / "model.safetensors").write_bytes(b"0" * 1000)
    (work / ".hidden.py").write_text("1")
    path, left_out = archive.collect(tmp_path, 1_700_000_000)
    assert sorted(left_out) == ["class/ada/work/model.safetensors", "class/ada/work/secret.py"]
    with tarfile.open(path) as opened:
        assert all(member.isfile() or member.isdir() for member in opened)
        opened.extractall(tmp_path / "home", filter="data")
    assert not list((tmp_path / "archives").glob(".*"))
    assert progress(["--class", str(tmp_path / "home" / "class")]) == 0
    told = capsys.readouterr().out
    assert "1 of" in told and "ben" in told


def test_the_teacher_can_read_what_was_left_out_whatever_its_name_is(tmp_path: Path) -> None:
    work = tmp_path / "learners" / "ada" / "work"
    work.mkdir(parents=True)
    for number in range(archive.SHOWN + 2):
        (work / os.fsdecode(b"\xff%d" % number)).touch()
    _, left_out = archive.collect(tmp_path, 1_700_000_000)
    told = archive.describe(left_out)
    assert told.encode().startswith(b" Left out: class/ada/work/?0, ")
    assert told.endswith(" and 2 more.")
    assert archive.describe([]) == ""


def names_in(archive_file: Path) -> list[str]:
    with tarfile.open(archive_file) as opened:
        return sorted(Path(member.name).name for member in opened if member.isfile())


def test_an_archive_has_room_for_each_learner_s_sheets_and_not_for_all_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    record(tmp_path, "ada")
    record(tmp_path, "ben")
    work = tmp_path / "learners" / "ada" / "work"
    for number in range(3):
        (work / f"{number}.csv").write_bytes(b"1" * 450)
    (work / "sheet.py").write_bytes(b"1" * 300)
    path, left_out = archive.collect(tmp_path, 1_700_000_000)
    assert names_in(path) == ["0.csv", "LLM06.json", "LLM06.json", "sheet.py"]
    assert left_out == ["class/ada/work/1.csv", "class/ada/work/2.csv"]


def test_a_disk_that_is_full_leaves_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    record(tmp_path, "ada")
    monkeypatch.setattr(tarfile.TarFile, "addfile", refuse)
    with pytest.raises(OSError, match="no space"):
        archive.collect(tmp_path, 1_700_000_000)
    assert list((tmp_path / "archives").iterdir()) == []


def test_a_copy_removes_what_a_killed_hub_left_of_one(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / ".class-2026-01-01_10-00-00.tar.gz.new").write_bytes(b"1")
    archive.copy(tmp_path, 1_700_000_000)
    (only,) = (tmp_path / "copies").iterdir()
    assert only.name.startswith("class-")


def test_copies_are_kept_up_to_a_number(tmp_path: Path) -> None:
    handout.hand_out(tmp_path, "LLM06", ["ada"])
    for minute in range(archive.MAX_COPIES + 2):
        archive.copy(tmp_path, 1_700_000_000 + 60 * minute)
    names = sorted(path.name for path in (tmp_path / "copies").iterdir())
    assert len(names) == archive.MAX_COPIES
    assert names[0].endswith("-20.tar.gz"), "the first two are gone"


def test_handing_out_keeps_what_a_learner_has(tmp_path: Path) -> None:
    name = LESSON.sheet_name
    work = tmp_path / "learners" / "ada" / "work"
    work.mkdir(parents=True)
    (work / name).write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "learners" / "eve" / "work").mkdir(parents=True)
    (tmp_path / "learners" / "eve" / "work" / name).symlink_to(elsewhere)
    result = handout.hand_out(tmp_path, "LLM06", ["ada", "ben", "eve", "../x"])["LLM06"]
    assert (result.written, result.had, result.failed) == (["ben"], ["ada", "eve"], ["../x"])
    assert (work / name).read_text() == "mine"
    assert not elsewhere.exists()
    assert handout.describe("LLM06", result).startswith(
        "LLM06 went to 1 of 3 learners; 2 have it already."
    )
    assert (tmp_path / "learners" / "ben" / "work" / name).read_text().startswith("# Your sheet")
