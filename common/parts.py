"""Parts of a lab that later labs import, without importing torch before one is used."""

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def at_first_use(package: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`: it imports what its `if TYPE_CHECKING:` block imports.

    So the block is the one list of the names, for a reader, an editor and Python.
    """

    def get(name: str) -> Any:
        module, original = imported_at_first_use(package).get(name, ("", ""))
        if not module:
            raise AttributeError(f"{package} has no {name}")
        return getattr(import_module(module), original)

    return get


@cache
def imported_at_first_use(package: str) -> dict[str, tuple[str, str]]:
    """Return each name of a package's `if` block, with its module and its name there."""
    source = Path(str(import_module(package).__file__)).read_text(encoding="utf-8")
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    lines = [line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)]
    names = [(line.module or "", alias) for line in lines for alias in line.names]
    return {alias.asname or alias.name: (module, alias.name) for module, alias in names}
