"""Read and check workshop/hub.toml, the settings of `invoke hub`."""

import difflib
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import ROOT, settings
from launcher.cards import WRONG_USAGE, Card

WORKSHOP = ROOT / "workshop"
SETTINGS_FILE = "hub.toml"
MIN_PASSWORD = 8
MIN_TEACHER_PASSWORD = 12
MIN_MEMORY = "512m"
_DURATION = re.compile(r"(\d+) ?(m|h)")
_SECONDS = {"m": 60, "h": 3600}


@dataclass(frozen=True)
class HubSettings:
    """The settings of a hub, each from a line of hub.toml.

    Attributes:
        title: shown above the login.
        teacher: the user name of the teacher, who sees the class.
        teacher_password: the teacher's password.
        password: the learners' shared password; empty with `users`.
        users: a CSV file of names and passwords; empty with `password`.
        seats: how many learners can work at once.
        memory: the limit of each seat, in bytes.
        cpus: the limit of each seat; 0 is no limit.
        gpus: how many GPUs each seat gets; 0 is the CPU only.
        quota: what a learner's files may take on the disk, in bytes.
        idle: the seconds after which an unused seat is stopped; 0 is never.
        longest: the seconds after which any seat is stopped; 0 is never.
        network: whether a seat can reach other machines.
        solutions: "open", or "locked" until the teacher opens them.
        address: the address of this machine that the hub listens on.
        port: its port.
        certificate: a PEM file for HTTPS; empty for HTTP.
        key: the PEM file of its private key.
    """

    title: str
    teacher: str
    teacher_password: str
    password: str
    users: str
    seats: int
    memory: int
    cpus: float
    gpus: int
    quota: int
    idle: int
    longest: int
    network: bool
    solutions: str
    address: str
    port: int
    certificate: str
    key: str


