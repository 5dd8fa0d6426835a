"""`python -m labs check LLM06`: grade the learner's sheet, tell one thing at a time, remember."""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labs.kit import experiments, progress, sheets, tell, watch, work
from labs.kit.cards import FAILED, WRONG_USAGE, Card
from labs.kit.grader import Grader
from labs.kit.options import Parser
from labs.kit.progress import Record
from labs.kit.syllabus import Lesson, find
from labs.kit.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict

DESCRIPTION = "Check your sheet of a lab, exercise by exercise, then run its experiments on it."
CURRENT = ""  # what --hint and --solution mean without a name


@dataclass(frozen=True)
class Asked:
    """What was asked for; `hint` and `solution` are None, CURRENT or an exercise."""

    every: bool = False
    watch: bool = False
    hint: str | None = None
    solution: str | None = None


def parser() -> Parser:
    """The options of `check`."""
    one = Parser(prog="python -m labs check", description=DESCRIPTION, allow_abbrev=False)
    one.help_is_at = "invoke check --help"
    one.add_argument("lab", help="LLM06, or 6")
    one.add_argument("--all", action="store_true", help="all that is wrong, not the first alone")
    one.add_argument("--watch", action="store_true", help="check again whenever the sheet is saved")
    how: dict[str, Any] = {"nargs": "?", "const": CURRENT, "metavar": "EXERCISE"}
    one.add_argument("--hint", **how, help="the next hint, or all once it is right")
    one.add_argument("--solution", **how, help="the lab's own solution")
    one.add_argument("--plan", action="store_true", help="print what would run, as JSON")
    return one


def main(arguments: list[str]) -> int:
    """`python -m labs check`; 0 where every exercise is right and its experiments hold, else 1."""
    given = parser().parse_args(arguments)
    lesson = _one(given.lab)
    if not work.sheet_of(lesson).is_file():
        raise work.missing(lesson)
    asked = Asked(given.all, given.watch, given.hint, given.solution)
    for flag, part in (("--hint", asked.hint), ("--solution", asked.solution)):
        _known(lesson, flag, part)
    if given.plan:
        print(json.dumps({"labs": [lesson.name], "arguments": arguments}))
        return 0
    if (asked.hint or asked.solution) and not asked.watch:
        return _show(lesson, asked)
    checker = Checker(lesson, asked)
    return watch.run(checker) if asked.watch else checker.check()


def _one(text: str) -> Lesson:
    found = find(text)
    if len(found) > 1:
        why = f"{text} names {len(found)} of them."
        raise Card("Sheets are checked one at a time.", why, "invoke check LLM06", WRONG_USAGE)
    return found[0]


def _known(lesson: Lesson, flag: str, part: str | None) -> None:
    exercises = sheets.exercises(lesson.source)
    if part and part not in exercises:
        why = f"It has {', '.join(exercises)}."
        mend = f"invoke check {lesson.name} {flag} {_nearest(part, list(exercises))}".rstrip()
        raise Card(f"{lesson.name} has no exercise {part!r}.", why, mend, WRONG_USAGE)


def _nearest(part: str, exercises: list[str]) -> str:
    """The exercise that is meant by a misspelt name, or by a method's alone; else none."""
    names = {one.lower().rpartition(".")[2]: one for one in reversed(exercises)}
    names |= {one.lower(): one for one in exercises}
    near = difflib.get_close_matches(part.lower(), names, n=1)
    return names[near[0]] if near else ""


def _show(lesson: Lesson, asked: Asked) -> int:
    """Hints or the solution of an exercise that was named: nothing has to be checked for it; 0."""
    exercises = sheets.exercises(lesson.source)
    with progress.changing(lesson.name) as record:
        if asked.hint:
            record.of(asked.hint).one_more_hint()
        if asked.solution:
            record.of(asked.solution).solution = True
    if asked.hint:
        one = record.of(asked.hint)
        tell.line(asked.hint, "bold")
        tell.hints(exercises[asked.hint], one.hints, lesson.name, bool(one.done))
    if asked.solution:
        tell.solution(lesson.source, exercises[asked.solution])
    return 0


