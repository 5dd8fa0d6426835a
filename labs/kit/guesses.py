"""Before the number is shown: what do you think it is? Asked on a terminal, kept in the report."""

import builtins
import os
import sys
import termios

from labs.kit.console import Output
from labs.kit.ranks import group_size

from rich.text import Text

LONGEST = 200  # characters


def question(details: str) -> str:
    """The paragraph of an experiment's docstring that asks for a prediction; empty without one."""
    for paragraph in details.split("\n\n"):
        if paragraph.startswith("Predict:"):
            return " ".join(paragraph.split())
    return ""


def somebody_is_there() -> bool:
    """Is there a person to ask? Not on a pipe, in CI, in a notebook, or behind several processes.

    Of several processes the others would wait for the person, and give up after a while.
    """
    if group_size() > 1 or "CI" in os.environ or hasattr(builtins, "get_ipython"):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(details: str, output: Output) -> str:
    """The learner's guess; empty where nothing is asked, nobody is there, or Enter was pressed."""
    asked = question(details)
    if not asked or not somebody_is_there():
        return ""
    output.print(Text(f"   {asked}", style="cyan"))
    termios.tcflush(sys.stdin, termios.TCIFLUSH)  # keys pressed while the last experiment ran
    try:
        typed = input("   your guess (Enter skips): ")
    except EOFError:  # Ctrl-D
        print()
        return ""
    return "".join(character for character in typed if character.isprintable()).strip()[:LONGEST]
