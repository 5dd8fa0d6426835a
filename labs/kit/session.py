"""A lab at work: one experiment after the other, then results, report and table of claims."""

import os
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from inspect import cleandoc
from pathlib import Path
from typing import Any

from labs.kit import gpus, guesses, results
from labs.kit.cards import FAILED, Card
from labs.kit.console import Output
from labs.kit.device import choose_precision, describe_device
from labs.kit.grading import Mistake, check_of
from labs.kit.options import Settings
from labs.kit.outputs import new_folder, refused, writing_to
from labs.kit.ranks import is_main
from labs.kit.records import Experiment
from labs.kit.run import STYLES, Run
from labs.kit.syllabus import Lesson

from rich.rule import Rule
from rich.table import Table
from rich.text import Text

Function = Callable[[Run], Any]
MOST_TOLD = 3  # failed checks, in the card; the table and the report have them all
LEGEND = (
    "✓ ✗ a check: it must hold on every correct machine. ● held, ○ not held, ◐ inconclusive,\n"
    "· told: a measurement, which depends on hardware or chance. 2 [1, 3]: a median and its range."
)


class Session:
    """One run of one lab. Use as a context: it closes the log.

    Raises:
        Card: where the GPU or the precision can't be had, or the outputs folder can't be written.
    """

    def __init__(self, lesson: Lesson, settings: Settings) -> None:
        self.lesson = lesson
        gpus.expect(results.stack().get("stack", "cpu"))
        precision, reason = choose_precision(settings.precision)
        self._files = ExitStack()
        self.folder = new_folder(settings.outputs, lesson.name) if is_main() else Path(os.devnull)
        self._files.enter_context(writing_to(self.folder))
        log_path = self.folder / "log.txt" if is_main() else self.folder
        log = self._files.enter_context(log_path.open("w", encoding="utf-8"))
        self.output = Output(log, silent=not is_main())
        self.run = Run(settings, precision, self.output, self.folder, lesson)
        self.experiments: list[Experiment] = []
        self._say_hello(reason)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> bool | None:
        try:
            return self._files.__exit__(*error)
        finally:
            for place in self.run.places:
                place.leave()
            if is_main() and not self.experiments:  # refused before it began: nothing worth keeping
                shutil.rmtree(self.folder, ignore_errors=True)

    def _say_hello(self, reason: str) -> None:
        run = self.run
        self.output.print(Rule(f"{self.lesson.name} · {self.lesson.title}", align="left"))
        self.output.print(
            f"{describe_device(run.device)} · {run.precision} ({reason}) · "
            f"size {run.size} · seed {run.seed}{self._processes()}"
        )

    def _processes(self) -> str:
        n = self.run.accelerator.num_processes
        return f" · {n} processes" if n > 1 else ""

    def conduct(self, name: str, doc: str, function: Function) -> Experiment:
        """Run one experiment from its own seed; a crash is recorded and shown whole."""
        from accelerate.utils import set_seed

        claim, _, details = cleandoc(doc).partition("\n\n")
        experiment = Experiment(name, " ".join(claim.split()), details.strip())
        self.run.current = experiment
        self.experiments.append(experiment)
        self.output.print()
        self.output.print(Text(f"{len(self.experiments)}. {experiment.claim}", style="bold"))
        if self.lesson.yours is None:  # a sheet is checked again and again
            experiment.guess = guesses.ask(experiment.details, self.output)
        set_seed(self.run.seed)
        start = time.perf_counter()
        try:
            experiment.conclusion = function(self.run) or ""
        except Card:
            raise
        except OSError as error:
            if refused(error, self.folder):
                raise  # becomes a card: the disk is at fault, not the lab
            self._crashed(experiment)
        except Exception:
            self._crashed(experiment)
        experiment.seconds = time.perf_counter() - start
        if experiment.conclusion:
            self.output.print(Text(f"   → {experiment.conclusion}", style="italic"))
        if experiment.guess:
            self.output.print(Text(f"   you guessed: {experiment.guess}"))
        return experiment

    def _crashed(self, experiment: Experiment) -> None:
        experiment.crash = traceback.format_exc()
        self.output.print(Text(experiment.crash, style="red"), whole=True)

    def grade(self, parts: dict[str, Any]) -> None:
        """Prove every part right by labs/checks: one check each."""

        def every_part(run: Run) -> None:
            for part, implementation in parts.items():
                message = _mistake(self.lesson.name, part, implementation)
                run.check(part + self._whose(part), message or "right", equals="right")

        if parts:
            self.conduct("parts", "Every part does what its specification says.", every_part)

    def _whose(self, part: str) -> str:
        """On a learner's sheet, what isn't written yet says whose it is."""
        yours = self.lesson.yours
        return "" if yours is None or part in yours else " (the lab's own)"

    def finish(self) -> int:
        """Write results.json and report.html, print the table of claims; the exit code.

        Of several processes the main one does this; the others only tell whether they crashed.
        """
        from labs.kit import report

        self.run.accelerator.end_training()
        crashed = any(one.crash for one in self.experiments)
        if not is_main():
            return FAILED if crashed else 0

        env = results.environment(self.run, self.lesson)
        data = results.as_data(self.lesson, env, self.experiments)
        results.write(data, self.folder / "results.json")
        report.write(self.lesson, data, self.experiments, self.folder / "report.html")
        if not crashed:
            for place in self.run.places:
                place.remove()
        self._summarize()
        card = self._failure()
        if card is None:
            return 0
        card.show()
        return card.code

    def _failure(self) -> Card | None:
        """What went wrong, where anything did: the crash, or else the checks that failed."""
        name, report = self.lesson.name, self.folder / "report.html"
        crashed = [one for one in self.experiments if one.crash]
        if crashed:
            last_line = crashed[0].crash.strip().splitlines()[-1]
            mend = f"correct {_shown(self.lesson.path)} (traceback above), then run it again"
            return Card(f"{name} crashed in {crashed[0].name}.", last_line, mend, FAILED)
        failed = [check for one in self.experiments for check in one.checks if not check.passed]
        if not failed:
            return None
        told = [f"{one.name}: {one.shown} ({one.bound})" for one in failed[:MOST_TOLD]]
        more = [f"and {len(failed) - MOST_TOLD} more"] if len(failed) > MOST_TOLD else []
        why = "; ".join([*told, *more])
        what = f"{len(failed)} of {name}'s checks failed. They hold on every correct machine."
        return Card(what, why, f"read what each means in {report}", FAILED)

    def summary(self) -> tuple[str, str]:
        """How many checks passed, and the peak memory, as a table of several labs tells them."""
        checks = [check for one in self.experiments for check in one.checks]
        passed = sum(check.passed for check in checks)
        return f"{passed} of {len(checks)}", f"{results.peak_memory_mib():,.0f} MiB"

    def _summarize(self) -> None:
        table = Table(box=None, padding=(0, 2))
        for column, side in (
            ("", "right"),
            ("claim", "left"),
            ("checks", "right"),
            ("verdict", "left"),
        ):
            table.add_column(column, justify=side)  # pyright: ignore[reportArgumentType]
        for number, one in enumerate(self.experiments, 1):
            verdict = Text(one.verdict, style=STYLES.get(one.verdict, "red" if one.crash else ""))
            table.add_row(str(number), Text(one.claim), one.passed_of_all, verdict)
        self.output.print()
        self.output.print(table)
        self.output.print()
        self.output.print(Text(LEGEND, style="dim"))
        self.output.print(Text(f"report: {self.folder / 'report.html'}"), whole=True)
        if self.run.settings.tensorboard:
            board = f"tensorboard --logdir {self.folder}" if self.run.logged else "nothing logged"
            self.output.print(Text(f"TensorBoard: {board}"), whole=True)


def _shown(path: Path) -> str:
    """A path below the clone as its reader would type it there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _mistake(lab: str, part: str, implementation: Any) -> str:
    """What is wrong with a part, in one line; empty where it is right."""
    try:
        check_of(lab, part)(implementation)
    except Mistake as mistake:
        return str(mistake)
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"
    return ""
