"""The keys of `check --watch`, in a real terminal, which gets its settings back however it ends."""

import json
import os
import pty
import signal
import sys
import termios
import time
from pathlib import Path

from common.sheets import SENTINEL
from tests.conftest import PATIENCE, Clone, Running
from tests.small_lab import LESSON, SHEET, write_next

import pytest

KEYS = "h hint · n next exercise · r run experiments · q quit"


def watching(school: Clone, *before: str, **how) -> Running:
    command = (*before, sys.executable, "-m", "labs", "check", "LLM90", "--watch")
    how = {"terminal": (40, 100), "PYTHONPATH": str(school.path), "TERM": "xterm", **how}
    return school.start(*command, **how)


def waits(running: Running, times: int = 1) -> None:
    """Wait until the keys were shown this often."""
    running.wait_for(lambda: running.text.count(KEYS) >= times)


def press(running: Running, key: bytes, expected: str) -> str:
    """Press a key; return what is printed until the keys are shown again."""
    before = len(running.text)
    running.type(key)
    running.wait_for(lambda: KEYS in running.text[before:])
    printed = running.text[before:]
    assert expected in printed
    return printed


def hints(school: Clone, part: str) -> int:
    record = school.path / "work" / "progress" / "LLM90.json"
    return json.loads(record.read_text())["parts"][part]["hints"]


def settings(running: Running) -> list:
    return termios.tcgetattr(running._terminal)[:6]


def test_h_shows_the_next_hint_of_the_current_exercise_and_records_it(sheet: Clone) -> None:
    running = watching(sheet)
    before = settings(running)
    waits(running)
    assert settings(running) != before
    assert running.text.endswith(f" {KEYS}"), "the keys are in the last line"
    assert "another hint: press h" in running.text
    second = press(running, b"h", "It is a cross.")
    assert "return a + b" not in second
    assert hints(sheet, "add") == 2
    press(running, b"h", "return a + b")
    assert hints(sheet, "add") == 3
    assert running.text.endswith(f" {KEYS}")
    running.type(b"q")
    assert running.ended().code == 0
    assert settings(running) == before, "the terminal gets its settings back"
    assert not running.text.endswith(KEYS), "the line with the keys is erased"


def test_n_goes_to_the_next_exercise_wraps_around_and_names_what_it_skips(sheet: Clone) -> None:
    path = sheet.path / SHEET
    running = watching(sheet)
    waits(running)
    press(running, b"n", "Next: Counter.count, level 2")
    press(running, b"h", "Use add.")
    assert hints(sheet, "Counter.count") == 2
    press(running, b"n", "Next: add, level 1")
    press(running, b"n", "Next: Counter.count, level 2")
    write_next(sheet, "return a - b")
    running.wait_for("✗ add")
    waits(running, 6)
    assert "is that a difference?" not in running.text, "Counter.count was chosen"
    press(running, b"n", "is that a difference?")
    path.write_text(path.read_text().replace("return a - b", "return a + b"))
    running.wait_for("✓ add")
    waits(running, 8)
    printed = press(running, b"n", "Counter.count is the only exercise left.")
    assert "add is already right." in printed
    path.write_text((sheet.path / LESSON).read_text())
    running.wait_for("All of LLM90's exercises are right")
    waits(running, 10)
    press(running, b"n", "All exercises are right.")
    press(running, b"h", "All exercises are right")
    running.type(b"q")
    assert running.ended().code == 0


def test_r_runs_the_experiments_and_names_what_is_missing_or_wrong(sheet: Clone) -> None:
    path = sheet.path / SHEET
    running = watching(sheet, CI="1")  # in CI no experiment asks for a prediction
    waits(running)
    press(running, b"r", "No exercise is written yet")
    write_next(sheet, "return a - b")
    running.wait_for("✗ add")
    waits(running, 3)
    printed = press(running, b"r", "add is wrong, so the experiments were not started.")
    assert f"invoke lab LLM90 -- --sheet {SHEET}" in printed
    path.write_text(path.read_text().replace("return a - b", "return a + b"))
    running.wait_for("✓ add")
    waits(running, 5)
    printed = press(running, b"r", "Counter.count is not written yet")
    assert "They come to 6." in printed
    press(running, b"r", "have run on this sheet")
    running.type(b"q")
    assert running.ended().code == 0


