"""Cards: an expected failure as three lines, what happened, why, and the command that fixes it.

The labs have their own cards: both sides share a command line and no code.
"""

import sys
from typing import NoReturn

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

WRONG_USAGE = 2
WRONG_ENVIRONMENT = 3


class Card(Exception):
    """An expected failure; `invoke` exits with its `code`."""

    def __init__(self, what: str, why: str, fix: str, code: int = WRONG_ENVIRONMENT) -> None:
        """Create a card.

        Args:
            what: What happened, as a sentence.
            why: The reason, as a sentence.
            fix: The command or the advice that fixes it.
            code: The exit code of the command.
        """
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.code = code


def print_card(card: Card) -> None:
    """Print a card to stderr: a panel on a terminal, three plain lines on a pipe."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    parts = (("what", card.what), ("why", card.why), ("fix", card.fix))
    if console.is_terminal:
        lines = [Text.assemble((f"{label:5}", "bold"), text) for label, text in parts]
        console.print(Panel(Text("\n\n").join(lines), border_style="red", title="llm-labs"))
    else:
        for label, text in parts:
            console.print(f"{label}: {text}", markup=False)


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
    """Return the task that the user typed, such as accept."""
    words = (word for word in sys.argv[1:] if word.isidentifier())
    return next(words, "lab")
