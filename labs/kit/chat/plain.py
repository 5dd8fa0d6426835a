"""Text that a model or a file wrote, without what a terminal would obey."""

import unicodedata

_KEPT = "\n\t"
# Characters that reorder a line (Unicode's bidirectional controls); they can hide what it says.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


def plain(text: str) -> str:
    """Return `text` without control characters, except line breaks and tabs.

    An escape sequence of a terminal starts with a control character. What follows it stays, as
    harmless letters.
    """
    return "".join(character for character in text if _is_harmless(character))


def _is_harmless(character: str) -> bool:
    if character in _KEPT:
        return True
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in _REORDERING
