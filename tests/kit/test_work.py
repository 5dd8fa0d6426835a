"""`learn`: a sheet is written once, and never over anything."""

import re
from pathlib import Path

from labs.course import workbook
from tests.conftest import Clone
from tests.kit.conftest import write


def sheet(school: Clone) -> Path:
    return school.path / "work" / "llm90_small.py"


def test_a_sheet_is_written_and_its_exercises_are_told(school: Clone) -> None:
    ended = school.labs("learn", "90")
    assert ended.code == 0, ended
    assert "add, level 1: The sum of two numbers." in ended.out
    assert "Counter.count, level 2" in ended.out
    assert "invoke check LLM90" in ended.out
    text = sheet(school).read_text()
    assert "yours to write" in text and "the answer" not in text and "It is a cross" not in text
    assert "Which sign adds?" in text


def test_a_sheet_that_is_there_stays(school: Clone) -> None:
    school.labs("learn", "LLM90")
    write(school, "raise NotImplementedError  # yours to write", "return 42")
    mine = sheet(school).read_text()
    ended = school.labs("learn", "LLM90")
    assert ended.code == 0, ended
    assert "is there already, and stays as it is" in ended.out
    assert "differs" not in ended.out and "has changed" not in ended.out
    assert sheet(school).read_text() == mine


def test_what_changed_in_the_lab_since_is_shown_without_its_answers(school: Clone) -> None:
    school.labs("learn", "LLM90")
    write(school, "raise NotImplementedError  # yours to write", "return 42")
    mine = sheet(school).read_text()
    school.change("labs/llm90_small.py", "for n in (1, 2, 3):", "for n in (1, 2, 3, 4):")
    school.change("labs/llm90_small.py", "return a + b  # the answer", "return b + a  # the answer")
    ended = school.labs("learn", "LLM90")
    assert "LLM90 has changed since it was made" in ended.out
    assert "-    for n in (1, 2, 3):" in ended.out and "+    for n in (1, 2, 3, 4):" in ended.out
    assert "b + a" not in ended.out and "42" not in ended.out
    assert "invoke learn LLM90 --reset" in ended.out
    assert sheet(school).read_text() == mine


def test_reset_keeps_the_old_sheet_beside_the_new_one(school: Clone) -> None:
    school.labs("learn", "LLM90")
    write(school, "raise NotImplementedError  # yours to write", "return 42")
    mine = sheet(school).read_text()
    ended = school.labs("learn", "LLM90", "--reset")
    assert ended.code == 0, ended
    (kept,) = re.findall(r"kept as (work/\S+\.py)", ended.out)
    assert (school.path / kept).read_text() == mine
    assert "return 42" not in sheet(school).read_text()
    assert school.labs("learn", "LLM90", "--reset").code in (0, 3), "a second one in that second"
    assert (school.path / kept).read_text() == mine


def test_a_sheet_that_is_no_python_stays_too(school: Clone) -> None:
    school.labs("learn", "LLM90")
    write(school, "def add(", "def add((")
    mine = sheet(school).read_text()
    ended = school.labs("learn", "LLM90")
    assert ended.code == 0, ended
    assert "can't be compared" in ended.out
    assert sheet(school).read_text() == mine


def test_a_handout_holds_every_lab_s_sheet_and_overwrites_nothing(school: Clone) -> None:
    ended = school.labs("learn", "all", "--handout", "class")
    assert ended.code == 0, ended
    handed = school.path / "class" / "llm90_small.py"
    assert "yours to write" in handed.read_text()
    assert not (school.path / "work").exists()
    handed.write_text("the teacher's own")
    assert school.labs("learn", "all", "--handout", "class").code == 0
    assert handed.read_text() == "the teacher's own"


def test_a_folder_that_can_not_be_written_is_a_card(school: Clone) -> None:
    (school.path / "work").write_text("")
    ended = school.labs("learn", "LLM90")
    assert ended.code == 3, ended
    assert "what: work/llm90_small.py can't be written." in ended.err


def test_a_lab_that_is_not_there_is_a_card(school: Clone) -> None:
    ended = school.labs("learn", "LLM17")
    assert ended.code == 2, ended
    assert "There is no lab called 'LLM17'" in ended.err


def test_a_sheet_that_was_removed_is_put_back_and_one_that_is_there_is_left(tmp_path: Path) -> None:
    path = tmp_path / "sheet.py"
    workbook.put_back(path, "as it was")
    assert path.read_text() == "as it was"
    path.write_text("saved meanwhile")
    workbook.put_back(path, "as it was")
    assert path.read_text() == "saved meanwhile"
