"""Which stack a lab runs on, and why."""

from dataclasses import dataclass

from launcher.cards import WRONG_USAGE, Card, unknown_value

STACKS = ("auto", "cpu", "cuda", "rocm")


@dataclass(frozen=True)
class Choice:
    """A stack and the reason for it, in words that follow "because"."""

    stack: str
    reason: str


def choose(asked: str) -> Choice:
    """The stack for this machine.

    Raises:
        Card: for a stack that doesn't exist, or not yet.
    """
    if asked not in STACKS:
        unknown_value("--stack", asked, STACKS)
    if asked in ("cuda", "rocm"):
        what = f"There is no {asked} stack yet."
        raise Card(what, "The labs run on the CPU so far.", "--stack cpu", WRONG_USAGE)
    return Choice("cpu", "it was asked for" if asked == "cpu" else "it is the only stack so far")
