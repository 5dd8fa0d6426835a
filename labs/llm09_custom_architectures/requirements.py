"""Refuse what can't be an exercise's function or class, before it is called."""

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