def test_q_ends_the_watch_during_the_experiments_too(sheet: Clone) -> None:
    running = watching(sheet, CI="1")
    before = settings(running)
    waits(running)
    path = sheet.path / SHEET
    body = "    import os, time\n" + "    if 'LABS_SHEET_PROCESS' in os.environ:\n"
    body += "        print('it is slow', flush=True)\n        time.sleep(900)\n    return a + b"
    write_next(sheet, body.lstrip())
    running.wait_for("✓ add")
    waits(running, 2)
    running.type(b"r")
    running.wait_for("q ends them and the watch; nothing is lost.")
    running.wait_for("it is slow")
    running.type(b"hn")
    running.type(b"q")
    assert running.ended().code == 0, running.text
    assert "Traceback" not in running.text
    assert settings(running) == before
    assert path.read_text().count("time.sleep(900)") == 1


def test_a_sheet_that_cannot_be_run_has_no_next_exercise(sheet: Clone) -> None:
    running = watching(sheet)
    waits(running)
    write_next(sheet, "return (a + b")
    running.wait_for("is not valid Python")
    waits(running, 2)
    press(running, b"n", "can't be checked as it is")
    press(running, b"r", "can't be checked as it is")
    press(running, b"h", "It is a cross.")
    running.type(b"q")
    assert running.ended().code == 0


def test_during_a_check_q_ends_the_watch_and_other_keys_are_ignored(sheet: Clone) -> None:
    path = sheet.path / SHEET
    running = watching(sheet)
    waits(running)
    loop = path.read_text().replace(SENTINEL, "import time\n    time.sleep(20)", 1)
    path.write_text(loop)
    running.wait_for(lambda: running.text.count("checking …") == 2)
    running.type(b"hhnr")
    running.type(b"q")
    assert running.ended().code == 0
    assert "It is a cross." not in running.text
    assert hints(sheet, "add") == 1


@pytest.mark.parametrize(("end", "code"), [(b"\x03", 130), (signal.SIGTERM, 143)])
def test_the_terminal_gets_its_settings_back(sheet: Clone, end: object, code: int) -> None:
    running = watching(sheet)
    before = settings(running)
    waits(running)
    assert settings(running) != before
    if isinstance(end, bytes):
        running.type(end)
    else:
        running.send(end)
    assert running.ended().code == code
    assert settings(running) == before
    assert not running.text.endswith(KEYS), "the line with the keys is erased"


def test_a_crash_gives_the_terminal_back(sheet: Clone) -> None:
    sheet.change("labs/kit/grader/checker.py", "def show_next_hint", "def another_name")
    running = watching(sheet)
    before = settings(running)
    waits(running)
    running.type(b"h")
    assert running.ended().code == 1
    assert "AttributeError" in running.text
    assert settings(running) == before


def test_a_watch_ends_with_its_terminal(sheet: Clone) -> None:
    """Also if it ignores the hang-up, as under nohup."""
    ours, theirs = pty.openpty()
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    run = "os.execv(sys.executable, [sys.executable, '-m', 'labs', 'check', 'LLM90', '--watch'])"
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"{ignore} os.chdir({str(sheet.path)!r}); {run}"],
        {**os.environ, "PYTHONPATH": str(sheet.path), "TERM": "xterm"},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, number) for number in (0, 1, 2)],
        setsid=True,
    )
    os.close(theirs)
    printed = b""
    while KEYS.encode() not in printed:
        printed += os.read(ours, 65_536)
    os.close(ours)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("terminal", [(40, 100), None])
def test_a_watch_ends_with_the_process_that_started_it(
    sheet: Clone, terminal: tuple[int, int] | None
) -> None:
    """The launcher is killed and can't end its child."""
    launcher = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    running = watching(sheet, sys.executable, "-c", launcher, terminal=terminal)
    running.wait_for("watching work/")
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    (child,) = children.read_text().split()
    running.process.kill()
    deadline = time.monotonic() + PATIENCE
    while _runs(child):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def _runs(process: str) -> bool:
    """Return whether a process runs; one that ended may wait for its new parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_without_a_terminal_there_are_no_keys(sheet: Clone) -> None:
    running = watching(sheet, terminal=None)
    running.wait_for("Ctrl-C ends the watch")
    assert KEYS not in running.text
    assert "another hint: invoke check LLM90 --hint add" in running.text
    running.send(signal.SIGINT)
    assert running.ended().code == 130
