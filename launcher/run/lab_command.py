"""The command line of `python -m labs`, checked before the launcher builds anything."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common import workbook
from common.cards import Card
from common.lab_options import check, parser_of, require_one_lab
from common.options import common_parser, settings_from
from common.processes import child_process
from common.source import experiments
from common.syllabus import find
from launcher import ROOT


@dataclass(frozen=True)
class LabCommand:
    """The labs to run, their common options, and the options after `--` of one lab."""

    labs: tuple[str, ...]
    options: tuple[str, ...] = ()
    lab_options: tuple[str, ...] = ()
    verb: str = ""  # "" runs the labs

    @property
    def words(self) -> list[str]:
        """Return the words after `python -m labs`."""
        verb = [self.verb] if self.verb else []
        after = ["--", *self.lab_options] if self.lab_options else []
        labs = [",".join(self.labs)] if self.labs else []
        return [*verb, *labs, *self.options, *after]

    @property
    def is_chat(self) -> bool:
        """Return whether it reads standard input, and Ctrl-C only stops a reply."""
        return self.verb == "chat"

    @property
    def online(self) -> bool:
        """Return whether the labs may use the network."""
        return "--online" in self.options

    @property
    def name(self) -> str:
        """Return a name for people: LLM06, LLM01 and 10 more, or chat."""
        if not self.labs:
            return self.verb
        more = len(self.labs) - 1
        return f"{self.labs[0]} and {more} more" if more else self.labs[0]

    def with_processes(self, count: int) -> "LabCommand":
        """Return the command with one process for each of `count` GPUs, unless it sets a number."""
        if count < 2 or self.verb or "--processes" in self.options:
            return self
        return replace(self, options=("--processes", str(count), *self.options))


@dataclass(frozen=True)
class LabFiles:
    """A lab's files, as paths in the clone, and its first experiment; the sheet may not exist."""

    name: str
    lesson: str
    sheet: str
    first_experiment: str


def plan_run(labs: str, options: Mapping[str, Any], lab_options: Sequence[str]) -> LabCommand:
    """Check the command that runs labs. Needs no torch.

    Args:
        labs: The labs as the user names them, such as "6" or "LLM01,LLM02".
        options: The options that every lab has, by name.
        lab_options: The words after `--`.

    Raises:
        Card: If there is no such lab, experiment or option.
        SystemExit: If the options after `--` ask for help; it has been printed.
    """
    words = _option_words(options)
    own_words = list(lab_options)
    settings = settings_from(common_parser("invoke lab").parse_args(words))
    chosen = find(labs)
    require_one_lab(chosen, settings.only)
    check(chosen, own_words, settings)
    return LabCommand(tuple(lesson.name for lesson in chosen), tuple(words), tuple(own_words))


def plan_check(lab: str, options: Mapping[str, Any]) -> LabCommand:
    """Check the command that checks a learner's sheet.

    Raises:
        Card: If there is no such lab, sheet or exercise.
    """
    hint, solution = (
        "" if value is True else value or None  # True: the option without an exercise's name
        for value in (options.get("hint"), options.get("solution"))
    )
    lesson = workbook.checkable(lab, hint, solution, ROOT / workbook.FOLDER)
    return LabCommand((lesson.name,), tuple(_option_words(options)), verb="check")


def find_files(labs: str) -> list[LabFiles]:
    """Return the files of the labs that the user names.

    Raises:
        Card: If there is no such lab.
    """
    return [
        LabFiles(
            lesson.name,
            str(lesson.path.relative_to(ROOT)),
            str(workbook.sheet_of(lesson)),
            next(iter(experiments(lesson.source)), ""),
        )
        for lesson in find(labs)
    ]


def flags_of(labs: str) -> set[str] | None:
    """Return the options that one of these labs parses; None if there is no such lab."""
    try:
        chosen = find(labs)
    except Card:
        return None
    flags = {flag for lesson in chosen for flag in parser_of(lesson).flags}
    return {flag for flag in flags if flag.startswith("--")}


def labs_command(words: Sequence[str], python: str = sys.executable) -> list[str]:
    """Return the command that runs `python -m labs`."""
    return [python, "-m", "labs", *words]


def run_here(words: Sequence[str]) -> int:
    """Run `python -m labs` in this Python, which needs no torch; return the exit code."""
    with child_process(labs_command(words), cwd=ROOT, env=dict(os.environ)) as child:
        return child.wait()


def _option_words(options: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command line; False, None and "" mean the default."""
    words: list[str] = []
    for name, value in options.items():
        if value:
            words.append(f"--{name}")
        if value and value is not True:
            words.append(str(value))
    return words
