"""A lab: the experiments and exercises of one file, run as a script, a module or a notebook."""

import builtins
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from labs.kit import assets, dataset, experiments, kept
from labs.kit.cards import Card
from labs.kit.corpus import text_file
from labs.kit.device import choose_precision
from labs.kit.figures import use_style
from labs.kit.graft import lab_of
from labs.kit.options import common_parser, settings_from
from labs.kit.ranks import end_with_its_starter, group_size, is_main, start
from labs.kit.run import Run
from labs.kit.session import Session
from labs.kit.syllabus import find

Function = TypeVar("Function", bound=Callable[..., Any])
INTERRUPTED = 130


@dataclass(frozen=True)
class Exercise:
    """A function or method that the learner writes. `part` is its name, or "Class.method"."""

    part: str
    level: int
    hints: tuple[str, ...]
    function: Callable[..., Any]

    @property
    def implementation(self) -> Any:
        """What labs/checks is given: the function, or for a method its class."""
        if "." not in self.part:
            return self.function
        return self.function.__globals__[self.part.split(".")[0]]


class Lab:
    """The experiments and exercises of one lab, `Lab("LLM06")`."""

    def __init__(self, name: str) -> None:
        self.lesson = find(name)[0]
        self.experiments: dict[str, Callable[[Run], Any]] = {}
        self.exercises: dict[str, Exercise] = {}
        help_is_at = f"invoke lab {name} -- --help"
        self._parser = common_parser(f"python -m labs {name}", self.lesson.blurb, help_is_at)
        self.summary = ("–", "–")  # the last run's checks and memory
        self._notebook: Session | None = None
        use_style()

    def argument(self, *names: str, **how: Any) -> None:
        """Declare an option of this lab's own; it is read as `run.options.<name>`."""
        self._parser.add_argument(*names, **how)

    def exercise(self, level: int, hints: tuple[str, ...]) -> Callable[[Function], Function]:
        """Mark a function or method as a part that the learner writes.

        Args:
            level: 1 (follow the text) to 3 (think it out).
            hints: from the first nudge to nearly the answer.
        """

        def register(function: Function) -> Function:
            part = function.__qualname__
            self.exercises[part] = Exercise(part, level, hints, function)
            return function

        return register

    def experiment(self, function: Function) -> Function:
        """Mark a function as an experiment, its docstring its claim. A notebook runs it at once."""
        if not function.__doc__:
            raise TypeError(
                f"the experiment {function.__name__} has no docstring to state its claim"
            )
        self.experiments[function.__name__] = function
        if function.__module__ == "__main__" and _in_notebook():
            self._notebook = self._notebook or Session(
                self.lesson, settings_from(self._parser.parse_args([]))
            )
            self._notebook.conduct(function.__name__, function.__doc__, function)
        return function

    def main(self) -> None:
        """Run the whole lab and exit with its code; in a notebook, print the table of claims."""
        if self._notebook is not None:
            with self._notebook as session:
                session.grade(self._parts())
                session.finish()
            return
        sys.exit(self.run(sys.argv[1:]))

    def run(self, arguments: list[str]) -> int:
        """Run the whole lab as the command line asks; the exit code."""
        try:
            settings = settings_from(self._parser.parse_args(arguments))
            if settings.sheet and self.lesson.yours is None:
                return lab_of(self.lesson, settings.sheet).run(arguments)
            kept.expect(self.lesson, settings)
            if getattr(settings.own, "corpus", None):
                text_file(settings.own.corpus)  # a bad file is told now, and once
            dataset.look_at_first(settings)
            if settings.processes > group_size():
                precision = choose_precision(settings.precision)[0]  # once, for all of them
                chosen = ["--precision", precision]
                return start(settings.processes, [self.lesson.name, *arguments, *chosen])
            if group_size() > 1:
                end_with_its_starter()
            with Session(self.lesson, settings) as session:
                return self._conduct_all(session)
        except Card as card:
            card.show()
            return card.code
        except KeyboardInterrupt:
            return INTERRUPTED

    def _conduct_all(self, session: Session) -> int:
        if getattr(session.run.options, "model", None):
            assets.pretrained(session.run)  # a wrong name is told now, not when it is first used
        session.grade(self._parts())
        for name, function in self.experiments.items():
            if session.conduct(name, function.__doc__ or "", function).crash:
                break
        code = session.finish()
        self.summary = session.summary()
        if is_main() and self.lesson.yours is not None:
            experiments.remember(self.lesson, session)
        return code

    def _parts(self) -> dict[str, Any]:
        return {part: exercise.implementation for part, exercise in self.exercises.items()}


def _in_notebook() -> bool:
    return hasattr(builtins, "get_ipython") or hasattr(builtins, "__IPYTHON__")
