"""Require of an exercise what a check relies on: a function, a class, an error for a bad call."""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake


def require_function(implementation: Any) -> None:
    """Raise a Mistake unless this can be called."""
    if not callable(implementation):
        raise Mistake(f"expected a function, got {type_of(implementation)}")


def require_class(implementation: Any) -> None:
    """Raise a Mistake unless this is a class."""
    if not isinstance(implementation, type):
        raise Mistake(f"expected a class, got {type_of(implementation)}")


def type_of(value: Any) -> str:
    """Return "a list", or "nothing (None)", for a message."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def require_error(call: Callable[[], Any], error: type[Exception], what: str, without: str) -> None:
    """Require that a call raises an error of this type.

    Args:
        call: the call.
        error: the type that it must raise.
        what: the case, for the message on another error.
        without: what happens without an error, for the message on none.

    Raises:
        Mistake: if it raises another error, or none.
    """
    try:
        call()
    except error:
        return
    except Exception as other:
        kinds = f"expected a {error.__name__}, got {type(other).__name__}"
        raise Mistake(f"{what}: {kinds}") from None
    raise Mistake(f"{without}: raise a {error.__name__}")