class Checker:
    """Checks the sheet of one lab, as often as it is asked to."""

    def __init__(self, lesson: Lesson, asked: Asked) -> None:
        self.lesson, self.asked = lesson, asked
        self.path = work.sheet_of(lesson)
        self.text = ""  # the sheet's, as it was graded last
        self.grader = Grader(lesson)
        self._ended = False  # has the ending been told?

    def check(self) -> int:
        """Grade, tell, and where nothing is wrong run the experiments; the exit code.

        The grading alone where a solution was asked for: it has to know whose, and no more.
        """
        verdicts = self.grade()
        if self.asked.solution is not None:
            return 0
        states = {one.state for one in verdicts}
        code = FAILED
        if states != {NOT_WRITTEN} and WRONG not in states:
            code = experiments.on_the_sheet(self.lesson, self.path)
        self.tell_next(verdicts)
        return code or (0 if states == {RIGHT} else FAILED)

    def grade(self, stop: Callable[[], bool] = lambda: False) -> list[Verdict]:
        """A verdict on each exercise, told and remembered; fewer where `stop` said so."""
        self.text = text = work.read(self.path)
        verdicts = self.grader.grade(self.path, text, stop)
        work.put_back(self.path, text)
        if len(verdicts) == len(self.grader.exercises):
            before = progress.read(self.lesson.name)
            record = self._remember(verdicts, text)
            tell.table(self.path, self.lesson, verdicts, record)
            if sheets.made_from(text) not in ("", sheets.digest(self.grader.source)):
                tell.older(self.lesson)
            right = [one.part for one in verdicts if one.state == RIGHT]
            tell.compare(self.lesson, [part for part in right if not before.of(part).done])
            self._tell_more(verdicts, record)
        return verdicts

    def tell_next(self, verdicts: list[Verdict]) -> None:
        """What to write next, where nothing is wrong and something is left; or the ending."""
        if all(one.state == RIGHT for one in verdicts):
            if not self._ended:
                tell.ending(self.lesson, self.grader.source)
            if self.asked.watch:
                tell.line(
                    f"Now the lab's experiments, on your code: invoke check {self.lesson.name}"
                )
            self._ended = True
        elif self.asked.hint is None and self.asked.solution is None:
            for part in current(verdicts):
                exercise = self.grader.exercises[part]
                if all(one.state != WRONG for one in verdicts):
                    tell.line(f"\nNext: {part}, level {exercise.level}", "bold")
                    tell.labelled("asked", exercise.asked)
                    tell.labelled("where", self._at(Verdict(part, NOT_WRITTEN)))
                    self._tell_hints(part, progress.read(self.lesson.name))

    def _remember(self, verdicts: list[Verdict], text: str) -> Record:
        mine = sheets.found_in(text)
        with progress.changing(self.lesson.name) as record:
            for verdict in verdicts:
                part = record.of(verdict.part)
                if verdict.state == NOT_WRITTEN or verdict.part not in mine:
                    continue
                part.tried(mine[verdict.part].text, right=verdict.state == RIGHT)
            self._show_more(verdicts, record)
        return record

    def _show_more(self, verdicts: list[Verdict], record: Record) -> None:
        """Count what --hint and --solution are about to show."""
        for part in self._meant(self.asked.hint, verdicts):
            record.of(part).one_more_hint()
        for part in self._meant(self.asked.solution, verdicts):
            record.of(part).solution = True

    def _meant(self, name: str | None, verdicts: list[Verdict]) -> list[str]:
        """The exercise by that name; without one the first that isn't right, or else all."""
        if name is None:
            return []
        return [name] if name else current(verdicts) or [one.part for one in verdicts]

    def _tell_more(self, verdicts: list[Verdict], record: Record) -> None:
        failing = [one for one in verdicts if one.state == WRONG]
        shown = failing if self.asked.every else failing[:1]
        for verdict in shown:
            tell.wrong(self._at(verdict), verdict, self.grader.exercises[verdict.part])
            self._tell_hints(verdict.part, record)
        told = {one.part for one in shown}
        for part in self._meant(self.asked.hint, verdicts):
            if part not in told:
                tell.line(f"\n{part}", "bold")
                self._tell_hints(part, record)
        for part in self._meant(self.asked.solution, verdicts):
            tell.solution(self.grader.source, self.grader.exercises[part])

    def _tell_hints(self, part: str, record: Record) -> None:
        one = record.of(part)
        tell.hints(self.grader.exercises[part], one.hints, self.lesson.name, bool(one.done))

    def _at(self, verdict: Verdict) -> str:
        """Where it went wrong, else where the body is, else the file."""
        mine = sheets.found_in(self.text).get(verdict.part)
        line = verdict.line or (mine.first_line if mine else 0)
        return f"{self.path}:{line}  {verdict.code.strip()}".rstrip() if line else str(self.path)


def current(verdicts: list[Verdict]) -> list[str]:
    """The exercise to work at: the first that is wrong, else the first that isn't written."""
    for state in (WRONG, NOT_WRITTEN):
        for verdict in verdicts:
            if verdict.state == state:
                return [verdict.part]
    return []
