"""Write a learner's sheets and show progress. Both are plain files and need no container."""

import os
from pathlib import Path

from launcher import ROOT
from launcher.run.file_owner import file_owner, make_writable_folder, run_as_owner
from launcher.run.lab_command import labs_command

WORK = ROOT / "work"


def learn(labs: str, reset: bool, handout: str) -> int:
    """Write sheets for the owner of the clone, and return the exit code."""
    words = [labs, *(["--reset"] if reset else [])]
    words += ["--handout", str(Path(handout).absolute())] if handout else []
    return _run("learn", words)


def progress(class_folder: str, csv: bool) -> int:
    """Show the progress of a learner or a class, and return the exit code."""
    words = ["--class", str(Path(class_folder).absolute())] if class_folder else []
    return _run("progress", [*words, *(["--csv"] if csv else [])])


def _run(verb: str, words: list[str]) -> int:
    owner = file_owner()
    make_writable_folder(WORK, owner)
    return run_as_owner(owner, labs_command([verb, *words]), dict(os.environ))
