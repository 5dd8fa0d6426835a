"""What the teacher decides for all seats: how the hub writes it, and how a seat reads it."""

import errno
from pathlib import Path

from common import classroom
from common.cards import Card
from hub import class_folder
from hub.class_folder import LONGEST_MESSAGE, lock_solutions, open_solutions, write_message

import pytest

NOW = 1_700_000_000


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workshop with an empty folder for all seats."""
    (tmp_path / "class").mkdir()
    monkeypatch.setenv("TZ", "UTC0")
    return tmp_path


def message(workshop: Path) -> str:
    return classroom.message(workshop / "class")[1]


def locked(workshop: Path, lab: str) -> bool:
    return classroom.solutions_locked(lab, workshop / "class")


@pytest.mark.parametrize("damaged", [b"", b"\x00\x00", b"\xff", b"one line", b'{"LLM06": 1}'])
def test_a_file_that_a_power_failure_damaged_is_no_message_and_opens_no_solution(
    workshop: Path, damaged: bytes
) -> None:
    for name in (classroom.MESSAGE, classroom.SOLUTIONS):
        (workshop / "class" / name).write_bytes(damaged)
    assert message(workshop) == ""
    assert locked(workshop, "LLM06")
    assert open_solutions(workshop, "LLM06", opens=True) == ["LLM06"]
    assert not locked(workshop, "LLM06") and locked(workshop, "LLM07")


def test_a_message_replaces_the_one_before_and_can_be_removed(workshop: Path) -> None:
    assert message(workshop) == ""
    write_message(workshop, "Break until 10:30.", NOW)
    write_message(workshop, "Please open LLM06.", NOW + 60)
    when, text = classroom.message(workshop / "class")
    assert text == "Please open LLM06."
    assert when == "2023-11-14T22:14:20Z"
    write_message(workshop, " ", NOW)
    write_message(workshop, "", NOW)
    assert message(workshop) == ""
    assert list((workshop / "class").iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("  two\r\nlines\tand a tab ", "two lines and a tab"),
        ("\x1b[31mred\x1b]0;title\x07\u2028end\x85", "[31mred ]0;title end"),
        ("Zoë: ∀ε>0 <b>&amp;</b> 🎉", "Zoë: ∀ε>0 <b>&amp;</b> 🎉"),
        ("x" * 1000, "x" * LONGEST_MESSAGE),
    ],
)
def test_a_message_is_one_line_that_controls_no_terminal(
    workshop: Path, typed: str, shown: str
) -> None:
    write_message(workshop, typed, NOW)
    assert message(workshop) == shown


def test_a_full_disk_leaves_the_earlier_message(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    write_message(workshop, "earlier", NOW)
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="no space"):
        write_message(workshop, "later", NOW)
    assert message(workshop) == "earlier"


def test_solutions_are_open_unless_hub_toml_locks_them(workshop: Path) -> None:
    assert not locked(workshop, "LLM06")
    lock_solutions(workshop, True)
    assert locked(workshop, "LLM06")
    lock_solutions(workshop, False)
    assert not locked(workshop, "LLM06")
    lock_solutions(workshop, False)


def test_the_teacher_opens_and_locks_lab_by_lab_and_a_restart_keeps_that(workshop: Path) -> None:
    lock_solutions(workshop, True)
    assert open_solutions(workshop, "llm10,6,06+", True) == ["LLM10", "LLM06", "LLM06+"]
    assert classroom.open_labs(workshop / "class") == ["LLM06", "LLM06+", "LLM10"], (
        "in the order of the course"
    )
    open_solutions(workshop, "LLM06+", False)
    lock_solutions(workshop, True)
    names = [name for name in ("LLM06", "LLM06+", "LLM10") if locked(workshop, name)]
    assert names == ["LLM06+"]
    open_solutions(workshop, "all", False)
    assert classroom.open_labs(workshop / "class") == []


def test_a_lab_that_doesn_t_exist_changes_nothing(workshop: Path) -> None:
    lock_solutions(workshop, True)
    open_solutions(workshop, "LLM06", True)
    with pytest.raises(Card, match="There is no lab"):
        class_folder.open_solutions(workshop, "LLM06,LLM77", False)
    assert classroom.open_labs(workshop / "class") == ["LLM06"]
