"""`check --watch`: check again at every save, with torch imported once."""

import time

from labs.course.cards import Card
from labs.course.terminal import line
from labs.kit.grader.checker import Checker

POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.15  # an editor empties, writes and renames a file
GONE_SECONDS = 1.0  # an editor's new file takes the old one's place before that


def run(checker: Checker) -> int:
    """Check, then wait for the next save, until Ctrl-C; never returns by itself."""
    warm = False
    while True:
        text = _text(checker)
        line("checking …", "dim")
        _check(checker, text)
        if not warm:  # now, because a save during the imports would have to wait for them
            line("preparing, a few seconds: later checks will be faster …", "dim")
            checker.grader.keep_warm()
            warm = True
        line(f"\nwatching {checker.path}: save it to check it again; Ctrl-C ends the watch")
        _wait(checker, text)


def _check(checker: Checker, text: bytes) -> None:
    """Check once; give up if the sheet is saved meanwhile."""
    start = time.perf_counter()
    try:
        verdicts = checker.grade(stop=lambda: _saved(checker, text))
    except Card as card:
        card.show()
        return
    line(f"({time.perf_counter() - start:.1f} s)", "dim")
    if len(verdicts) == len(checker.grader.exercises):
        checker.show_next(verdicts)


def _wait(checker: Checker, text: bytes) -> None:
    """Wait for the next save; report once if the sheet disappears."""
    last_seen = time.monotonic()
    reported = False
    while not _saved(checker, text):
        if checker.path.exists():
            last_seen = time.monotonic()
            reported = False
        elif not reported and time.monotonic() - last_seen > GONE_SECONDS:
            command = f"invoke learn {checker.lesson.name}"
            line(f"{checker.path} is gone: save it again, or write a new one by {command}")
            reported = True
        time.sleep(POLL_SECONDS)


def _saved(checker: Checker, text: bytes) -> bool:
    """Return whether the sheet has changed and has been written to its end."""
    now = _text(checker)
    if now in (text, b""):
        return False
    time.sleep(SETTLE_SECONDS)
    return _text(checker) == now


def _text(checker: Checker) -> bytes:
    """Return the sheet's bytes; none while an editor replaces the file."""
    try:
        return checker.path.read_bytes()
    except FileNotFoundError:
        return b""
