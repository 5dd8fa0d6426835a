"""The grader: each part of a sheet, in a child of one warm process, put to labs/checks."""

import ast
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from labs.kit import fence, sheets, verdicts
from labs.kit.cards import FAILED, Card
from labs.kit.fence import Limits
from labs.kit.syllabus import Lesson
from labs.kit.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict

if TYPE_CHECKING:
    from labs.kit import examine

CHECKED_IN = Limits()


class Grader:
    """Grades sheets of one lab. It never runs a learner's line itself: its children do.

    An exercise is graded with all others as they are in the lab, so that one mistake is told once,
    where it was made.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.source = lesson.path.read_text(encoding="utf-8")
        self.exercises = sheets.exercises(self.source)
        self._right: dict[str, str] = {}  # the text of a part that passed, and of all around it
        self._warm_up()

    def _warm_up(self) -> None:
        """Import all that a check needs. One thread: a pool of them doesn't survive a fork."""
        import torch

        torch.set_num_threads(1)
        import_module("labs.kit.examine")
        import_module(self.lesson.module)
        import_module(f"labs.checks.{self.lesson.name.lower()}")

    def keep_warm(self) -> None:
        """Import what the checks import on their way, too, once for all children to come."""
        from labs.kit import examine

        asked = partial(examine.imports, self.lesson, list(self.exercises))
        names: list[str] = fence.run(asked, CHECKED_IN).answer or []
        for name in names:
            with suppress(Exception):  # what one library has for another that isn't here
                import_module(name)

    def grade(
        self, path: Path, text: str, stop: Callable[[], bool] = lambda: False
    ) -> list[Verdict]:
        """A verdict on every exercise; fewer where `stop` said so.

        Raises:
            Card: where the sheet as a whole can't be run.
        """
        from labs.kit import examine

        sheet = examine.Sheet(self.lesson, path, text)
        states = sheets.written(text, path, self.exercises)
        lacking = [part for part in self.exercises if not states.get(part)]
        self._must_load(sheet, lacking, stop)
        around, mine = _around(text), sheets.found_in(text)
        found: list[Verdict] = []
        for part in self.exercises:
            if not states.get(part):
                found.append(_without(part, there=part in states))
                continue
            now = around + mine[part].text
            if self._right.get(part) == now:
                found.append(Verdict(part, RIGHT))
                continue
            others = [one for one in self.exercises if one != part]
            ended = fence.run(partial(examine.part_of, sheet, others, part), CHECKED_IN, stop)
            if ended.how == "stopped":
                break
            found.append(verdicts.of(part, ended, CHECKED_IN, str(path), text))
            if found[-1].state == RIGHT:
                self._right[part] = now
        return found

    def _must_load(
        self, sheet: "examine.Sheet", lacking: list[str], stop: Callable[[], bool]
    ) -> None:
        from labs.kit import examine

        ended = fence.run(partial(examine.loads, sheet, lacking), CHECKED_IN, stop)
        verdict = verdicts.of("", ended, CHECKED_IN, str(sheet.path), sheet.text)
        if ended.how == "stopped" or verdict.state == RIGHT:
            return
        at = f"Line {verdict.line}, {verdict.code.strip()!r}: " if verdict.line else ""
        what = f"{sheet.path} can't be run, so nothing in it can be checked."
        mend = f"correct that line; invoke learn {self.lesson.name} shows what you have changed"
        raise Card(what, f"{at}{verdict.said}", mend, FAILED)


def _around(text: str) -> str:
    """A digest of a sheet without its exercises' bodies, which a part's verdict depends on, too.

    Of what Python reads of it: a comment changes nothing.
    """
    with suppress(ValueError):  # a decorator was changed: then on the bodies, too
        text = sheets.blank(text)
    return sheets.digest(ast.dump(ast.parse(text)))


def _without(part: str, there: bool) -> Verdict:
    if there:
        return Verdict(part, NOT_WRITTEN)
    return Verdict(part, WRONG, "your sheet has no function of this name: was it renamed, or lost?")
