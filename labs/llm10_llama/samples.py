"""The texts that LLM10's model writes during its training, and the share of known words."""

import re
from functools import cache

from labs.kit import Run
from labs.llm10_llama.ladder import corpus
from labs.llm10_llama.training import Trained

WORDS = re.compile(r"[^\W\d_]{2,}")  # a single letter is a word too easily
READ = 10_000_000  # tokens at the beginning of a text, whose words are known


def written(result: Trained) -> dict[int, tuple[float, str]]:
    """Return by the number of steps the validation loss and the text that the model wrote."""
    return {int(steps): (loss, text) for steps, (loss, text) in result.seen.items()}


@cache
def vocabulary(run: Run) -> set[str]:
    """Return the words of the training text, in small letters."""
    text = corpus(run)
    return {word.lower() for word in WORDS.findall(text.decode(text.train[:READ].tolist()))}


def known_words(run: Run, text: str) -> float:
    """Return the share of a text's words that are words of the training text; 0 without words.

    The last word doesn't count: it may be cut off.
    """
    words = WORDS.findall(text)[:-1]
    return sum(word.lower() in vocabulary(run) for word in words) / max(1, len(words))
