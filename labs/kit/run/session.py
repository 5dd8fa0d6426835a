"""Run a lab's experiments one after the other, then write results, report and table of claims."""

import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import Any

from common import source
from common.cards import FAILED, Card
from common.options import Settings
from common.syllabus import Lesson
from labs.kit.compare import Mistake, check_part
from labs.kit.records import PARTS, Experiment
from labs.kit.report import index, page
from labs.kit.run import predictions, repeat, results, stop_request
from labs.kit.run.console import Output
from labs.kit.run.devices import LARGE, choose_precision, describe_device
from labs.kit.run.environment import environment, stack
from labs.kit.run.missing_gpu import require_gpu
from labs.kit.run.processes import is_main
from labs.kit.run.results import Closing, Results, compute_closing
from labs.kit.run.run import Run
from labs.kit.run.run_folder import new_folder, refused, writing_to
from labs.kit.run.summary import LEGEND, failure, table_of_claims
from labs.kit.run.undefined_names import explain_undefined

from rich.markdown import Markdown
from rich.rule import Rule
from rich.text import Text

Function = Callable[[Run], Any]
ClosingFunction = Callable[[Results], str]


class Session:
    """One run of one lab. Use it in a `with` statement, which closes the log.

    Args:
        lesson: the lab.
        settings: the options of the run.
        width: the width of the matrices by which `auto` chooses the precision of a CPU.

    Raises:
        Card: if the GPU or the precision isn't available, or the outputs folder can't be written.
    """

    def __init__(
        self,
        lesson: Lesson,
        settings: Settings,
        width: int = LARGE,
    ) -> None:
        """Create the folder of the run, open its log and print the header."""
        self.lesson = lesson
        require_gpu(stack().get("stack", "cpu"))
        precision, reason = choose_precision(settings.precision, width)
        self._files = ExitStack()
        self.folder = new_folder(settings.outputs, lesson.name) if is_main() else Path(os.devnull)
        self._files.enter_context(writing_to(self.folder))
        log_path = self.folder / "log.txt" if is_main() else self.folder
        log = self._files.enter_context(log_path.open("w", encoding="utf-8"))
        self.output = Output(log, silent=not is_main())
        self.run = Run(settings, precision, self.output, self.folder, lesson)
        self.run.why_precision = reason
        self.experiments: list[Experiment] = []
        self._print_header()

    def __enter__(self) -> "Session":
        """Return the session."""
        return self

    def __exit__(self, *error: Any) -> bool | None:
        """Close the log, leave the checkpoints to the next run, remove an empty run."""
        try:
            return self._files.__exit__(*error)
        finally:
            for folder in self.run.checkpoint_folders:
                folder.release()
            if is_main() and not self.experiments:  # refused before the first experiment
                shutil.rmtree(self.folder, ignore_errors=True)

    def _print_header(self) -> None:
        run = self.run
        processes = run.accelerator.num_processes
        group = f" · {processes} processes" if processes > 1 else ""
        self.output.print(Rule(f"{self.lesson.name} · {self.lesson.title}", align="left"))
        self.output.print(
            f"{describe_device(run.device)} · {run.precision} ({run.why_precision}) · "
            f"size {run.size} · seed {run.seed}{group}"
        )

    def conduct(self, name: str, doc: str, function: Function) -> Experiment:
        """Seed all generators and run one experiment; a crash is recorded and printed in full."""
        from accelerate.utils import set_seed

        claim, _, details = cleandoc(doc).partition("\n\n")
        experiment = Experiment(name, " ".join(claim.split()), details.strip())
        self.run.current = experiment
        self.experiments.append(experiment)
        self.output.print()
        self.output.print(Text(experiment.claim, style="bold"))
        if self.lesson.yours is None:  # a sheet's experiments run again and again
            experiment.guess = predictions.ask(experiment.details, self.output)
        set_seed(self.run.seed)
        start = time.perf_counter()
        self._call(experiment, function)
        experiment.seconds = time.perf_counter() - start
        if experiment.conclusion:
            self.output.print(Text(f"   → {experiment.conclusion}", style="italic"))
        if experiment.guess:
            self.output.print(Text(f"   you guessed: {experiment.guess}"))
        return experiment

    def _call(self, experiment: Experiment, function: Function) -> None:
        try:
            experiment.conclusion = function(self.run) or ""
        except Card:
            raise
        except OSError as error:
            if refused(error, self.folder):
                raise  # becomes a card: the disk is the cause, not the lab
            self._record_crash(experiment)
        except Exception as error:
            self._record_crash(experiment, explain_undefined(function, error))
        finally:
            stop_request.end()  # a training that crashed didn't

    def _record_crash(self, experiment: Experiment, explanation: str = "") -> None:
        """Record the traceback; print it, or an explanation in its place."""
        experiment.crash = traceback.format_exc()
        self.output.print(Text(explanation or experiment.crash, style="red"), wrap=False)

    def check_parts(self, parts: Sequence[str], module: ModuleType) -> None:
        """Check every exercise as `module` implements it: one check each."""

        def every_part(run: Run) -> None:
            for part in parts:
                message = _mistake(self.lesson, part, module)
                run.check(
                    part + self._author(part), message or "right", equals="right", decides=True
                )

        if parts:
            self.conduct(PARTS, "Every part meets its specification.", every_part)

    def _author(self, part: str) -> str:
        """Mark the parts of a learner's sheet that the learner hasn't written."""
        yours = self.lesson.yours
        return "" if yours is None or part in yours else " (the lab's own)"

    def finish(self, closing_function: ClosingFunction | None = None) -> int:
        """Write results.json and report.html, print the table of claims; return the exit code.

        Of several processes only the main one does this; the others return whether they crashed.
        """
        self.run.accelerator.end_training()
        if not is_main():
            return FAILED if self._crashed else 0
        closing = self._close(closing_function)
        self._write(closing)
        self._update_index()
        if not self._crashed:
            for folder in self.run.checkpoint_folders:
                folder.remove()
        if closing.text:
            self.output.print()
            self.output.print(Markdown(closing.text))
        self._print_claims()
        card = failure(self.lesson, self.experiments, self._report)
        if card is None:
            return 0
        card.show()
        return card.code

    @property
    def _report(self) -> Path:
        return self.folder / "report.html"

    @property
    def _crashed(self) -> bool:
        return any(experiment.crash for experiment in self.experiments)

    def _close(self, function: ClosingFunction | None) -> Closing:
        """Compute the closing, unless the run crashed. A crash of the closing is recorded."""
        if function is None or self._crashed:
            return Closing()
        try:
            return compute_closing(function, self.experiments)
        except Exception:
            claim = "The closing is computed from the results."
            self.experiments.append(Experiment(function.__name__, claim))
            self._record_crash(self.experiments[-1])
        return Closing()

    def _write(self, closing: Closing) -> None:
        facts = environment(self.run, self.lesson)
        data = results.as_data(self.lesson, facts, self.experiments, closing, self._commands())
        results.write(data, self.folder / "results.json")
        page.write(self.lesson, data, self.experiments, closing.text, self._report)

    def _commands(self) -> dict[str, str]:
        """Return the command that repeats each experiment; none for a sheet, which changes."""
        if self.lesson.yours is not None:
            return {}
        settings = self.run.settings
        names = source.experiments(self.lesson.source)
        return {name: repeat.command(self.lesson.name, name, settings) for name in names}

    def _update_index(self) -> None:
        """Add this run to the page of all runs. Whatever prevents that, the run has ended well."""
        try:
            index.update(self.run.settings.outputs)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            self.output.print(Text(f"The page of all runs wasn't updated. {problem}"), wrap=False)

    def summary(self) -> tuple[str, str]:
        """Return the number of passed checks and the peak memory, for a table of several labs."""
        checks = [check for experiment in self.experiments for check in experiment.checks]
        passed = sum(check.passed for check in checks)
        return f"{passed} of {len(checks)}", f"{results.peak_memory_mib():,.0f} MiB"

    def _print_claims(self) -> None:
        self.output.print()
        self.output.print(table_of_claims(self.experiments))
        self.output.print()
        self.output.print(Text(LEGEND, style="dim"))
        self.output.print(Text(f"report: {self._report}"), wrap=False)
        if self.run.settings.tensorboard:
            board = f"tensorboard --logdir {self.folder}" if self.run.logged else "nothing logged"
            self.output.print(Text(f"TensorBoard: {board}"), wrap=False)


def _mistake(lesson: Lesson, part: str, module: ModuleType) -> str:
    """Return what is wrong with a part, in one line; empty if it is right."""
    try:
        check_part(lesson, part, module)
    except Mistake as mistake:
        return str(mistake)
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"
    return ""
