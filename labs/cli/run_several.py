"""Run several labs one after the other, each in its own process, and print one table."""

import multiprocessing
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from common.cards import Card
from common.options import Settings
from common.syllabus import Lesson
from common.terminal import screen
from labs.kit.run.processes import end_with_parent

from rich.table import Table

TERMINATED = 143


def load(lesson: Lesson) -> Any:
    """Import a lab; return its `Lab`.

    Raises:
        Card: if this Python lacks the labs' packages.
    """
    try:
        return import_module(lesson.module).lab
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("labs"):
            raise
        raise Card(
            f"{lesson.name} can't run in this Python.",
            f"{error.name} is missing; the labs' packages are in the image or the environment.",
            f"invoke lab {lesson.name}",
        ) from error


@dataclass
class Outcome:
    """How one lab of several ended."""

    code: int
    seconds: float
    checks: str = "–"
    memory: str = "–"


def run(chosen: list[Lesson], settings: Settings, own_words: list[str]) -> int:
    """Run each lab in its own process, so that memory and crashes stay apart.

    Returns:
        The largest exit code.
    """
    signal.signal(signal.SIGTERM, _exit_cleanly)
    outcomes = {lesson.name: _run_in_child(lesson, settings, own_words) for lesson in chosen}
    _print_outcomes(outcomes)
    return max(outcome.code for outcome in outcomes.values())


def _exit_cleanly(_signum: int, _frame: FrameType | None) -> None:
    """Exit through `finally`, which ends the child process."""
    sys.exit(TERMINATED)


def _run_in_child(lesson: Lesson, settings: Settings, own_words: list[str]) -> Outcome:
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_child, args=(lesson, settings, own_words, sender))
    start = time.perf_counter()
    process.start()
    sender.close()
    try:
        process.join()
    finally:
        process.kill()
    code = process.exitcode or 0
    outcome = Outcome(code if code >= 0 else 128 - code, time.perf_counter() - start)
    with suppress(EOFError):  # the child was killed before it sent its summary
        outcome.checks, outcome.memory = receiver.recv()
    return outcome


def _child(lesson: Lesson, settings: Settings, own_words: list[str], sender: Connection) -> None:
    end_with_parent()
    try:
        lab = load(lesson)
    except Card as card:
        card.show()
        sys.exit(card.code)
    code = lab.run(own_words, settings)
    sender.send(lab.summary)
    sys.exit(code)


def _print_outcomes(outcomes: dict[str, Outcome]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("lab", "checks", "time", "memory", ""):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    for name, outcome in outcomes.items():
        note = {0: "", 1: "a check failed"}.get(outcome.code, f"exit code {outcome.code}")
        seconds = f"{outcome.seconds:.0f} s"
        table.add_row(name, outcome.checks, seconds, outcome.memory, note)
    print()
    screen().print(table)
