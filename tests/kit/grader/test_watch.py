"""`check --watch`, in a real terminal: each save is checked, however the editor saves."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from common.sheets import SENTINEL
from tests.conftest import Clone, Running
from tests.small_lab import LESSON, SHEET


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def in_pieces(path: Path, text: str) -> None:
    """Empty the file first, then write it in two pieces."""
    with path.open("w") as file:
        file.flush()
        for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())


def by_renaming(path: Path, text: str) -> None:
    new = path.with_suffix(".swp")
    new.write_text(text)
    new.replace(path)


def by_removing(path: Path, text: str) -> None:
    """Rename the old file and write a new one, as editors do that make a backup."""
    path.rename(path.with_suffix(".py~"))
    path.write_text(text)


def watching(school: Clone) -> Running:
    command = (sys.executable, "-m", "labs", "check", "LLM90", "--watch")
    return school.start(*command, terminal=(40, 100), PYTHONPATH=str(school.path), TERM="xterm")


def waits(running: Running, times: int) -> None:
    running.wait_for(lambda: running.text.count("watching") >= times)


SAVED = {
    "return a - b": "is that a difference?",
    "return (a + b": "is not valid Python",
    "return a + b": "✓ add",
}


def test_every_save_is_checked_and_ctrl_c_ends_the_watch(sheet: Clone) -> None:
    path = sheet.path / SHEET
    untouched = path.read_text()
    running = watching(sheet)
    waits(running, 1)
    assert "Next: add" in running.text
    for save in (in_place, in_pieces, by_renaming, by_removing):
        for body, expected in SAVED.items():
            before = len(running.text)
            save(path, untouched.replace(SENTINEL, body, 1))
            running.wait_for(lambda before=before, text=expected: text in running.text[before:])
    running.type(b"\x03")
    assert running.ended().code == 130


def busiest_child(running: Running) -> float:
    """Return the most CPU seconds that one of its children has used."""
    pid = running.process.pid
    spent = [0.0]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            spent.append(int(fields[11]) / os.sysconf("SC_CLK_TCK"))
    return max(spent)


def test_a_save_ends_a_check_that_is_still_running(sheet: Clone) -> None:
    """An endless loop is ended at once, not after ten seconds, and the new text is checked."""
    path = sheet.path / SHEET
    untouched = path.read_text()
    running = watching(sheet)
    waits(running, 1)
    path.write_text(untouched.replace(SENTINEL, "while True:\n        pass", 1))
    running.wait_for(lambda: busiest_child(running) > 0.5)
    path.write_text(untouched.replace(SENTINEL, "return a + b", 1))
    running.wait_for("✓ add")
    assert "endless loop" not in running.text


def test_a_missing_sheet_is_reported_and_the_watch_goes_on(sheet: Clone) -> None:
    path = sheet.path / SHEET
    untouched = path.read_text()
    running = watching(sheet)
    waits(running, 1)
    path.unlink()
    running.wait_for("is gone: save it again, or write a new one by invoke learn LLM90")
    path.write_text(untouched.replace(SENTINEL, "return a + b", 1))
    running.wait_for("✓ add")


def test_the_ending_is_shown_once_when_the_last_exercise_passes(sheet: Clone) -> None:
    path = sheet.path / SHEET
    running = watching(sheet)
    waits(running, 1)
    path.write_text((sheet.path / LESSON).read_text())
    running.wait_for("All of LLM90's exercises are right")
    running.wait_for("Peano 1889")
    running.wait_for("invoke check LLM90")
    waits(running, 2)
    path.write_text(path.read_text() + "# done\n")
    waits(running, 3)
    assert running.text.count("Peano 1889") == 1
