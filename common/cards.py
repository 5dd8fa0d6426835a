"""Show a foreseeable failure as a card: what happened, why, and the command that fixes it."""

import sys
from typing import NoReturn

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

FAILED = 1
WRONG_USAGE = 2
WRONG_ENVIRONMENT = 3
INTERRUPTED = 130
VISIBLE_FOLDERS = "In a container, a lab sees only the clone's work/ and outputs/ folders."


class Card(Exception):
    """An expected failure.

    Attributes:
        code: the exit code of the process: 1 failed, 2 wrong usage, 3 wrong environment.
        shown_elsewhere: whether another process of the same run shows this card.
    """

    def __init__(self, what: str, why: str, fix: str, code: int = WRONG_ENVIRONMENT) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.code = code
        self.shown_elsewhere = False

    def show(self) -> None:
        """Print the card to stderr: a panel on a terminal, three plain lines on a pipe."""
        if self.shown_elsewhere:
            return
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        lines = [("what", self.what), ("why", self.why), ("fix", self.fix)]
        if not console.is_terminal:
            console.print("\n".join(f"{label}: {line}" for label, line in lines), markup=False)
            return
        body = Text("\n\n").join(
            Text.assemble((f"{label:5}", "bold"), line) for label, line in lines
        )
        console.print(Panel(body, border_style="red", title="llm-labs", title_align="left"))


def print_status(line: str) -> None:
    """Print a line about the launcher's progress to stderr: stdout belongs to the lab."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False, style="dim")


def refuse_value(option: str, value: str, choices: tuple[str, ...]) -> NoReturn:
    """Refuse the value of an option.

    Raises:
        Card: Always, with the valid choices.
    """
    why = f"{option} is one of {', '.join(choices)}."
    raise Card(f"{option} can't be {value!r}.", why, f"invoke {typed_task()} --help", WRONG_USAGE)


def typed_task() -> str:
    """Return the task that the user typed, such as check."""
    words = (word for word in sys.argv[1:] if word.isidentifier())
    return next(words, "lab")
