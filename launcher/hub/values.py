"""The values that hub.toml may have. Each function returns a value, or raises what is allowed."""

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from launcher import settings

_DURATION = re.compile(r"(\d+) ?(m|h)")
_SECONDS = {"m": 60, "h": 3600}


class NotAllowed(Exception):
    """A value that isn't allowed; the message names what is."""


def text(value: Any) -> str:
    """Return a text.

    Raises:
        NotAllowed: For anything else.
    """
    if not isinstance(value, str) or "\n" in value:
        raise NotAllowed("a text in quotes, of one line")
    return value


def name(value: Any) -> str:
    """Return a name of a user.

    Raises:
        NotAllowed: For anything else.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", value):
        raise NotAllowed("a name of lower-case letters, digits and hyphens in quotes")
    return value


def password(shortest: int) -> Callable[[Any], str]:
    """Return a check of passwords; an empty text means no password.

    Args:
        shortest: The least number of characters.
    """

    def check(value: Any) -> str:
        if value != "" and len(text(value)) < shortest:
            raise NotAllowed(f"at least {shortest} characters in quotes")
        return text(value)

    return check


def integer(least: int, most: int) -> Callable[[Any], int]:
    """Return a check of integers."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise NotAllowed(f"an integer from {least} to {most}")
        return value

    return check


def cpus(value: Any) -> float:
    """Return a number of CPUs.

    Raises:
        NotAllowed: For anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1024:
        raise NotAllowed("a number from 0, for no limit, to 1024")
    return float(value)


def size(least: str) -> Callable[[Any], int]:
    """Return a check of sizes, which returns bytes."""

    def check(value: Any) -> int:
        found = settings.size_in_bytes(value) if isinstance(value, str) else None
        if found is None or found < (settings.size_in_bytes(least) or 0):
            raise NotAllowed(f'a size in quotes such as "3g", at least "{least}"')
        return found

    return check


def duration(value: Any) -> int:
    """Return a duration in seconds; 0 for "never".

    Raises:
        NotAllowed: For anything else.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if value != "never" and (match is None or int(match[1]) == 0):
        raise NotAllowed('minutes or hours in quotes, such as "90m" or "8h", or "never"')
    return int(match[1]) * _SECONDS[match[2]] if match else 0


def flag(value: Any) -> bool:
    """Return true or false.

    Raises:
        NotAllowed: For anything else.
    """
    if not isinstance(value, bool):
        raise NotAllowed("true or false, without quotes")
    return value


def solutions(value: Any) -> str:
    """Return "open" or "locked".

    Raises:
        NotAllowed: For anything else.
    """
    if value not in ("open", "locked"):
        raise NotAllowed('"open" or "locked", in quotes')
    return value


def address(value: Any) -> str:
    """Return an address that a hub can listen on: an engine refuses names.

    Raises:
        NotAllowed: For anything else.
    """
    try:
        return str(ipaddress.IPv4Address(text(value)))
    except ValueError as error:
        allowed = 'an IPv4 address in quotes, such as "127.0.0.1" or "0.0.0.0"'
        raise NotAllowed(allowed) from error
