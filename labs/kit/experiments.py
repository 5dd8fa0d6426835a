"""A lab's own experiments on the parts that a learner wrote; and what they were worth."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs.kit import progress, sheets, work
from labs.kit.cards import FAILED, Card
from labs.kit.syllabus import Lesson
from labs.kit.tell import line

if TYPE_CHECKING:
    from labs.kit.session import Session

SECONDS = 3600  # no lab takes as long in the size that it has by default


def on_the_sheet(lesson: Lesson, path: Path) -> int:
    """Run them in a process of their own, unless they have run on these very parts; the exit code.

    Raises:
        Card: where they don't end.
    """
    text = work.read(path)
    last = progress.read(lesson.name).last
    if last.get("text") == sheets.digest(text):
        line(f"\n{lesson.name}'s experiments have run on this sheet: {told(last)}.")
        line(f"Its report: {last['report']}. Once more: invoke lab {lesson.name} -- --sheet {path}")
        return 0 if last["passed"] == last["of"] else FAILED
    line(
        f"\nNow {lesson.name}'s experiments on what you wrote. Ctrl-C ends them and loses nothing."
    )
    try:
        return _run(lesson.name, path)
    finally:
        work.put_back(path, text)


def _run(name: str, path: Path) -> int:
    command = [sys.executable, "-m", "labs", name, "--sheet", str(path)]
    try:
        code = subprocess.run(command, timeout=SECONDS, check=False).returncode
    except subprocess.TimeoutExpired as error:
        what = f"{name}'s experiments didn't end in {SECONDS // 60} minutes, and were stopped."
        why = "A part that passed its check loops, or is very slow, on larger inputs."
        mend = f"invoke lab {name} shows how long they take"
        raise Card(what, why, mend, FAILED) from error
    if code < 0:
        what = f"{name}'s experiments crashed Python itself ({signal.Signals(-code).name})."
        why = "A part that passed its check doesn't bear larger inputs, or memory ran out."
        mend = f"invoke lab {name} shows that the lab's own parts do"
        raise Card(what, why, mend, FAILED)
    return code


def remember(lesson: Lesson, session: "Session") -> None:
    """Keep what a run on a learner's sheet was worth."""
    checks = [check for one in session.experiments for check in one.checks]
    run: dict[str, Any] = {
        "text": sheets.digest(lesson.source),
        "yours": len(lesson.yours or ()),
        "passed": sum(check.passed for check in checks),
        "of": len(checks),
        "seconds": round(sum(one.seconds for one in session.experiments), 1),
        "report": str(session.folder / "report.html"),
        "when": progress.now(),
    }
    with progress.changing(lesson.name) as record:
        record.last = run
        if not record.best or _worth(run) >= _worth(record.best):
            record.best = run


def _worth(run: dict[str, Any]) -> tuple[int, int, float]:
    return run["passed"] - run["of"], run["yours"], -run["seconds"]


def told(run: dict[str, Any]) -> str:
    """58 of 58 checks, 52 s."""
    return f"{run['passed']} of {run['of']} checks passed in {run['seconds']:.0f} s"
