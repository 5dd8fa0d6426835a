"""The progress of a loop: a bar on a terminal, lines on a pipe."""

import io
import re
import sys
from pathlib import Path

from labs.course.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from tests.conftest import Clone

import pytest

PROGRESS = '''
import pathlib

@lab.experiment
def counts(run: Run):
    """It counts."""
    for number in run.progress(range(3), "counting"):
        while number == 1 and not pathlib.Path("go").exists():
            time.sleep(0.05)
'''


RESUMES = '''
@lab.experiment
def counts(run: Run):
    """It counts."""
    for number in run.progress(range(7, 9), "counting"):
        time.sleep(0.5)
'''


def test_the_bar_of_a_resumed_loop_counts_the_earlier_steps(clone: Clone) -> None:
    command = (sys.executable, "-m", "labs", clone.kit_lab(RESUMES))
    running = clone.start(*command, terminal=(24, 80), PYTHONPATH=str(clone.path), TERM="xterm")
    assert running.ended().code == 0
    assert set(re.findall(r"(\d+)/9", running.text)) == {"7", "8", "9"}


@pytest.mark.parametrize("terminal", [None, (24, 80)])
def test_progress_is_shown_during_the_loop(clone: Clone, terminal: tuple[int, int] | None) -> None:
    lab = clone.kit_lab(PROGRESS)
    command = (sys.executable, "-m", "labs", lab)
    running = clone.start(*command, terminal=terminal, PYTHONPATH=str(clone.path), TERM="xterm")
    running.wait_for("counting")
    if terminal:
        running.wait_for("1/3")
    (clone.path / "go").touch()
    assert running.ended().code == 0, running.text
    assert ("\x1b" in running.text) == bool(terminal)


def logged_run(log: io.StringIO) -> Run:
    return Run(Settings(), "fp32", Output(log), Path("nowhere"))


def test_progress_yields_every_item() -> None:
    run = logged_run(io.StringIO())
    assert list(run.progress(iter("abc"), "letters")) == ["a", "b", "c"]
    assert list(run.progress([], "nothing")) == []


def test_the_lines_of_a_resumed_loop_count_the_earlier_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labs.kit.run.console.SECONDS_BETWEEN_LINES", 0.0)
    log = io.StringIO()
    run = logged_run(log)
    assert list(run.progress(range(3, 5), "steps")) == [3, 4]
    assert log.getvalue() == "   steps …\n   steps: 3 of 5\n   steps: 4 of 5\n"
    assert list(run.progress(range(5, 5), "no steps")) == []
    assert "no steps" not in log.getvalue()
