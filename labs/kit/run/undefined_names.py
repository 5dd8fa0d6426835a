"""Explain an undefined name in a notebook, where a traceback of the kit doesn't help."""

import builtins
import traceback
from collections.abc import Callable
from typing import Any


def explain_undefined(function: Callable[..., Any], error: Exception) -> str:
    """Explain a name that a notebook's experiment misses; return "" for another error.

    The cell that defines it failed or was not run. A name that the learner's own code misses may
    be misspelt, so its traceback stays.
    """
    if not hasattr(builtins, "get_ipython") or type(error) is not NameError:
        return ""
    frame, _ = [*traceback.walk_tb(error.__traceback__)][-1]
    if f"{frame.f_code.co_qualname}.".startswith(f"{function.__qualname__}."):  # or nested in it
        return f"{error.name} isn't defined: run the cell above that defines it first."
    return ""
