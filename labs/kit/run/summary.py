"""How a run ends: the table of claims, and the card for a crash or failed checks."""

from collections.abc import Sequence
from pathlib import Path

from common.cards import FAILED, Card
from common.syllabus import Lesson
from labs.kit.records import Experiment
from labs.kit.run.findings import STYLES

from rich.table import Table
from rich.text import Text

MAX_FAILURES = 3  # in the card; the table and the report have all
LEGEND = (
    "✓ ✗ a check: it must hold on every correct machine. ● held, ○ not held, ◐ inconclusive,\n"
    "· shown: a measurement, which depends on hardware or chance. 2 [1, 3]: median and range."
)


def table_of_claims(experiments: Sequence[Experiment]) -> Table:
    """Return a table with each claim, its checks and its verdict."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("claim")
    table.add_column("checks", justify="right")
    table.add_column("verdict")
    for experiment in experiments:
        style = STYLES.get(experiment.verdict, "red" if experiment.crash else "")
        verdict = Text(experiment.verdict, style=style)
        table.add_row(Text(experiment.claim), experiment.passed_of_all, verdict)
    return table


def failure(lesson: Lesson, experiments: Sequence[Experiment], report: Path) -> Card | None:
    """Return the card for a crash, or else for failed checks; None for a run without either."""
    for experiment in experiments:
        if experiment.crash:
            last_line = experiment.crash.strip().splitlines()[-1]
            path = _relative(lesson.sheet or lesson.path)
            fix = f"correct {path} (traceback above), then run it again"
            return Card(f"{lesson.name} crashed in {experiment.name}.", last_line, fix, FAILED)
    checks = [check for experiment in experiments for check in experiment.checks]
    failed = [check for check in checks if not check.passed]
    if not failed:
        return None
    words = [f"{check.name}: {check.shown} ({check.bound})" for check in failed[:MAX_FAILURES]]
    if len(failed) > MAX_FAILURES:
        words.append(f"and {len(failed) - MAX_FAILURES} more")
    what = f"{len(failed)} of {lesson.name}'s checks failed. They hold on every correct machine."
    return Card(what, "; ".join(words), f"read about each check in {report}", FAILED)


def _relative(path: Path) -> str:
    """Return a path below the current folder without that folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
