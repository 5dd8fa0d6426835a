"""A lab's source: its cells of prose and code, its functions and its experiments."""

import ast
import re
from dataclasses import dataclass
from difflib import get_close_matches

from common.cards import WRONG_USAGE, Card

_MARK = re.compile(r"^# %%(?P<markdown> \[markdown\])?(?P<title>.*)$")


@dataclass(frozen=True)
class Cell:
    """A cell of a lab; `text` is Markdown if `prose`, else Python."""

    prose: bool
    title: str
    text: str
    first_line: int


def split(source: str) -> list[Cell]:
    """Split `source` into cells; text before the first mark is left out."""
    lines = source.splitlines()
    starts = [i for i, line in enumerate(lines) if _MARK.match(line)]
    ends = [*starts, len(lines)][1:]
    cells: list[Cell] = []
    for start, end in zip(starts, ends, strict=True):
        mark = _MARK.match(lines[start])
        assert mark is not None
        body = lines[start + 1 : end]
        prose = mark["markdown"] is not None
        text = "\n".join(re.sub(r"^# ?", "", line) for line in body) if prose else "\n".join(body)
        cells.append(Cell(prose, mark["title"].strip(), text.strip("\n"), start + 1))
    return cells


@dataclass(frozen=True)
class Defined:
    """A top-level function of a lab: its first line and its source."""

    line: int
    source: str


def functions(source: str) -> dict[str, Defined]:
    """Return every top-level function by name, with its decorators."""
    found: dict[str, Defined] = {}
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            found[node.name] = Defined(first, "\n".join(lines[first - 1 : node.end_lineno]))
    return found


def experiments(source: str) -> dict[str, str]:
    """Return the claim of every experiment by name, in the file's order."""
    return {
        node.name: " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and "lab.experiment" in _decorators(node)
    }


def closing(source: str) -> str:
    """Return the name of the function that computes the closing; empty without one."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and "lab.closing" in _decorators(node):
            return node.name
    return ""


def _decorators(function: ast.FunctionDef) -> list[str]:
    return [ast.unparse(decorator) for decorator in function.decorator_list]


def require_experiment(lab: str, source: str, name: str) -> None:
    """Check that a lab has an experiment of this name.

    Raises:
        Card: if it doesn't; it lists the nearest names.
    """
    known = list(experiments(source))
    if name in known:
        return
    near = [other for other in known if name.lower() in other]
    near = near or get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    why = f"Nearest: {', '.join(near)}." if near else "None of its experiments has a similar name."
    raise Card(f"{lab} has no experiment {name!r}.", why, f"invoke lab {lab} --list", WRONG_USAGE)
