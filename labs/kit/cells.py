"""A lab's source as its reader sees it: cells of prose and code, and where things stand."""

import ast
import re
from dataclasses import dataclass

_MARK = re.compile(r"^# %%(?P<markdown> \[markdown\])?(?P<title>.*)$")


@dataclass(frozen=True)
class Cell:
    """A cell of a lab: `text` is Markdown for prose, Python for code."""

    prose: bool
    title: str
    text: str
    first_line: int


def split(source: str) -> list[Cell]:
    """The cells of `source`; what stands before the first mark is left out."""
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
    """Every top-level function by name, its decorators included."""
    found: dict[str, Defined] = {}
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found[node.name] = Defined(first, "\n".join(lines[first - 1 : node.end_lineno]))
    return found
