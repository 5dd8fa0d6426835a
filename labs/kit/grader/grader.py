"""Grade the parts of a sheet, each in a sandboxed child of one warm process."""

import ast
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from common import sheets
from common.cards import FAILED, Card
from common.syllabus import Lesson
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict
from labs.kit.grader.wording import verdict_of
from labs.kit.sandbox import child
from labs.kit.sandbox.limits import Limits

if TYPE_CHECKING:
    from labs.kit.grader import worker

LIMITS = Limits()
Stop = Callable[[], bool]


def _never() -> bool:
    return False


class Grader:
    """Grades sheets of one lab. Only its child processes run a learner's code.

    An exercise is checked with the reference solutions of all other exercises, so that one mistake
    is reported once, where it was made.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.source = lesson.path.read_text(encoding="utf-8")
        self.exercises = sheets.exercises(self.source)
        self._passed: dict[str, str] = {}  # the text of a part that passed, with its surroundings
        self._warm_up()

    def _warm_up(self) -> None:
        """Import everything that a check needs; use one thread: a pool doesn't survive a fork."""
        import torch

        torch.set_num_threads(1)
        import_module("labs.kit.grader.worker")
        import_module(self.lesson.module)
        import_module(self.lesson.checks_module)

    def keep_warm(self) -> None:
        """Also import what the checks import while they run, once for all children to come."""
        from labs.kit.grader import worker

        task = partial(worker.imports, self.lesson, list(self.exercises))
        names: list[str] = child.run(task, LIMITS).result or []
        for name in names:
            with suppress(Exception):  # an optional dependency that isn't installed
                import_module(name)

    def grade(self, path: Path, text: str, stop: Stop = _never) -> list[Verdict]:
        """Return a verdict on every exercise; fewer if `stop` says so.

        Raises:
            Card: if the sheet can't be run at all.
        """
        from labs.kit.grader import worker

        sheet = worker.Sheet(self.lesson, path, text)
        states = sheets.written(text, path, self.exercises)
        unwritten = [part for part in self.exercises if not states.get(part)]
        self._require_loadable(sheet, unwritten, stop)
        surroundings = _surroundings(text)
        mine = sheets.found_in(text)
        verdicts: list[Verdict] = []
        for part in self.exercises:
            if not states.get(part):
                verdicts.append(_unwritten(part, exists=part in states))
                continue
            verdict = self._grade_part(sheet, part, surroundings + mine[part].text, stop)
            if verdict is None:
                break
            verdicts.append(verdict)
        return verdicts

    def _grade_part(
        self, sheet: "worker.Sheet", part: str, text: str, stop: Stop
    ) -> Verdict | None:
        """Return the verdict on one written part; None if `stop` said so."""
        from labs.kit.grader import worker

        if self._passed.get(part) == text:
            return Verdict(part, RIGHT)
        others = [name for name in self.exercises if name != part]
        outcome = child.run(partial(worker.check, sheet, others, part), LIMITS, stop)
        if outcome.kind == "stopped":
            return None
        verdict = verdict_of(part, outcome, LIMITS, str(sheet.path), sheet.text)
        if verdict.state == RIGHT:
            self._passed[part] = text
        return verdict

    def _require_loadable(self, sheet: "worker.Sheet", unwritten: list[str], stop: Stop) -> None:
        from labs.kit.grader import worker

        outcome = child.run(partial(worker.load, sheet, unwritten), LIMITS, stop)
        verdict = verdict_of("", outcome, LIMITS, str(sheet.path), sheet.text)
        if outcome.kind == "stopped" or verdict.state == RIGHT:
            return
        place = f"Line {verdict.line}, {verdict.code.strip()!r}: " if verdict.line else ""
        what = f"{sheet.path} can't be run, so nothing in it can be checked."
        fix = f"correct that line; invoke learn {self.lesson.name} shows what you have changed"
        raise Card(what, f"{place}{verdict.message}", fix, FAILED)


def _surroundings(text: str) -> str:
    """Return a hash of a sheet without its exercises' bodies, on which every verdict depends.

    It hashes the syntax tree: a comment changes nothing.
    """
    with suppress(ValueError):  # a changed decorator: then the bodies count, too
        text = sheets.blank(text)
    return sheets.digest(ast.dump(ast.parse(text)))


def _unwritten(part: str, exists: bool) -> Verdict:
    if exists:
        return Verdict(part, NOT_WRITTEN)
    message = "your sheet has no function of this name: was it renamed or deleted?"
    return Verdict(part, WRONG, message)
