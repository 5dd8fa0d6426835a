"""Run a lab's own experiments on the parts that a learner wrote."""

import signal
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from common import progress, sheets, workbook
from common.cards import FAILED, Card
from common.syllabus import Lesson
from common.terminal import line
from labs.kit.run import sheet_process

TIMEOUT_SECONDS = 3600  # more than any lab takes in its default size


def run_experiments(
    lesson: Lesson,
    path: Path,
    ends: str = "Ctrl-C ends them",
    stop: Callable[[], bool] = sheet_process.never,
) -> int:
    """Run the experiments in their own process, unless they have run on this very sheet.

    Args:
        lesson: the lab.
        path: the sheet.
        ends: how to end them, for the first line.
        stop: asked ten times a second whether to end them.

    Returns:
        The exit code.

    Raises:
        Card: if they don't end, or crash Python.
        KeyboardInterrupt: on Ctrl-C, or if `stop` says so.
    """
    text = workbook.read(path)
    last = progress.read(lesson.name).last
    if last.get("text") == sheets.digest(text) and "whole" in last:
        line(f"\n{lesson.name}'s experiments have run on this sheet: {_summary(last)}.")
        again = f"invoke lab {lesson.name} -- --sheet {path}"
        line(f"Report: {last['report']}. To run them again: {again}")
        return 0 if last["whole"] else FAILED
    line(f"\nNow {lesson.name}'s experiments run on your code. {ends}; nothing is lost.")
    try:
        return _run(lesson, path, stop)
    finally:
        workbook.restore(path, text)


def _run(lesson: Lesson, path: Path, stop: Callable[[], bool]) -> int:
    name = lesson.name
    settings = import_module(lesson.module).lab.parse(["--sheet", str(path)])
    try:
        code = sheet_process.run(lesson, settings, [], TIMEOUT_SECONDS, stop)
    except subprocess.TimeoutExpired as error:
        what = f"{name}'s experiments were stopped after {TIMEOUT_SECONDS // 60} minutes."
        why = "A part that passed its check loops, or is very slow, on larger inputs."
        fix = f"invoke lab {name} shows how long they take with the lab's own parts"
        raise Card(what, why, fix, FAILED) from error
    if code < 0:
        what = f"{name}'s experiments crashed Python itself ({signal.Signals(-code).name})."
        why = "A part that passed its check fails on larger inputs, or memory ran out."
        fix = f"invoke lab {name} runs them with the lab's own parts"
        raise Card(what, why, fix, FAILED)
    return code


def _summary(run: dict[str, Any]) -> str:
    ending = "" if run["whole"] or run["passed"] < run["of"] else ", but an experiment crashed"
    return f"{run['passed']} of {run['of']} checks passed in {run['seconds']:.0f} s{ending}"
