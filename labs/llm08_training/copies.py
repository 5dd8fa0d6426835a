"""Copies of a text of the word tasks, identical and changed, as LLM08+ looks for them."""

from collections.abc import Callable


def with_other_words(text: str, places: list[int]) -> str:
    """Replace the words at some places of the list, which begins after the task's three words."""
    words = text.split()
    for place in places:
        words[3 + place] = "gnu"
    return " ".join(words)


COPIES: dict[str, Callable[[str, int], str]] = {
    "identical": lambda text, _: text,
    "other case": lambda text, _: text.upper().replace(":", " :"),
    "one word changed": lambda text, i: with_other_words(text, [i % 6]),
    "two words changed": lambda text, i: with_other_words(text, [i % 6, (i + 3) % 6]),
}
