"""How the checks of LLM02 and LLM02+ call an implementation: its errors become mistakes."""

import sys
from collections.abc import Callable
from typing import Any

from labs.kit import Mistake

from torch import Tensor

Function = Callable[..., Any]
MOST_LINES = 200_000  # a walk that visits each operation once runs about ten lines for each


def call(implementation: Function, hint: str, **inputs: Tensor) -> Any:
    """Return the result of the implementation; an error for these shapes is a mistake.

    Raises:
        Mistake: with the error, the shapes and `hint`.
    """
    try:
        return implementation(*inputs.values())
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
        reason = str(error).splitlines()[0]
        raise Mistake(f"your function raised {reason!r} for {shapes}: {hint}") from error


def limited(implementation: Function, *arguments: Any) -> Any:
    """Call the implementation, and stop it after more lines of Python than a walk can need."""
    lines = 0
    before = sys.gettrace()

    def count(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines > MOST_LINES:
            raise Mistake(
                "your function takes far more steps than one visit of each value needs: it walks "
                "every path separately, searches all values again for each one, or never ends"
            )
        return count

    sys.settrace(count)
    try:
        return implementation(*arguments)
    except RecursionError as error:
        raise Mistake(
            "the graph is deeper than Python's recursion limit: keep a list of what to visit next"
        ) from error
    finally:
        sys.settrace(before)
