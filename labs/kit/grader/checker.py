"""Check the sheet of one lab: grade it, record progress, show what to do next."""

from collections.abc import Callable
from dataclasses import dataclass

from common import progress, sheets, workbook
from common.cards import FAILED
from common.progress import Record
from common.syllabus import Lesson
from common.terminal import labelled, line
from labs.kit.grader import feedback, sheet_run
from labs.kit.grader.grader import Grader
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict

CURRENT = ""  # --hint or --solution without the name of an exercise


@dataclass(frozen=True)
class Request:
    """What the learner asked for; `hint` and `solution` are None, CURRENT or an exercise."""

    every: bool = False
    watch: bool = False
    hint: str | None = None
    solution: str | None = None


class Checker:
    """Checks the sheet of one lab, any number of times."""

    def __init__(self, lesson: Lesson, request: Request) -> None:
        self.lesson = lesson
        self.request = request
        self.path = workbook.sheet_of(lesson)
        self.text = ""  # the sheet as it was graded last
        self.grader = Grader(lesson)
        self.chosen = ""  # the exercise that the learner chose to work on, while it isn't right
        self.keys = False  # whether the watch reads keys
        self._ending_shown = False

    def check(self) -> int:
        """Grade the sheet and, if nothing is wrong, run the experiments on it.

        With --solution and no exercise's name it only grades: it must know which one is meant.

        Returns:
            The exit code.
        """
        verdicts = self.grade()
        if self.request.solution is not None:
            return 0
        states = {verdict.state for verdict in verdicts}
        code = FAILED
        if states != {NOT_WRITTEN} and WRONG not in states:
            code = sheet_run.run_experiments(self.lesson, self.path)
        if states == {RIGHT} and code:
            feedback.print_experiments_failed(self.lesson)
        else:
            self.show_next(verdicts)
        return code or (0 if states == {RIGHT} else FAILED)

    def grade(self, stop: Callable[[], bool] = lambda: False) -> list[Verdict]:
        """Grade each exercise, print and record the verdicts; fewer verdicts if `stop` says so."""
        self.text = text = workbook.read(self.path)
        verdicts = self.grader.grade(self.path, text, stop)
        workbook.restore(self.path, text)
        if len(verdicts) == len(self.grader.exercises):
            self._report(verdicts, text)
        return verdicts

    def _report(self, verdicts: list[Verdict], text: str) -> None:
        before = progress.read(self.lesson.name)
        record = self._record(verdicts, text)
        feedback.print_verdicts(self.path, self.lesson, verdicts, record)
        if sheets.made_from(text) not in ("", sheets.digest(self.grader.source)):
            feedback.print_older_sheet(self.lesson)
        right = [verdict.part for verdict in verdicts if verdict.state == RIGHT]
        new = [part for part in right if not before.of(part).done]
        feedback.print_newly_right(self.lesson, new)
        self._print_details(verdicts, record)

    def show_next(self, verdicts: list[Verdict]) -> None:
        """Show the exercise to write next, or the ending if all are right."""
        if all(verdict.state == RIGHT for verdict in verdicts):
            self._show_ending()
        elif self.request.hint is None and self.request.solution is None:
            self._show_exercise(verdicts)

    def _show_ending(self) -> None:
        name = self.lesson.name
        if not self._ending_shown:
            report = progress.read(name).last.get("report", "")
            feedback.print_ending(self.lesson, self.grader.source, report)
        if self.request.watch:
            how = "press r" if self.keys else f"invoke check {name}"
            line(f"To run the lab's experiments on your code: {how}")
        self._ending_shown = True

    def _show_exercise(self, verdicts: list[Verdict]) -> None:
        for verdict in self._current(verdicts):
            if verdict.state == NOT_WRITTEN:
                self.show(verdict)

    def show(self, verdict: Verdict) -> None:
        """Show an exercise to write next, or what is wrong with it."""
        record = progress.read(self.lesson.name)
        exercise = self.grader.exercises[verdict.part]
        if verdict.state == WRONG:
            feedback.print_mistake(self._place(verdict), verdict, exercise)
        else:
            line(f"\nNext: {verdict.part}, level {exercise.level}", "bold")
            labelled("task", exercise.task)
            labelled("where", self._place(verdict))
        self._print_hints(verdict.part, record)

    def show_next_hint(self, part: str) -> None:
        """Show one more hint for an exercise, and record that it was seen."""
        with progress.changing(self.lesson.name) as record:
            record.of(part).add_hint()
        line(f"\n{part}", "bold")
        self._print_hints(part, record)

    def _record(self, verdicts: list[Verdict], text: str) -> Record:
        mine = sheets.found_in(text)
        with progress.changing(self.lesson.name) as record:
            for verdict in verdicts:
                part = record.of(verdict.part)
                if verdict.state == NOT_WRITTEN or verdict.part not in mine:
                    continue
                part.add_try(mine[verdict.part].text, right=verdict.state == RIGHT)
            for name in self._named(self.request.hint, verdicts):
                record.of(name).add_hint()
            for name in self._named(self.request.solution, verdicts):
                record.of(name).solution = True
        return record

    def _named(self, name: str | None, verdicts: list[Verdict]) -> list[str]:
        """Return the exercise of that name; for CURRENT the first that isn't right, else all."""
        if name is None:
            return []
        if name:
            return [name]
        return [verdict.part for verdict in self._current(verdicts) or verdicts]

    def _current(self, verdicts: list[Verdict]) -> list[Verdict]:
        return current(verdicts, self.chosen)

    def _print_details(self, verdicts: list[Verdict], record: Record) -> None:
        wrong = [verdict for verdict in verdicts if verdict.state == WRONG]
        mistakes = [verdict for verdict in self._current(verdicts) if verdict.state == WRONG]
        shown = wrong if self.request.every else mistakes
        for verdict in shown:
            self.show(verdict)
        already = {verdict.part for verdict in shown}
        if not self.request.watch:  # there one exercise is written after the other
            others = [verdict for verdict in wrong if verdict.part not in already]
            feedback.print_other_mistakes(self.lesson.name, others)
        for part in self._named(self.request.hint, verdicts):
            if part not in already:
                line(f"\n{part}", "bold")
                self._print_hints(part, record)
        for part in self._named(self.request.solution, verdicts):
            feedback.print_solution(self.grader.source, self.grader.exercises[part])

    def _print_hints(self, part: str, record: Record) -> None:
        effort = record.of(part)
        exercise = self.grader.exercises[part]
        another = "press h" if self.keys else ""
        feedback.print_hints(exercise, effort.hints, self.lesson.name, bool(effort.done), another)

    def _place(self, verdict: Verdict) -> str:
        """Return file and line of the mistake, else of the body, else the file alone."""
        mine = sheets.found_in(self.text).get(verdict.part)
        number = verdict.line or (mine.first_line if mine else 0)
        return (
            f"{self.path}:{number}  {verdict.code.strip()}".rstrip() if number else str(self.path)
        )


def current(verdicts: list[Verdict], chosen: str = "") -> list[Verdict]:
    """Return the exercise to work on, in a list that is empty if all are right.

    It is the chosen one while it isn't right, else the first wrong one, else the first unwritten
    one.
    """
    unsolved = [verdict for verdict in verdicts if verdict.state != RIGHT]
    ranks = {WRONG: 1, NOT_WRITTEN: 2}
    unsolved.sort(key=lambda verdict: 0 if verdict.part == chosen else ranks[verdict.state])
    return unsolved[:1]
