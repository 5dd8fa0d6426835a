"""`learn`: write a sheet once, and never overwrite one."""

import re
from pathlib import Path

from tests.conftest import Clone
from tests.small_lab import DEEPER_SHEET, LESSON, SHEET, write

import pytest

SENTINEL = "raise NotImplementedError  # yours to write"


def path_of(school: Clone) -> Path:
    return school.path / SHEET


def test_a_sheet_is_written_and_its_exercises_are_listed(school: Clone) -> None:
    ended = school.labs("learn", "90")
    assert ended.code == 0, ended
    assert "add, level 1: The sum of two numbers." in ended.out
    assert "Counter.count, level 2" in ended.out
    assert "invoke check LLM90" in ended.out
    text = path_of(school).read_text()
    assert "yours to write" in text
    assert "the answer" not in text
    assert "It is a cross" not in text
    assert "Which sign adds?" in text


def test_an_existing_sheet_is_left_unchanged(sheet: Clone) -> None:
    write(sheet, SENTINEL, "return 42")
    mine = path_of(sheet).read_text()
    ended = sheet.labs("learn", "LLM90")
    assert ended.code == 0, ended
    assert "exists and is unchanged" in ended.out
    assert "differs" not in ended.out
    assert "has changed" not in ended.out
    assert path_of(sheet).read_text() == mine


def test_changes_in_the_lab_are_shown_without_its_solutions(sheet: Clone) -> None:
    write(sheet, SENTINEL, "return 42")
    mine = path_of(sheet).read_text()
    sheet.change(LESSON, "for n in (1, 2, 3):", "for n in (1, 2, 3, 4):")
    sheet.change(LESSON, "return a + b  # the answer", "return b + a  # the answer")
    ended = sheet.labs("learn", "LLM90")
    assert "LLM90 has changed since the sheet was made" in ended.out
    assert "-    for n in (1, 2, 3):" in ended.out
    assert "+    for n in (1, 2, 3, 4):" in ended.out
    assert "b + a" not in ended.out
    assert "42" not in ended.out
    assert "invoke learn LLM90 --reset" in ended.out
    assert path_of(sheet).read_text() == mine


def test_reset_saves_the_old_sheet_beside_the_new_one(sheet: Clone) -> None:
    write(sheet, SENTINEL, "return 42")
    mine = path_of(sheet).read_text()
    ended = sheet.labs("learn", "LLM90", "--reset")
    assert ended.code == 0, ended
    (backup,) = re.findall(r"saved as (work/\S+\.py)", ended.out)
    assert (sheet.path / backup).read_text() == mine
    assert "return 42" not in path_of(sheet).read_text()
    assert sheet.labs("learn", "LLM90", "--reset").code in (0, 3), "a second one in that second"
    assert (sheet.path / backup).read_text() == mine


def test_a_sheet_that_is_not_valid_python_is_left_unchanged(sheet: Clone) -> None:
    write(sheet, "def add(", "def add((")
    mine = path_of(sheet).read_text()
    ended = sheet.labs("learn", "LLM90")
    assert ended.code == 0, ended
    assert "can't be compared" in ended.out
    assert path_of(sheet).read_text() == mine


def test_a_handout_has_every_lab_s_sheet_and_overwrites_nothing(school: Clone) -> None:
    ended = school.labs("learn", "all", "--handout", "class")
    assert ended.code == 0, ended
    handed = school.path / "class" / "llm90_small.py"
    assert "yours to write" in handed.read_text()
    assert not (school.path / "work").exists()
    handed.write_text("the teacher's own")
    assert school.labs("learn", "all", "--handout", "class").code == 0
    assert handed.read_text() == "the teacher's own"


def test_a_handout_can_not_be_reset(school: Clone) -> None:
    ended = school.labs("learn", "all", "--handout", "class", "--reset")
    assert ended.code == 2, ended
    assert "fix: invoke learn --help" in ended.err
    assert not (school.path / "class").exists()


def test_a_folder_that_can_not_be_written_is_a_card(school: Clone) -> None:
    (school.path / "work").write_text("")
    ended = school.labs("learn", "LLM90")
    assert ended.code == 3, ended
    assert f"what: {SHEET} can't be written." in ended.err


def test_an_unknown_lab_is_a_card(school: Clone) -> None:
    ended = school.labs("learn", "LLM17")
    assert ended.code == 2, ended
    assert "There is no lab called 'LLM17'" in ended.err


@pytest.mark.parametrize("name", ["LLM90+", "90+"])
def test_a_deeper_part_has_its_own_sheet(deeper: Clone, name: str) -> None:
    ended = deeper.labs("learn", name)
    assert ended.code == 0, ended
    assert f"{DEEPER_SHEET} is your sheet of LLM90+" in ended.out
    assert "multiply, level 3: The product of two numbers." in ended.out
    assert "invoke check LLM90+" in ended.out
    text = (deeper.path / DEEPER_SHEET).read_text()
    assert "yours to write" in text
    assert "the deeper answer" not in text
    assert not path_of(deeper).exists()


def test_all_plus_writes_the_sheets_of_both_sittings_and_all_those_of_lessons(
    deeper: Clone,
) -> None:
    assert deeper.labs("learn", "all", "--handout", "lessons").code == 0
    assert deeper.labs("learn", "all+", "--handout", "class").code == 0
    assert [path.name for path in (deeper.path / "lessons").iterdir()] == ["llm90_small.py"]
    names = sorted(path.name for path in (deeper.path / "class").iterdir())
    assert names == ["llm90_small.py", "llm90_small_deeper.py"]


def test_a_deeper_part_that_does_not_exist_is_a_card_that_names_the_lesson(school: Clone) -> None:
    ended = school.labs("learn", "90+")
    assert ended.code == 2, ended
    assert "There is no lab called '90+'" in ended.err
    assert "Nearest: LLM90." in ended.err
