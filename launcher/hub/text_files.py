"""Read a text file that a person wrote, and name the line that isn't UTF-8."""

from pathlib import Path


def read_utf8(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        OSError: If it can't be read.
        ValueError: If it isn't UTF-8; the message names the first such line.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"Line {line} has a character that isn't UTF-8") from error
