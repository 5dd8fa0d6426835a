"""The names of learners, and the CSV file of a course with their passwords."""

import csv
import io
import re
import shlex
import stat
import unicodedata
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from launcher.hub.settings import MIN_PASSWORD
from launcher.hub.text_files import read_utf8

# Safe as a folder, in a container's name and in an address, on every system.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
ALLOWED = "lower-case letters a-z, digits and hyphens, at most 32 in all"
HEADER = ["name", "password"]
NAME_WORDS = ("name", "user", "username", "user name", "learner", "student", "login")
PASSWORD_WORDS = ("password", "passwort", "passwd", "pass", "pw")
SHOWN = 5  # wrong lines on a card
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe"})


def is_allowed(name: str) -> bool:
    """Return whether a learner may have a name."""
    return NAME.fullmatch(name) is not None


def suggest(name: str) -> str:
    """Return an allowed name that resembles one which isn't allowed, or ""."""
    plain = unicodedata.normalize("NFC", name).lower().translate(_UMLAUTS)
    letters = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", re.sub(r"['’`]", "", letters))
    instead = "-".join(words)
    return instead if is_allowed(instead) else ""


def read_users(path: Path, teacher: str) -> dict[str, str]:
    """Return the passwords of a course, by name.

    Args:
        path: A CSV file with a line for each learner: name and password.
        teacher: The teacher's name, which no learner may have.

    Raises:
        Card: If the file can't be read or a line is wrong; the card names the line.
    """
    users: dict[str, str] = {}
    problems: dict[int, str] = {}
    rows = _rows(path)
    if rows and all(len(row) == 1 and ";" in row[0] for _, row in rows):
        why = "Its columns are separated by semicolons, and have to be by commas."
        fix = f"sed -i 's/;/,/' {shlex.quote(str(path))}; then: invoke hub"
        raise Card(f"{path} can't be used.", why, fix, WRONG_USAGE)
    for number, row in rows:
        problem = _problem(row, users, teacher)
        if number == 1 and _is_header(row):
            problem = "it looks like a header: remove it"
        if problem:
            problems[number] = problem
        else:
            users[row[0]] = row[1]
    if problems:
        raise _card(path, problems)
    if not users:
        why = "It has no learner."
        raise Card(f"{path} can't be used.", why, "add lines such as: ada,a-long-word", WRONG_USAGE)
    return users


def readable_by_others(path: Path) -> str:
    """Return a warning if other users of this machine can read a file with passwords, or ""."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    readable = bool(mode & (stat.S_IRGRP | stat.S_IROTH))
    return "other users of this machine can read its passwords" if readable else ""


def _card(path: Path, problems: dict[int, str]) -> Card:
    """Return the card for lines that are wrong."""
    shown = list(problems.items())[:SHOWN]
    why = " ".join(f"Line {number}: {problem}." for number, problem in shown)
    if more := len(problems) - len(shown):
        why += f" And {more} more."
    lines = f"line {shown[0][0]}" if len(problems) == 1 else "these lines"
    return Card(f"{path} can't be used.", why, f"correct {lines}, then: invoke hub", WRONG_USAGE)


def _is_header(row: list[str]) -> bool:
    """Return whether a line has the words of a header, of which only `HEADER` is known."""
    words = [cell.lower() for cell in row]
    return len(words) > 1 and words[0] in NAME_WORDS and words[1] in PASSWORD_WORDS


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines that have content, without the header, with their numbers."""
    try:
        reader = csv.reader(io.StringIO(read_utf8(path), newline=""), strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except FileNotFoundError as error:
        fix = "create it, with a line such as ada,a-long-word for each learner"
        raise Card(f"There is no {path}.", "hub.toml names it.", fix, WRONG_USAGE) from error
    except (OSError, csv.Error) as error:
        raise _unreadable(path, f"The error was: {error}.") from error
    except ValueError as error:
        raise _unreadable(path, f"{error}. Excel may have saved an umlaut.") from error
    return [(number, row) for number, row in rows if any(row) and not _is_known_header(row)]


def _is_known_header(row: list[str]) -> bool:
    return [cell.lower() for cell in row] == HEADER


def _unreadable(path: Path, why: str) -> Card:
    fix = "save the table as CSV, in UTF-8, separated by commas"
    return Card(f"{path} can't be read.", why, fix, WRONG_USAGE)


def _problem(row: list[str], users: dict[str, str], teacher: str) -> str:
    """Return what is wrong with a line, or ""; a password isn't repeated on the screen."""
    if len(row) != len(HEADER):
        columns = f"{len(row)} column{'' if len(row) == 1 else 's'}"
        return f"it has {columns}, and needs a name and a password, separated by a comma"
    name, password = row
    if not is_allowed(name):
        instead = suggest(name)
        example = f"; {instead} is possible" if instead else ""
        return f"{name!r} isn't possible: a name has {ALLOWED}{example}"
    if name == teacher:
        return f"{name!r} is the teacher's name"
    if name in users:
        return f"{name!r} occurs twice"
    if len(password) < MIN_PASSWORD:
        return f"the password of {name!r} has fewer than {MIN_PASSWORD} characters"
    return ""
