"""The site's settings, LABS_…: a variable of the shell, or else a line of .env, as in Compose."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from launcher import ROOT

_LINE = re.compile(r"\s*(?:export\s+)?(\w+)\s*[=:]\s*(.*)")
# https://github.com/docker/go-units/blob/master/size.go
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {unit: 2 ** (10 * power) for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}
MIN_MEMORY = 6 * 2**20  # the engine's own limit
MIN_CPUS = 0.01  # the engine's own limit


@dataclass(frozen=True)
class Setting:
    """A variable that is set, and where."""

    name: str
    value: str
    source: str  # "in the shell", "in /…/.env"

    def refuse(self, allowed: str, example: str) -> Card:
        """Return the card for a value that isn't allowed."""
        what = f"{self.name}={self.value} isn't possible."
        fix = f"{self.name}={example} invoke …; or correct it where it is set"
        return Card(what, f"It is set {self.source}. Allowed are {allowed}.", fix, WRONG_USAGE)


def find(name: str) -> Setting | None:
    """Return a setting that has a value, or None."""
    file = ROOT / ".env"
    if name in os.environ:
        value = os.environ[name]
        return Setting(name, value, "in the shell") if value else None
    value = _values(file).get(name)
    return Setting(name, value, f"in {file}") if value else None


def _values(file: Path) -> dict[str, str]:
    """Return the variables of a .env file; of several lines for a variable the last."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return {}
    matches = [match for line in text.splitlines() if (match := _LINE.fullmatch(line))]
    return {match[1]: _unquote(match[2]) for match in matches}


def _unquote(text: str) -> str:
    """Remove quotes, or from text without quotes a comment."""
    if text[:1] in ("'", '"') and (end := text.find(text[0], 1)) > 0:
        return text[1:end]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def refuse_invalid_sizes() -> None:
    """Check the limits of memory before Compose does, whose messages name no variable.

    Raises:
        Card: If one isn't a size, or is less than the engine's minimum.
    """
    for name, example, least in (("LABS_MEMORY", "8g", MIN_MEMORY), ("LABS_SHM", "1g", 1)):
        setting = find(name)
        if setting is None:
            continue
        size = size_in_bytes(setting.value)
        if size is None or (size < least and not (name == "LABS_MEMORY" and size == 0)):
            allowed = "sizes such as 512m and 8g"
            if name == "LABS_MEMORY":
                allowed += ", at least 6m, and 0 for no limit; a lab needs up to 2.5g"
            raise setting.refuse(allowed, example)


def refuse_invalid_cpus(engine_cpus: int = 0) -> None:
    """Check the limit of CPUs against those of the engine, if they are known.

    Raises:
        Card: If it isn't a number, or the engine has fewer CPUs.
    """
    setting = find("LABS_CPUS")
    if setting is None:
        return
    most = f"to {engine_cpus}, the CPUs of this engine," if engine_cpus else "and more,"
    try:
        cpus = float(setting.value)
    except ValueError:
        cpus = float("nan")
    if cpus == 0 or (cpus >= MIN_CPUS and (not engine_cpus or cpus <= engine_cpus)):
        return
    allowed = f"numbers from {MIN_CPUS} {most} and 0 for no limit"
    raise setting.refuse(allowed, str(engine_cpus or 2))


def size_in_bytes(text: str) -> int | None:
    """Return a size such as 512m or 8g in bytes, or None if it isn't one."""
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None
