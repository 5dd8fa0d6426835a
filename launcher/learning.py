"""Sheets and progress: plain files, so what is done with them needs no container and no torch."""

import os
import sys
from pathlib import Path

from launcher import ROOT, owners, run

WORK = ROOT / "work"


def learn(labs: str, reset: bool, handout: str) -> int:
    """Write sheets, as the owner of the clone's files; the exit code."""
    words = [labs, *(["--reset"] if reset else [])]
    words += ["--handout", str(Path(handout).absolute())] if handout else []
    return _labs("learn", words)


def progress(group: str, csv: bool) -> int:
    """Show a learner's progress, or a class's; the exit code."""
    words = ["--class", str(Path(group).absolute())] if group else []
    return _labs("progress", [*words, *(["--csv"] if csv else [])])


def _labs(verb: str, words: list[str]) -> int:
    owner = owners.of_the_files()
    run.make_writable(WORK, owner)
    command = [sys.executable, "-m", "labs", verb, *words]
    return run.run_as(owner, command, dict(os.environ))
