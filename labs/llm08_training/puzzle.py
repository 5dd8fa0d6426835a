"""The puzzle of LLM08+: its letters, its table, and how a loop compares with the right one."""

import random
from collections.abc import Iterable, Sequence
from statistics import mean

from labs.kit import Run
from labs.llm08_training import word_tasks
from labs.llm08_training.training import Fit

REQUEST = {"instruction": "Reverse the words", "input": "bee cow dog", "output": "dog cow bee"}


def letters_of(run: Run, names: Iterable[str]) -> dict[str, str]:
    """Return the letter of each of eight loops, A to H, in random order."""
    names = list(names)
    order = random.Random(run.seed).sample(names, len(names))
    return dict(zip(order, "ABCDEFGH", strict=True))


def own_loss(fitted: Fit) -> float:
    """Return the loop's training loss, a mean of the last 20 steps (nats per own label)."""
    return mean(fitted.trained.losses[-20:])


def in_words(numbers: Sequence[float]) -> str:
    """Return the range of some numbers, such as "0.358 to 0.405"."""
    return f"{min(numbers):.3f} to {max(numbers):.3f}"


def beside(name: str, losses: Sequence[float], rights: Sequence[float]) -> str:
    """Return a loop's range of losses, and what it has more than the right loop, seed by seed."""
    more = ", ".join(f"{loss - right:+.3f}" for loss, right in zip(losses, rights, strict=True))
    return f"{name} {in_words(losses)} (seed by seed {more})"


def show_table(run: Run, loops: dict[str, Fit]) -> None:
    """Show the numbers of each loop, by its letter, and its response to a request."""
    table = []
    for letter, fitted in loops.items():
        losses = [own_loss(fitted), fitted.loss]
        shares = [f"{share:.0%}" for share in fitted.exam[:3]]
        (response,) = word_tasks.responses(fitted.trained.model, [REQUEST])
        table.append([letter, *losses, *shares, response])
    asked = f"{REQUEST['instruction']} {REQUEST['input']}"
    columns = ["loop", "its loss", "responses' loss", "right", "words", "stops", f"“{asked}”"]
    title = "its loss: nats over its own labels; right: right words and end; words: right words"
    run.table(title, columns, table)
