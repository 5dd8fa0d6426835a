"""A failure that could be foreseen is a card: what happened, why, and what mends it."""

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

FAILED = 1
WRONG_USAGE = 2
WRONG_ENVIRONMENT = 3
WHAT_IS_SEEN = "A lab in a container sees of your folders only the clone's work/ and outputs/."


class Card(Exception):
    """An expected failure; `code` is the process's exit code: 1 failed, 2 usage, 3 environment."""

    def __init__(self, what: str, why: str, mend: str, code: int = WRONG_ENVIRONMENT) -> None:
        super().__init__(what)
        self.what, self.why, self.mend, self.code = what, why, mend, code
        self.told_elsewhere = False  # by another process of the same run

    def show(self) -> None:
        """Print the card to stderr: a panel on a terminal, three plain lines on a pipe."""
        if self.told_elsewhere:
            return
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        lines = [("what", self.what), ("why", self.why), ("mend", self.mend)]
        if not console.is_terminal:
            console.print("\n".join(f"{label}: {line}" for label, line in lines), markup=False)
            return
        body = Text("\n\n").join(
            Text.assemble((f"{label:5}", "bold"), line) for label, line in lines
        )
        console.print(Panel(body, border_style="red", title="llm-labs", title_align="left"))
