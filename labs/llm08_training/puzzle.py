"""The puzzle of LLM08+: its letters, its table, and how a loop compares with the right one."""

import random
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from labs.kit import Run
from labs.llm08_training import word_tasks
from labs.llm08_training.lesson import IGNORED
from labs.llm08_training.training import EVERY, Fit, Row
from labs.llm08_training.word_tasks import word_tokenizer

from torch import Tensor

REQUEST = {"instruction": "Reverse the words", "input": "bee cow dog", "output": "dog cow bee"}


def letters_of(run: Run, names: Iterable[str]) -> dict[str, str]:
    """Return the letter of each of eight loops, A to H, in random order."""
    names = list(names)
    order = random.Random(run.seed).sample(names, len(names))
    return dict(zip(order, "ABCDEFGH", strict=True))


def own_loss(fitted: Fit) -> float:
    """Return the loop's training loss, the figure's last point (nats per own label)."""
    return mean(fitted.trained.losses[-EVERY:])


def precision_of(fitted: Fit) -> str:
    """Return the precision in which a loop trained, in words."""
    return "fp32" if fitted.precision == "fp32" else f"{fitted.precision} autocast"


def in_words(numbers: Sequence[float]) -> str:
    """Return the range of some numbers, such as "0.358 to 0.405"."""
    return f"{min(numbers):.3f} to {max(numbers):.3f}"


def beside(name: str, losses: Sequence[float], rights: Sequence[float]) -> str:
    """Return a loop's range of losses, and what it has more than the right loop, seed by seed."""
    more = ", ".join(f"{loss - right:+.3f}" for loss, right in zip(losses, rights, strict=True))
    return f"{name} {in_words(losses)} (seed by seed {more})"


def three_seeds(losses: Mapping[str, Sequence[float]]) -> str:
    """Return a sentence with the responses' losses of three seeds, the right loop's first."""
    right, *others = losses
    compared = [beside(name, losses[name], losses[right]) for name in others]
    first = f"the right loop {in_words(losses[right])}"
    return f"The responses' loss in three seeds, in nats: {'; '.join([first, *compared])}."


def key(letters: dict[str, str], losses: Mapping[str, Sequence[float]]) -> str:
    """Return which letter is which loop, and the losses of those that are hard to distinguish."""
    pairs = ", ".join(f"{letter} is {name}" for name, letter in letters.items())
    return f"The key: {pairs}. {three_seeds(losses)}"


def show_tables(run: Run, loops: dict[str, Fit]) -> None:
    """Show the numbers of each loop, by its letter, and its response to a request."""
    numbers = []
    written = []
    for letter, fitted in loops.items():
        shares = [f"{share:.0%}" for share in (fitted.exam.words, fitted.exam.stops)]
        numbers.append([letter, own_loss(fitted), fitted.loss, *shares])
        written.append([letter, *word_tasks.responses(fitted.trained.model, [REQUEST])])
    columns = ["loop", "its loss", "responses' loss", "words", "stops"]
    run.table("its loss: nats over its own labels; words: right words", columns, numbers)
    asked = f"{REQUEST['instruction']} {REQUEST['input']}"
    run.table(f"Each loop's response to “{asked}”", ["loop", "response"], written)


def show_labels(run: Run, row: Row, labels: dict[str, Tensor]) -> None:
    """Show a row's labels in each loop, and those of two places of padding after it."""
    table = []
    for name, line in labels.items():
        places = line[: len(row["input_ids"]) + 2].tolist()
        words = [word_tokenizer.decode([i]) if i != IGNORED else "·" for i in places]
        table.append([name, " ".join(words)])
    text = word_tokenizer.decode(row["input_ids"])
    title = f"Labels of the row “{text}” and of two places of padding; · is −100"
    run.table(title, ["loop", "labels"], table)
