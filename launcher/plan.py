"""What is to be run, checked by the labs' own command line before anything is built for it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from launcher import ROOT
from launcher.processes import answer


@dataclass(frozen=True)
class Plan:
    """The labs, and the arguments of `python -m labs` after them."""

    labs: tuple[str, ...]
    arguments: tuple[str, ...]
    online: bool
    verb: str = ""

    @property
    def command(self) -> list[str]:
        verb = [self.verb] if self.verb else []
        return [*verb, ",".join(self.labs), *self.arguments]

    def on(self, processes: int) -> "Plan":
        """The same on so many processes, one for each GPU."""
        if processes < 2 or self.verb or "--processes" in self.arguments:
            return self
        return replace(self, arguments=("--processes", str(processes), *self.arguments))

    @property
    def name(self) -> str:
        """For people: LLM06, or LLM01 and 10 more."""
        more = len(self.labs) - 1
        return f"{self.labs[0]} and {more} more" if more else self.labs[0]


def make(labs: str, options: dict[str, str | bool], online: bool, own: list[str]) -> Plan:
    """Ask `python -m labs --plan` on this host; it needs no torch for that.

    Raises:
        SystemExit: where it refuses; it has then said why.
    """
    given = _words({**options, "online": online})
    planned = _ask([labs, *given, "--plan", *(["--", *own] if own else [])])
    return Plan(tuple(planned["labs"]), tuple(planned["arguments"]), online)


def make_check(lab: str, flags: dict[str, Any]) -> Plan:
    """The same for `python -m labs check`.

    Raises:
        SystemExit: where it refuses; it has then said why.
    """
    given = _words(flags)
    planned = _ask(["check", lab, *given, "--plan"])
    return Plan(tuple(planned["labs"]), tuple(given), online=False, verb="check")


def _words(flags: Mapping[str, Any]) -> list[str]:
    """As on a command line; a flag may be True, False, None or a value."""
    return [
        word
        for name, value in flags.items()
        if value
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def _ask(arguments: list[str]) -> dict[str, Any]:
    asked = answer([sys.executable, "-m", "labs", *arguments], cwd=ROOT)
    if asked.returncode != 0:
        raise SystemExit(asked.returncode)
    return json.loads(asked.stdout)
