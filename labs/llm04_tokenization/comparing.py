"""Compare results with expected ones, and name known mistakes."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from labs.kit import Mistake

Function = Callable[..., Any]


def type_of(value: Any) -> str:
    """Return the type of a value in words."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def same(got: Any, want: Any) -> bool:
    """Return whether the values and all their types are equal, without comparing arrays."""
    if type(got) is not type(want):
        return False
    if isinstance(want, list | tuple):
        return len(got) == len(want) and all(map(same, got, want))
    return bool(got == want)


def expect(got: Any, want: Any, mistake: str, known: dict[str, Any] | None = None) -> None:
    """Compare `got` with `want`, types included, and with the results of known mistakes.

    Raises:
        Mistake: the message of the known mistake, or else what was expected and `mistake`.
    """
    if same(got, want):
        return
    for message, wrong in (known or {}).items():
        if same(got, wrong):
            raise Mistake(message)
    if type(got) is not type(want):
        raise Mistake(f"expected {type_of(want)}, got {type_of(got)}")
    raise Mistake(f"expected {want!r}, got {got!r}; {mistake}")


def call(implementation: Function, *arguments: Any) -> Any:
    """Return the result for copies of the arguments.

    Raises:
        Mistake: if the implementation raises an error or changes its arguments.
    """
    passed = [deepcopy(x) if isinstance(x, list | dict) else x for x in arguments]
    try:
        got = implementation(*passed)
    except UnicodeDecodeError as error:
        raise Mistake(
            "UnicodeDecodeError for bytes that aren't UTF-8: models can write such bytes, and "
            'errors="replace" puts � in their place'
        ) from error
    except Exception as error:
        shown = ", ".join(repr(x) for x in arguments)
        raise Mistake(f"{type(error).__name__} for ({shown}): {error}") from error
    if passed != list(arguments):
        raise Mistake("your function changed its input: build something new instead")
    return got
