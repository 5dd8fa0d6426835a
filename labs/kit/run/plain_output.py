"""Keep a learner's prints from controlling the terminal: they could change what it shows.

A terminal obeys control characters: they set the title and the clipboard, move the cursor over
earlier lines, or make the terminal reply. Colors, and what draws a bar of progress, stay.
"""

import re
import sys
from typing import Any

# ESC [ … m sets colors; K, A, G and J clear and move within a bar; ?25l hides the cursor.
_ALLOWED = re.compile(r"(\x1b\[(?:[\d;]*[mKAGJ]|\?25[lh]))")
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # a control sequence
    r"|\x1b[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a title, a clipboard, a message
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Return a text without control characters, except the ends of lines and tabs."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", _SEQUENCE.sub("", lines))


def harmless(text: str) -> str:
    """Return a text without the control characters that a lab's own output doesn't have."""
    parts = _ALLOWED.split(text)
    parts[::2] = ["\r".join(map(plain, part.split("\r"))) for part in parts[::2]]
    return "".join(parts)


class _Harmless:
    """A text stream that removes harmful control characters from what is written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        self._stream.write(harmless(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect_terminal() -> None:
    """Remove control characters from everything that this process prints from now on.

    Code that writes to the file descriptors is not stopped by this.
    """
    if not isinstance(sys.stdout, _Harmless):
        sys.stdout = _Harmless(sys.stdout)
        sys.stderr = _Harmless(sys.stderr)
