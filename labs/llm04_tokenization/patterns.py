"""Split patterns, and what to do with characters that UTF-8 lacks."""

from dataclasses import dataclass

import regex


@dataclass(frozen=True)
class Split:
    """How to cut a text: into words, which tokens never cross, and into stretches of words."""

    words: str
    stretches: str

    @property
    def word(self) -> regex.Pattern[str]:
        """The pattern of words."""
        return regex.compile(self.words)  # regex caches what it compiled

    @property
    def stretch(self) -> regex.Pattern[str]:
        """The pattern of stretches."""
        return regex.compile(self.stretches)  # Python's re has other whitespace: \x1c to \x1f


def clean(text: str) -> str:
    """Return the text with each half of a surrogate pair replaced by U+FFFD, as tiktoken does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def raw(word: str) -> bytes:
    """Return UTF-8; surrogates that stand for bytes that are no UTF-8 become these bytes."""
    return word.encode("utf-8", "surrogateescape")
