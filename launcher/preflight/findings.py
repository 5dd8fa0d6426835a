"""What `invoke preflight` finds: a value, whether it is fine, and the command that fixes it."""

from dataclasses import dataclass

from common.cards import Card

OK = "ok"
NOTE = "note"  # worth knowing; nothing has to be fixed
FIX = "fix"
MARKS = {OK: "✓", NOTE: "·", FIX: "✗"}


@dataclass(frozen=True)
class Finding:
    """A check of preflight, and what it found."""

    name: str
    value: str
    state: str = OK
    fix: str = ""

    @property
    def line(self) -> str:
        """Return the finding as a line for people."""
        return f"{MARKS[self.state]} {self.name:<10}  {self.value}"


def from_card(name: str, card: Card) -> Finding:
    """Return the finding of a check that ended in a card."""
    return Finding(name, f"{card.what} {card.why}", FIX, card.fix)


def judge(name: str, value: str, problem: str, fix: str) -> Finding:
    """Return a finding that has to be fixed if there is a problem."""
    return Finding(name, f"{value}: {problem}", FIX, fix) if problem else Finding(name, value)
