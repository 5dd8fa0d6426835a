"""Ask the learner for a prediction before an experiment; the report shows it beside the result."""

import builtins
import os
import sys
import termios
from dataclasses import dataclass

from labs.kit.run.console import Output
from labs.kit.run.processes import group_size

from rich.text import Text

MAX_CHARACTERS = 200
HOW_TO_SKIP = "Enter skips a question, Ctrl-D all questions of this run."


def question(details: str) -> str:
    """Return the paragraph of a docstring that asks for a prediction; empty without one."""
    for paragraph in details.split("\n\n"):
        if paragraph.startswith("Predict:"):
            return " ".join(paragraph.split())
    return ""


def can_ask() -> bool:
    """Return whether a person can reply: on a terminal, not in CI, a notebook or a group.

    In a group the other processes would wait for the reply and give up after a while.
    """
    if group_size() > 1 or "CI" in os.environ or hasattr(builtins, "get_ipython"):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


@dataclass
class _Asking:
    """What happened to the questions of this process."""

    asked: bool = False
    stopped: bool = False  # by Ctrl-D


_asking = _Asking()


def ask(details: str, output: Output) -> str:
    """Return the learner's guess; empty without a question, a person or a reply."""
    text = question(details)
    if not text or _asking.stopped or not can_ask():
        return ""
    if not _asking.asked:
        output.print(Text(f"   {HOW_TO_SKIP}", style="dim"))
    _asking.asked = True
    output.print(Text(f"   {text}", style="cyan"))
    termios.tcflush(sys.stdin, termios.TCIFLUSH)  # keys pressed during the last experiment
    try:
        typed = input("   your guess (Enter skips): ")
    except EOFError:  # Ctrl-D
        _asking.stopped = True
        print()
        return ""
    printable = "".join(character for character in typed if character.isprintable())
    return printable.strip()[:MAX_CHARACTERS]
