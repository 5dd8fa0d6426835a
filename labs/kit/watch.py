"""--watch: check again whenever the sheet is saved, torch and all else imported already."""

import time
from typing import TYPE_CHECKING

from labs.kit import tell
from labs.kit.cards import Card

if TYPE_CHECKING:
    from labs.kit.check import Checker

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_TO_SETTLE = 0.15  # a save comes in pieces: emptied, written, renamed
SECONDS_UNTIL_GONE = 1.0  # an editor's own new file is there long before


def run(checker: "Checker") -> int:
    """Check, then wait for the next save, until Ctrl-C; it never returns by itself."""
    warm = False
    while True:
        text = _text(checker)
        tell.line("checking …", "dim")
        _check(checker, text)
        if not warm:  # before it is said to watch: a save in the meantime would wait for it
            tell.line("a few seconds more: later checks will be quicker …", "dim")
            checker.grader.keep_warm()
            warm = True
        tell.line(f"\nwatching {checker.path}: save, and it is checked again; Ctrl-C ends this")
        _wait(checker, text)


def _check(checker: "Checker", text: bytes) -> None:
    """One check, given up for the next one where the sheet is saved meanwhile."""
    start = time.perf_counter()
    try:
        verdicts = checker.grade(stop=lambda: _saved(checker, text))
    except Card as card:
        card.show()
        return
    tell.line(f"({time.perf_counter() - start:.1f} s)", "dim")
    if len(verdicts) == len(checker.grader.exercises):
        checker.tell_next(verdicts)


def _wait(checker: "Checker", text: bytes) -> None:
    """Until the next save; a sheet that is gone is told, once."""
    there, told = time.monotonic(), False
    while not _saved(checker, text):
        if checker.path.exists():
            there, told = time.monotonic(), False
        elif not told and time.monotonic() - there > SECONDS_UNTIL_GONE:
            lab = checker.lesson.name
            tell.line(f"{checker.path} is gone: save it again, or invoke learn {lab} for a new one")
            told = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _saved(checker: "Checker", text: bytes) -> bool:
    """Has the sheet another text now, and is it whole?"""
    now = _text(checker)
    if now in (text, b""):
        return False
    time.sleep(SECONDS_TO_SETTLE)
    return _text(checker) == now


def _text(checker: "Checker") -> bytes:
    """The sheet as it is; nothing while an editor puts a new file in its place."""
    try:
        return checker.path.read_bytes()
    except FileNotFoundError:
        return b""
