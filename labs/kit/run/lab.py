"""A lab: the experiments and exercises of one file, run as a script, a module or a notebook."""

import argparse
import builtins
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeVar

from common.lab_options import options_of, parser_of
from common.options import Settings, namespace_of, settings_from
from common.source import require_experiment
from common.syllabus import find
from labs.kit.report.figure_style import use_style
from labs.kit.run import sheet_process
from labs.kit.run.devices import LARGE, choose_precision
from labs.kit.run.filled_sheet import open_sheet
from labs.kit.run.processes import group_size, is_main, nodes, run_ranks
from labs.kit.run.resume import require_checkpoints, say_how_to_resume
from labs.kit.run.run import Run
from labs.kit.run.session import ClosingFunction, Session

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = Callable[[Settings], None]


class Lab:
    """The experiments and exercises of one lab, `Lab("LLM06")`.

    Args:
        name: the name of a lesson or a deeper part.
        width: the width of the matrices in most products of its trainings; `auto` chooses a CPU's
            precision by it.
    """

    def __init__(self, name: str, width: int = LARGE) -> None:
        """Find the lab's file; it registers its parts and experiments as it is imported."""
        self.lesson = find(name)[0]
        self.width = width
        self.experiments: dict[str, Callable[[Run], Any]] = {}
        self.exercises: dict[str, Callable[..., Any]] = {}
        self._parser = parser_of(self.lesson)
        self._hooks: list[Hook] = []
        self._closing: ClosingFunction | None = None
        self.summary = ("–", "–")  # checks and memory of the last run
        self._notebook: Session | None = None
        use_style()

    def before_run(self, hook: Hook) -> None:
        """Register a function of the settings that is called before a run, once for all processes.

        It raises a card if the run can't start.
        """
        self._hooks.append(hook)

    def exercise(self, level: int, hints: tuple[str, ...]) -> Callable[[Function], Function]:
        """Mark a function or method as a part that the learner writes.

        Args:
            level: 1 (follow the text) to 3 (think it out).
            hints: from a first nudge to nearly the solution. Sheets read both from the source.
        """
        del level, hints

        def register(function: Function) -> Function:
            self.exercises[function.__qualname__] = function
            return function

        return register

    def experiment(self, function: Function) -> Function:
        """Mark a function as an experiment; its docstring starts with the claim.

        A notebook runs it at once.
        """
        if not function.__doc__:
            raise TypeError(f"the experiment {function.__name__} needs a docstring with its claim")
        self.experiments[function.__name__] = function
        if function.__module__ == "__main__" and _in_notebook():
            if self._notebook is None:
                self._notebook = self._session(self.parse([], None))
            self._notebook.conduct(function.__name__, function.__doc__, function)
        return function

    def closing(self, function: Function) -> Function:
        """Mark a function as the closing: it computes Markdown from the results of a full run."""
        self._closing = function
        return function

    def main(self) -> None:
        """Run the lab and exit with its code; in a notebook, print the table of claims."""
        if self._notebook is not None:
            with self._notebook as session:
                self._check_parts(session)
                session.finish(self._closing)
            return
        sys.exit(self.run(sys.argv[1:]))

    def run(self, words: list[str], common: Settings | None = None) -> int:
        """Run the lab as the command line asks.

        Args:
            words: the options to parse: the lab's own, and without `common` those of every lab.
            common: the options of every lab, already parsed.

        Returns:
            The exit code.
        """
        return sheet_process.call(lambda: self._run_words(words, common))

    def _run_words(self, words: list[str], common: Settings | None) -> int:
        settings = self.parse(words, common)
        if settings.sheet and not sheet_process.is_inside():
            code = sheet_process.run(self.lesson, settings, words)
            return code if code >= 0 else 128 - code  # as a shell does
        return self.run_with(settings)

    def parse(self, words: list[str], common: Settings | None = None) -> Settings:
        """Parse the words; argparse keeps the values that `common` has.

        Raises:
            Card: if they can't be parsed.
        """
        known = argparse.Namespace() if common is None else namespace_of(common)
        return settings_from(self._parser.parse_args(words, known), options_of(self.lesson))

    def run_with(self, settings: Settings) -> int:
        """Run the lab, or the learner's sheet that the settings name; return the exit code.

        Raises:
            Card: if it can't start.
        """
        if settings.sheet and self.lesson.yours is None:
            return open_sheet(self.lesson, settings.sheet).run_with(settings)
        if group_size() > 1:  # one of the processes that the lines below have started
            return self._run(settings)
        if settings.only:
            require_experiment(self.lesson.name, self.lesson.source, settings.only)
        require_checkpoints(self.lesson, settings)
        for hook in self._hooks:
            hook(settings)
        if settings.processes > 1 or nodes() > 1:
            precision = choose_precision(settings.precision, self.width)[0]  # for all of them
            settings = replace(settings, precision=precision)
            return run_ranks(settings.processes, run_rank, self.lesson.name, settings)
        return self._run(settings)

    def _run(self, settings: Settings) -> int:
        try:
            with self._session(settings) as session:
                if settings.only:
                    return self._run_one(session, settings.only)
                return self._run_all(session)
        except KeyboardInterrupt:
            if is_main():
                say_how_to_resume(self.lesson, settings)
            raise

    def _session(self, settings: Settings) -> Session:
        return Session(self.lesson, settings, self.width)

    def _run_one(self, session: Session, name: str) -> int:
        """Run one experiment, and what it needs: a training that others use too, for example."""
        function = self.experiments[name]
        session.conduct(name, function.__doc__ or "", function)
        code = session.finish()
        self.summary = session.summary()
        return code

    def _run_all(self, session: Session) -> int:
        self._check_parts(session)
        for name, function in self.experiments.items():
            if session.conduct(name, function.__doc__ or "", function).crash:
                break
        code = session.finish(self._closing)
        self.summary = session.summary()
        return code

    def _check_parts(self, session: Session) -> None:
        for function in list(self.exercises.values())[:1]:
            session.check_parts(list(self.exercises), sys.modules[function.__module__])


def run_rank(name: str, settings: Settings) -> int:
    """Run a lab in one process of a group; return the exit code."""
    lab = import_module(find(name)[0].module).lab
    return sheet_process.call(lambda: lab.run_with(settings))


def _in_notebook() -> bool:
    return hasattr(builtins, "get_ipython") or hasattr(builtins, "__IPYTHON__")
