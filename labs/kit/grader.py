"""The grader: each part of a sheet, in a child of one warm process, put to labs/checks."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from labs.kit import fence, sheets, verdicts
from labs.kit.cards import FAILED, Card
from labs.kit.fence import Limits
from labs.kit.syllabus import Lesson
from labs.kit.verdicts import NOT_WRITTEN, WRONG, Verdict

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
        self._warm_up()

    def _warm_up(self) -> None:
        """Import all that a check needs. One thread: a pool of them doesn't survive a fork."""
        import torch

        torch.set_num_threads(1)
        import_module("labs.kit.examine")
        import_module(self.lesson.module)
        import_module(f"labs.checks.{self.lesson.name.lower()}")

    def grade(
        self, path: Path, text: str, stop: Callable[[], bool] = lambda: False
    ) -> list[Verdict]:
        """A verdict on every exercise; fewer where `stop` said so.

        Raises:
            Card: where the sheet as a whole can't be run.
        """
        from labs.kit import examine

        states = sheets.written(text, path, self.exercises)
        missing = [part for part in self.exercises if not states.get(part)]
        load = partial(examine.loads, path, text, self.source, missing, f"{path.stem}_sheet")
        self._must_load(path, load, stop)
        found: list[Verdict] = []
        for part in self.exercises:
            if not states.get(part):
                gone = part not in states
                said = f"the sheet has no {part} (was it renamed?)" if gone else ""
                found.append(Verdict(part, WRONG if gone else NOT_WRITTEN, said))
                continue
            others = [one for one in self.exercises if one != part]
            work = partial(examine.part_of, path, text, self.source, others)
            work = partial(work, self.lesson.name, self.lesson.module, part)
            ended = fence.run(work, CHECKED_IN, stop)
            if ended.how == "stopped":
                return found
            found.append(verdicts.of(part, ended, CHECKED_IN, str(path)))
        return found

    def _must_load(self, path: Path, load: Callable[[], object], stop: Callable[[], bool]) -> None:
        ended = fence.run(load, CHECKED_IN, stop)
        verdict = verdicts.of("", ended, CHECKED_IN, str(path))
        if ended.how != "stopped" and verdict.state == WRONG:
            at = f"line {verdict.line}: {verdict.code.strip()}" if verdict.line else "its own lines"
            what = f"{path} can't be run."
            raise Card(
                what,
                f"{at}\n     {verdict.said}",
                "mend it; the lab's own lines are in git",
                FAILED,
            )