class _Problem(Exception):
    """A value that isn't allowed; the message says what is."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\n" in value:
        raise _Problem("a text in quotes, of one line")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", value):
        raise _Problem("a name of lower-case letters, digits and hyphens in quotes")
    return value


def _password(shortest: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value != "" and len(_text(value)) < shortest:
            raise _Problem(f"at least {shortest} characters in quotes")
        return _text(value)

    return check


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _Problem(f"an integer from {least} to {most}")
        return value

    return check


def _cpus(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1024:
        raise _Problem("a number from 0, for no limit, to 1024")
    return float(value)


def _size(least: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        size = settings.size_in_bytes(value) if isinstance(value, str) else None
        if size is None or size < (settings.size_in_bytes(least) or 0):
            raise _Problem(f'a size in quotes such as "3g", at least "{least}"')
        return size

    return check


def _duration(value: Any) -> int:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if value != "never" and (match is None or int(match[1]) == 0):
        raise _Problem('minutes or hours in quotes, such as "90m" or "8h", or "never"')
    return int(match[1]) * _SECONDS[match[2]] if match else 0


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Problem("true or false, without quotes")
    return value


def _solutions(value: Any) -> str:
    if value not in ("open", "locked"):
        raise _Problem('"open" or "locked", in quotes')
    return value


# The check and the default of each setting.
_CHECKS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "title": (_text, "llm-labs"),
    "teacher": (_name, "teacher"),
    "teacher_password": (_password(MIN_TEACHER_PASSWORD), ""),
    "password": (_password(MIN_PASSWORD), ""),
    "users": (_text, ""),
    "seats": (_integer(1, 500), 30),
    "memory": (_size(MIN_MEMORY), "3g"),
    "cpus": (_cpus, 2),
    "gpus": (_integer(0, 64), 0),
    "quota": (_size("10m"), "2g"),
    "idle": (_duration, "1h"),
    "longest": (_duration, "12h"),
    "network": (_flag, False),
    "solutions": (_solutions, "open"),
    "address": (_text, "127.0.0.1"),
    "port": (_integer(1, 65_535), 8000),
    "certificate": (_text, ""),
    "key": (_text, ""),
}


def read(folder: Path = WORKSHOP) -> HubSettings:
    """Read and check hub.toml.

    Raises:
        Card: If it can't be read, or a value isn't allowed; the card names the line.
    """
    path = folder / SETTINGS_FILE
    return check(path, _read_text(path))


def check(path: Path, text: str) -> HubSettings:
    """Check the text of hub.toml.

    Raises:
        Card: If a value isn't allowed; the card names the line.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why = f"{str(error)[:1].lower()}{str(error)[1:]}"
        raise _card(
            path,
            f"It isn't TOML: {why}.",
            "correct that line: a text needs quotes; a number, true and false have none",
        ) from error
    if unknown := sorted(set(values) - set(_CHECKS)):
        why = f"Line {_line(text, unknown[0])} sets {unknown[0]!r}, which isn't a setting."
        if near := difflib.get_close_matches(unknown[0], _CHECKS, 1):
            raise _card(path, f"{why} Did you mean {near[0]}?", f"write {near[0]}, or remove it")
        raise _card(path, why, f"remove it; the settings are {', '.join(_CHECKS)}")
    checked: dict[str, Any] = {}
    for name, (check_value, default) in _CHECKS.items():
        try:
            checked[name] = check_value(values.get(name, default))
        except _Problem as problem:
            # A password isn't repeated on the screen.
            shown = "" if "password" in name else f" to {values[name]!r}"
            why = f"Line {_line(text, name)} sets {name}{shown}. Allowed is {problem}."
            raise _card(path, why, f"correct line {_line(text, name)}, then: invoke hub") from None
    return _refuse_contradictions(path, text, HubSettings(**checked))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        why = "It has the settings of the hub."
        raise Card(f"There is no {path}.", why, "invoke hub writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _card(path, f"The error was: {error}.", f"ls -l {path}") from error


def _card(path: Path, why: str, fix: str) -> Card:
    return Card(f"{path} can't be used.", why, fix, WRONG_USAGE)


def _line(text: str, name: str) -> int:
    """Return the number of the line that sets a name; 1 if it isn't set."""
    pattern = re.compile(rf'\s*(\[+\s*)?"?{re.escape(name)}\b')
    numbers = (n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line))
    return next(numbers, 1)


def _refuse_contradictions(path: Path, text: str, hub: HubSettings) -> HubSettings:
    """Refuse settings that don't fit together.

    Raises:
        Card: If there are any.
    """
    if bool(hub.password) == bool(hub.users):
        why = "Learners need either `password`, which all share, or `users`, a CSV file."
        if not hub.users:
            fix = 'add a line such as: password = "a-long-word"'
            raise _card(path, f"{why} Neither is set.", fix)
        lines = f"{_line(text, 'password')} and {_line(text, 'users')}"
        raise _card(path, f"{why} See lines {lines}.", "remove one of them, then: invoke hub")
    if not hub.teacher_password:
        fix = f"add a line teacher_password = …, with {MIN_TEACHER_PASSWORD} characters or more"
        raise _card(path, "The teacher needs a separate password. None is set.", fix)
    if hub.teacher_password == hub.password:
        why = f"Line {_line(text, 'teacher_password')}: the teacher needs a separate password."
        raise _card(path, why, f"set teacher_password, of {MIN_TEACHER_PASSWORD} characters")
    if bool(hub.certificate) != bool(hub.key):
        why = "HTTPS needs two files: `certificate` and `key`."
        raise _card(path, why, "set both, or none for HTTP")
    for name in ("certificate", "key"):
        file = path.parent / getattr(hub, name)
        if getattr(hub, name) and not os.path.isfile(file):  # noqa: PTH113 (is_file can raise)
            why = f"Line {_line(text, name)} names {file}, which isn't a file."
            raise _card(path, why, "correct the path; it starts in the folder of hub.toml")
    return hub
