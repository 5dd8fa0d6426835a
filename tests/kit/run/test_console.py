"""The progress of a loop: a bar on a terminal, lines on a pipe."""

import io
import re
import sys
from pathlib import Path

from common.options import Settings
from labs.kit.run.console import Output, time_left
from labs.kit.run.run import Run
from labs.llm08_training.training import recent
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
    assert log.getvalue() == "   steps …\n   steps: 3 of 5\n   steps: 4 of 5, 0 s left\n"
    assert list(run.progress(range(5, 5), "no steps")) == []
    assert "no steps" not in log.getvalue()


@pytest.mark.parametrize(
    ("seconds", "done", "remaining", "left"),
    [
        (0, 0, 5, ""),
        (10, 5, None, ""),
        (10, 5, 20, "40 s left"),
        (60, 5, 20, "4 min left"),
        (60, 1, 75, "1 h 15 min left"),
    ],
)
def test_the_time_left_is_that_of_the_same_speed(
    seconds: float, done: int, remaining: int | None, left: str
) -> None:
    assert time_left(seconds, done, remaining) == left


def test_a_note_stands_behind_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labs.kit.run.console.SECONDS_BETWEEN_LINES", 0.0)
    log = io.StringIO()
    losses: list[float] = []
    for step in logged_run(log).progress(range(2), "steps", note=lambda: recent(losses)):
        losses.append(3 - step)
    assert log.getvalue() == "   steps …\n   steps: 0 of 2\n   steps: 1 of 2, loss 3.00, 0 s left\n"


def test_the_bar_shows_the_note(clone: Clone) -> None:
    lab = clone.kit_lab(PROGRESS.replace('"counting")', '"counting", note=lambda: "loss 2.31")'))
    command = (sys.executable, "-m", "labs", lab)
    running = clone.start(*command, terminal=(24, 100), PYTHONPATH=str(clone.path), TERM="xterm")
    running.wait_for("loss 2.31")
    (clone.path / "go").touch()
    assert running.ended().code == 0, running.text


def test_the_loss_that_is_shown_is_the_mean_of_the_last_ten_steps() -> None:
    assert recent([100.0, *range(1, 11)]) == "loss 5.50"
    assert recent([]) == ""
