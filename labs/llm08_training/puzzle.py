"""The puzzle of LLM08+: its letters, its table, and which loops look like the right one."""

import random
from collections.abc import Iterable, Sequence
from statistics import mean

from labs.kit import Run
from labs.llm08_training import word_tasks
from labs.llm08_training.training import Fit

APART = 1.67  # ranges of three seeds: a rough rule, see is_hidden
REQUEST = {"instruction": "Reverse the words", "input": "bee cow dog", "output": "dog cow bee"}


def letters_of(run: Run, names: Iterable[str]) -> dict[str, str]:
    """Return the letter of each of eight loops, A to H, in random order."""
    names = list(names)
    order = random.Random(run.seed).sample(names, len(names))
    return dict(zip(order, "ABCDEFGH", strict=True))


def own_loss(fitted: Fit) -> float:
    """Return the loop's training loss, a mean of the last 20 steps (nats per own label)."""
    return mean(fitted.trained.losses[-20:])


def spread(numbers: Sequence[float]) -> float:
    """Return the range of some numbers: the largest − the smallest."""
    return max(numbers) - min(numbers)


def margin(numbers: Sequence[float]) -> float:
    """Return the difference that `is_hidden` doesn't notice, from the right loop's three numbers.

    The range of three seeds is 1.7 standard deviations on average. A difference of two seeds has √2
    times the deviation of one, and rarely exceeds twice that, 2.8 deviations: 2.8 ÷ 1.7 = 1.67
    ranges. We add 0.01, because three seeds may agree by chance.
    """
    return APART * spread(numbers) + 0.01


def is_hidden(fitted: Fit, rights: Sequence[Fit]) -> bool:
    """Return whether a loop's four numbers look like those of another seed of the right loop.

    They are its training loss, the responses' loss, and the shares that are right and that stop. A
    correct loop's other seed fails one comparison in 8, and at least one of the four in up to 4 of
    10 cases (simulated with normal numbers). So "looks like" is a hint.

    Args:
        fitted: the loop, with the seed of the first of `rights`.
        rights: the right loop with three seeds.
    """
    threes = zip(*(_marks(right) for right in rights), strict=True)
    pairs = zip(_marks(fitted), threes, strict=True)
    return all(abs(own - three[0]) <= margin(three) for own, three in pairs)


def _marks(fitted: Fit) -> list[float]:
    return [own_loss(fitted), fitted.loss, fitted.right, fitted.exam.stops]


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
