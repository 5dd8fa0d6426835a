"""The command line of `python -m labs`, which checks it before the launcher builds anything."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.processes import capture, child_process
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
        SystemExit: If the labs refuse the command; they print a card. Or if the options after `--`
            ask for help; they have printed it.
    """
    words = _option_words(options)
    after = ["--", *lab_options] if lab_options else []
    names = _plan([labs, *words, "--plan", *after])
    return LabCommand(names, tuple(words), tuple(lab_options))


def plan_check(lab: str, options: Mapping[str, Any]) -> LabCommand:
    """Check the command that checks a learner's sheet.

    Raises:
        SystemExit: If the labs refuse the command; they print a card.
    """
    words = _option_words(options)
    names = _plan(["check", lab, *words, "--plan"])
    return LabCommand(names, tuple(words), verb="check")


def find_files(labs: str) -> list[LabFiles]:
    """Return the files of the labs that the user names.

    Raises:
        SystemExit: If there is no such lab; the labs print a card.
    """
    plan = _plan_labs([labs, "--plan"])
    columns = (plan["labs"], plan["files"], plan["sheets"], plan["first_experiments"])
    return [LabFiles(*row) for row in zip(*columns, strict=True)]


def flags_of(labs: str) -> set[str] | None:
    """Return the options that one of these labs parses; None if the labs don't list them."""
    result = capture(labs_command([labs, "--plan"]), cwd=ROOT, stderr=subprocess.DEVNULL)
    if result.returncode != 0:
        return None
    flags: list[list[str] | None] = json.loads(result.stdout)["options"]
    return None if None in flags else {flag for ones in flags for flag in ones or ()}


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


def _plan(words: list[str]) -> tuple[str, ...]:
    return tuple(_plan_labs(words)["labs"])


def _plan_labs(words: list[str]) -> dict[str, list[str]]:
    result = capture(labs_command(words), cwd=ROOT)
    if result.returncode != 0:
        raise SystemExit(result.returncode)
    if not result.stdout.startswith("{"):  # the help of a lab, in place of a plan
        print(result.stdout, end="")
        raise SystemExit(0)
    return json.loads(result.stdout)
