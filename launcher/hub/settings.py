"""Read and check workshop/hub.toml, the settings of `invoke hub`."""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card
from launcher import ROOT
from launcher.hub import values as hub_values
from launcher.hub.text_files import read_utf8

WORKSHOP = ROOT / "workshop"
SETTINGS_FILE = "hub.toml"
MIN_PASSWORD = 8
MIN_TEACHER_PASSWORD = 12
MIN_MEMORY = "512m"
SHOWN = 5  # mistakes on a card


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


# The check and the default of each setting.
_CHECKS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "title": (hub_values.text, "llm-labs"),
    "teacher": (hub_values.name, "teacher"),
    "teacher_password": (hub_values.password(MIN_TEACHER_PASSWORD), ""),
    "password": (hub_values.password(MIN_PASSWORD), ""),
    "users": (hub_values.text, ""),
    "seats": (hub_values.integer(1, 500), 30),
    "memory": (hub_values.size(MIN_MEMORY), "3g"),
    "cpus": (hub_values.cpus, 2),
    "gpus": (hub_values.integer(0, 64), 0),
    "quota": (hub_values.size("10m"), "2g"),
    "idle": (hub_values.duration, "1h"),
    "longest": (hub_values.duration, "12h"),
    "network": (hub_values.flag, False),
    "solutions": (hub_values.solutions, "open"),
    "address": (hub_values.address, "127.0.0.1"),
    "port": (hub_values.integer(1, 65_535), 8000),
    "certificate": (hub_values.text, ""),
    "key": (hub_values.text, ""),
}


@dataclass(frozen=True)
class _Mistake:
    """A mistake in hub.toml: what is wrong, in sentences, and how to correct it."""

    why: str
    fix: str
    line: int = 1


def read(folder: Path = WORKSHOP) -> HubSettings:
    """Read and check hub.toml.

    Raises:
        Card: If it can't be read, or has mistakes; the card names their lines.
    """
    path = folder / SETTINGS_FILE
    return check(path, _read_text(path))


def check(path: Path, text: str) -> HubSettings:
    """Check the text of hub.toml.

    Raises:
        Card: If it has mistakes; the card names their lines.
    """
    values = _parse(path, text)
    mistakes = list(_unknown(text, values))
    checked: dict[str, Any] = {}
    for name, (check_value, default) in _CHECKS.items():
        try:
            checked[name] = check_value(values.get(name, default))
        except hub_values.NotAllowed as allowed:
            mistakes.append(_wrong_value(text, name, values[name], str(allowed)))
    _refuse(path, mistakes)
    hub = HubSettings(**checked)
    _refuse(path, list(_contradictions(path, text, hub)))
    return hub


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why = f"{str(error)[:1].lower()}{str(error)[1:]}"
        raise _card(
            path,
            f"It isn't TOML: {why}.",
            "correct that line: a text needs quotes; a number, true and false have none",
        ) from error


def _read_text(path: Path) -> str:
    try:
        return read_utf8(path)
    except FileNotFoundError as error:
        why = "It has the settings of the hub."
        raise Card(f"There is no {path}.", why, "invoke hub writes one") from error
    except OSError as error:
        raise _card(path, f"The error was: {error}.", f"ls -l {path}") from error
    except ValueError as error:
        raise _card(path, f"{error}.", "save it in UTF-8, then: invoke hub") from error


def _card(path: Path, why: str, fix: str) -> Card:
    return Card(f"{path} can't be used.", why, fix, WRONG_USAGE)


def _refuse(path: Path, mistakes: list[_Mistake]) -> None:
    """Refuse mistakes, the first ones of many.

    Raises:
        Card: If there are any.
    """
    if not mistakes:
        return
    if len(mistakes) == 1:
        raise _card(path, mistakes[0].why, mistakes[0].fix)
    ordered = sorted(mistakes, key=lambda mistake: mistake.line)
    why = " ".join(mistake.why for mistake in ordered[:SHOWN])
    if len(mistakes) > SHOWN:
        why += f" And {len(mistakes) - SHOWN} more."
    raise _card(path, why, "correct these lines, then: invoke hub")


def _line(text: str, name: str) -> int:
    """Return the number of the line that sets a name; 1 if it isn't set."""
    pattern = re.compile(rf'\s*(\[+\s*)?"?{re.escape(name)}\b')
    numbers = (n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line))
    return next(numbers, 1)


def _unknown(text: str, values: dict[str, Any]) -> Iterator[_Mistake]:
    """Yield the names that aren't settings."""
    for name in sorted(set(values) - set(_CHECKS)):
        line = _line(text, name)
        why = f"Line {line} sets {name!r}, which isn't a setting."
        if near := difflib.get_close_matches(name, _CHECKS, 1):
            why = f"{why} Did you mean {near[0]}?"
            yield _Mistake(why, f"write {near[0]}, or remove it", line)
        else:
            yield _Mistake(why, f"remove it; the settings are {', '.join(_CHECKS)}", line)


def _wrong_value(text: str, name: str, value: Any, allowed: str) -> _Mistake:
    line = _line(text, name)
    shown = "" if "password" in name else f" to {value!r}"  # the screen shows no password
    why = f"Line {line} sets {name}{shown}. Allowed is {allowed}."
    return _Mistake(why, f"correct line {line}, then: invoke hub", line)


def _contradictions(path: Path, text: str, hub: HubSettings) -> Iterator[_Mistake]:
    """Yield settings that don't fit together."""
    if bool(hub.password) == bool(hub.users):
        why = "Learners need either `password`, which all share, or `users`, a CSV file."
        if hub.users:
            lines = f"{_line(text, 'password')} and {_line(text, 'users')}"
            yield _Mistake(f"{why} See lines {lines}.", "remove one of them, then: invoke hub")
        else:
            fix = 'add a line such as: password = "a-long-word"'
            yield _Mistake(f"{why} Neither is set.", fix)
    if not hub.teacher_password:
        fix = f"add a line teacher_password = …, with {MIN_TEACHER_PASSWORD} characters or more"
        yield _Mistake("The teacher needs a separate password. None is set.", fix)
    elif hub.teacher_password == hub.password:
        line = _line(text, "teacher_password")
        why = f"Line {line}: teacher_password is the learners' password, too."
        yield _Mistake(why, "set a different teacher_password, then: invoke hub", line)
    if bool(hub.certificate) != bool(hub.key):
        why = "HTTPS needs two files: `certificate` and `key`."
        yield _Mistake(why, "set both, or none for HTTP")
    for name in ("certificate", "key"):
        file = path.parent / getattr(hub, name)
        if getattr(hub, name) and not os.path.isfile(file):  # noqa: PTH113 (is_file can raise)
            line = _line(text, name)
            why = f"Line {line} names {file}, which isn't a file."
            yield _Mistake(why, "correct the path; it starts in the folder of hub.toml", line)
