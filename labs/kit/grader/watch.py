"""`check --watch`: check again at every save, with torch imported once; keys ask for more."""

import os
import sys
import time
from contextlib import suppress

from common.cards import Card
from common.terminal import line, screen
from labs.kit.grader import sheet_run
from labs.kit.grader.checker import Checker, current
from labs.kit.grader.keyboard import Keyboard, TerminalGone, open_keyboard
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict

POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.15  # an editor empties, writes and renames a file
GONE_SECONDS = 1.0  # an editor's new file takes the old one's place before that
KEYS = "h hint · n next exercise · r run experiments · q quit"
ERASE_LINE = "\r\x1b[2K"


class _Quit(Exception):
    """The learner pressed q, or nobody is left who could."""


def run(checker: Checker) -> int:
    """Check, then wait for the next save or key, until q or Ctrl-C.

    The watch also ends when its terminal is closed or the process that started it ends.

    Returns:
        The exit code, 0.
    """
    with open_keyboard() as keyboard:
        checker.keys = keyboard.exists
        try:
            _Watch(checker, keyboard).run()
        except _Quit:
            pass
        except TerminalGone:  # what is still to be printed has nowhere to go
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere, stream.fileno())
    return 0


class _Watch:
    """A checker, a keyboard, and what the last check found."""

    def __init__(self, checker: Checker, keyboard: Keyboard) -> None:
        self.checker = checker
        self.keyboard = keyboard
        self.text = b""  # the sheet that was checked last
        self.verdicts: list[Verdict] = []  # empty if that sheet can't be run
        self.part = ""  # the exercise that h shows a hint for
        self.parent = os.getppid()
        self.quitting = False  # q was pressed while the experiments ran

    def run(self) -> None:
        """Check at every save; never returns by itself."""
        warm = False
        while True:
            self.text = self._read()
            line("checking …", "dim")
            self._check()
            if not warm:  # now, because a save during the imports would have to wait for them
                line("preparing, a few seconds: later checks will be faster …", "dim")
                self.checker.grader.keep_warm()
                warm = True
            end = "" if self.keyboard.exists else "; Ctrl-C ends the watch"
            line(f"\nwatching {self.checker.path}: save it to check it again{end}")
            self._wait()

    def _check(self) -> None:
        """Check once; give up if the sheet is saved meanwhile."""
        start = time.perf_counter()
        self.verdicts = []
        try:
            verdicts = self.checker.grade(stop=self._interrupted)
        except Card as card:
            card.show()
            return
        line(f"({time.perf_counter() - start:.1f} s)", "dim")
        if len(verdicts) == len(self.checker.grader.exercises):
            self.verdicts = verdicts
            self.checker.show_next(verdicts)
            self.part = self._current_part()

    def _interrupted(self) -> bool:
        """Return whether the check is of no use any more; of the keys only q counts meanwhile."""
        self._pressed()
        return self._saved()

    def _pressed(self) -> str:
        """Return the keys that were pressed.

        Raises:
            _Quit: If q was, or the process that started this one has ended.
            TerminalGone: If the terminal was closed.
        """
        keys = self.keyboard.pressed()
        if "q" in keys or os.getppid() != self.parent:
            raise _Quit
        return keys

    def _wait(self) -> None:
        """Wait for the next save, and do what the keys ask for; report if the sheet disappears."""
        last_seen = time.monotonic()
        reported = False
        self._pressed()  # ignores keys that were pressed during the check
        try:
            self._show_keys()
            while not self._saved():
                if self.checker.path.exists():
                    last_seen = time.monotonic()
                    reported = False
                elif not reported and time.monotonic() - last_seen > GONE_SECONDS:
                    self._report_missing()
                    reported = True
                for key in self._pressed():
                    self._act(key)
                time.sleep(POLL_SECONDS)
        finally:
            self._hide_keys()

    def _report_missing(self) -> None:
        self._hide_keys()
        command = f"invoke learn {self.checker.lesson.name}"
        line(f"{self.checker.path} is gone: save it again, or write a new one by {command}")
        self._show_keys()

    def _show_keys(self) -> None:
        if self.keyboard.exists:  # a line that wraps couldn't be erased
            sys.stdout.write(f" {KEYS}"[: screen().width - 1])
            sys.stdout.flush()

    def _hide_keys(self) -> None:
        if self.keyboard.exists:
            with suppress(OSError):  # the terminal is gone
                sys.stdout.write(ERASE_LINE)
                sys.stdout.flush()

    def _act(self, key: str) -> None:
        actions = {"h": self._hint, "n": self._next, "r": self._run_experiments}
        if key not in actions:
            return
        self._hide_keys()
        try:
            actions[key]()
        except Card as card:
            card.show()
        line("")
        self._show_keys()

    def _hint(self) -> None:
        if self.part:
            self.checker.show_next_hint(self.part)
        elif self.verdicts:
            line("All exercises are right, so there is nothing to give a hint for.")
        else:
            self._report_no_verdicts()

    def _next(self) -> None:
        """Choose the next exercise that isn't right, in the sheet's order, from the current one."""
        if not self.verdicts:
            self._report_no_verdicts()
            return
        parts = [verdict.part for verdict in self.verdicts]
        after = parts.index(self.part) + 1 if self.part else 0
        skipped: list[str] = []
        for verdict in self.verdicts[after:] + self.verdicts[:after]:
            if verdict.state != RIGHT:
                self._choose(verdict, skipped)
                return
            skipped.append(verdict.part)
        line("All exercises are right. r runs the experiments on your code.")

    def _choose(self, verdict: Verdict, skipped: list[str]) -> None:
        if skipped:
            line(f"{_listed(skipped)} already right.", "dim")
        if verdict.part == self.part:
            line(f"{verdict.part} is the only exercise left.", "dim")
        self.part = verdict.part
        self.checker.chosen = verdict.part
        self.checker.show(verdict)

    def _run_experiments(self) -> None:
        """Run the experiments on the sheet, unless they would only repeat what is wrong."""
        wrong = [verdict.part for verdict in self.verdicts if verdict.state == WRONG]
        missing = [verdict.part for verdict in self.verdicts if verdict.state == NOT_WRITTEN]
        path = self.checker.path
        name = self.checker.lesson.name
        if not self.verdicts:
            self._report_no_verdicts()
        elif wrong:
            line(f"{_listed(wrong)} wrong, so the experiments were not started.")
            line(f"To run them anyway: invoke lab {name} -- --sheet {path}")
        elif len(missing) == len(self.verdicts):
            line("No exercise is written yet, so the experiments were not started.")
            line(f"To run them on the lab's own solutions: invoke lab {name}")
        else:
            if missing:
                line(f"{_listed(missing)} not written yet: the lab's own solutions stand in.")
            self._run_on_sheet()

    def _run_on_sheet(self) -> None:
        """Run the experiments on the sheet.

        Raises:
            _Quit: If q was pressed meanwhile, or the process that started this one has ended.
        """
        q = ("q ends them and the watch",) if self.keyboard.exists else ()
        try:
            sheet_run.run_experiments(
                self.checker.lesson, self.checker.path, *q, stop=self._quit_pressed
            )
        except KeyboardInterrupt:
            if self.quitting:
                raise _Quit from None
            raise
        self._pressed()  # ignores other keys that were pressed meanwhile

    def _quit_pressed(self) -> bool:
        """Return whether q was pressed, or the process that started this one has ended."""
        try:
            self._pressed()
        except _Quit:
            self.quitting = True
        return self.quitting

    def _report_no_verdicts(self) -> None:
        line(f"{self.checker.path} can't be checked as it is: see the message above.")

    def _current_part(self) -> str:
        return "".join(verdict.part for verdict in current(self.verdicts, self.checker.chosen))

    def _saved(self) -> bool:
        """Return whether the sheet has changed and has been written to its end."""
        now = self._read()
        if now in (self.text, b""):
            return False
        time.sleep(SETTLE_SECONDS)
        return self._read() == now

    def _read(self) -> bytes:
        """Return the sheet's bytes; none while an editor replaces the file."""
        try:
            return self.checker.path.read_bytes()
        except FileNotFoundError:
            return b""


def _listed(parts: list[str]) -> str:
    """Return names with their verb: "add is", "add and count are", "a, b and c are"."""
    if len(parts) == 1:
        return f"{parts[0]} is"
    return f"{', '.join(parts[:-1])} and {parts[-1]} are"
