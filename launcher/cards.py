"""A failure that could be foreseen is a card: what happened, why, and the command that mends it.

labs/kit has its own: the two sides share a command line and no code.
"""

from typing import NoReturn

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

WRONG_USAGE = 2
WRONG_ENVIRONMENT = 3


class Card(Exception):
    """An expected failure; `code` is what `invoke` exits with."""

    def __init__(self, what: str, why: str, mend: str, code: int = WRONG_ENVIRONMENT) -> None:
        super().__init__(what)
        self.what, self.why, self.mend, self.code = what, why, mend, code


def show(card: Card) -> None:
    """Print a card to stderr: a panel on a terminal, three plain lines on a pipe."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    parts = (("what", card.what), ("why", card.why), ("mend", card.mend))
    if console.is_terminal:
        lines = [Text.assemble((f"{label:5}", "bold"), text) for label, text in parts]
        title = "llm-labs"
        console.print(Panel(Text("\n\n").join(lines), border_style="red", title=title))
    else:
        for label, text in parts:
            console.print(f"{label}: {text}", markup=False)


def say(line: str) -> None:
    """Tell the user what is being done. On stderr: stdout belongs to the lab."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False, style="dim")


def unknown_value(option: str, value: str, known: tuple[str, ...]) -> NoReturn:
    """Refuse an option's value."""
    why = f"{option} is one of {', '.join(known)}."
    raise Card(f"{option} can't be {value!r}.", why, "invoke lab --help", WRONG_USAGE)
