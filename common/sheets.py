"""A learner's sheet: the lab's source with the bodies of its exercises removed.

The positions that `ast` reports say what to remove, so every other character is unchanged.
"""

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.cards import FAILED, Card

SENTINEL = "raise NotImplementedError  # yours to write"
_MADE_FROM = re.compile(r"^# Your sheet of (\S+), made from the lab with sha256 ([0-9a-f]+)")
_HEAD = """\
# Your sheet of {lab}, made from the lab with sha256 {digest}. Keep this line.
# Write the bodies marked "yours to write", in any order, and save. Then run:
#     invoke check {lab}

"""


@dataclass(frozen=True)
class Exercise:
    """An exercise in a file.

    Attributes:
        part: the name of the function, or "Class.method".
        node: its syntax tree.
        level: 1 (follow the text) to 3 (think it out).
        hints: from a first nudge to nearly the solution.
    """

    part: str
    node: ast.FunctionDef
    level: int = 0
    hints: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The first paragraph of the docstring."""
        return " ".join((ast.get_docstring(self.node) or "").split("\n\n")[0].split())

    @property
    def written(self) -> bool:
        """Whether the body is more than the sentinel, `pass` or `...`."""
        body = self.node.body[1:] if ast.get_docstring(self.node) is not None else self.node.body
        return any(not _is_placeholder(statement) for statement in body)

    @property
    def first_line(self) -> int:
        """The first line of the body, below the docstring if there is one."""
        documented = ast.get_docstring(self.node) is not None and len(self.node.body) > 1
        return self.node.body[documented].lineno

    @property
    def text(self) -> str:
        """A hash of the body without comments and layout: equal hashes are the same attempt."""
        return hashlib.sha256("\n".join(map(ast.unparse, self.node.body)).encode()).hexdigest()[:12]


def _is_placeholder(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and statement.value.value is ...
    return isinstance(statement, ast.Pass)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every top-level function and every method of a top-level class, by qualified name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            methods = (member for member in node.body if isinstance(member, ast.FunctionDef))
            yield from ((f"{node.name}.{method.name}", method) for method in methods)


def exercises(source: str) -> dict[str, Exercise]:
    """Return the functions marked `@lab.exercise(level=…, hints=(…))`, in the file's order.

    Raises:
        ValueError: if a level or the tuple of hints isn't a literal.
    """
    found: dict[str, Exercise] = {}
    for part, node in functions(ast.parse(source)):
        if (mark := _mark(node)) is not None:
            found[part] = Exercise(part, node, *_level_and_hints(mark))
    return found


def _level_and_hints(mark: ast.Call) -> tuple[int, tuple[str, ...]]:
    try:
        keywords = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
        level = keywords["level"]
        hints = keywords["hints"]
        if isinstance(hints, tuple) and hints:
            return level, hints
    except (ValueError, KeyError):
        pass
    raise ValueError(f"line {mark.lineno}: @lab.exercise needs level=… and hints=(…) as literals")


def found_in(sheet: str) -> dict[str, Exercise]:
    """Return every function of a sheet, marked or not: a learner may have lost a decorator."""
    return {part: Exercise(part, node) for part, node in functions(ast.parse(sheet))}


def written(text: str, path: Path, exercises: dict[str, Exercise]) -> dict[str, bool]:
    """Return, for every exercise that a sheet still has, whether it is written.

    Raises:
        Card: if the sheet isn't valid Python.
    """
    try:
        tree = ast.parse(text, str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        code = (getattr(error, "text", None) or "").strip()
        at = f"line {line}: {code}" if line else ""
        message = getattr(error, "msg", None) or str(error)
        why = f"{message}, at {at}" if at else message
        fix = f"correct {'that line' if at else 'it'} and save"
        raise Card(f"{path} is not valid Python.", why, fix, FAILED) from error
    mine = dict(functions(tree))
    return {part: Exercise(part, mine[part]).written for part in exercises if part in mine}


def _mark(node: ast.FunctionDef) -> ast.Call | None:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "lab.exercise":
            return decorator
    return None


def digest(source: str) -> str:
    """Return the hash that a sheet records of the lab it was made from."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def made_from(sheet: str) -> str:
    """Return the hash recorded in a sheet's first lines; empty if the line was removed."""
    for line in sheet.splitlines()[:5]:
        if mark := _MADE_FROM.match(line):
            return mark[2]
    return ""


def make(lab: str, source: str) -> str:
    """Return the sheet of the lab with this source."""
    return _HEAD.format(lab=lab, digest=digest(source)) + blank(source)


def blank(source: str) -> str:
    """Return `source` without its exercises' bodies and all hints but the first."""
    lines = io.StringIO(source).readlines()
    for exercise in reversed(exercises(source).values()):
        node = exercise.node
        mark = _mark(node)
        last = _last_line(lines, node)
        lines[node.lineno - 1 : last] = _emptied(source, lines, node)
        if mark is not None:
            _keep_one_hint(lines, mark)
    return "".join(lines)


def without_head(sheet: str) -> str:
    """Return a sheet's text from its first cell on."""
    start = re.search(r"^# %%", sheet, re.MULTILINE)
    return sheet[start.start() :] if start else sheet


def _last_line(lines: list[str], node: ast.FunctionDef) -> int:
    """Return the last line of a function, including indented comments below its body."""
    last = node.end_lineno or node.lineno
    for number, line in enumerate(lines[last:], last + 1):
        text = line.strip()
        if text and not (text.startswith("#") and _indentation(line) > node.col_offset):
            break
        last = number if text else last
    return last


def _emptied(source: str, lines: list[str], node: ast.FunctionDef) -> list[str]:
    """Return signature, docstring and sentinel."""
    indent = " " * (node.col_offset + 4)
    body = [f"{indent}{SENTINEL}\n"]
    if ast.get_docstring(node) is not None:
        body.insert(0, f"{indent}{ast.get_source_segment(source, node.body[0])}\n")
    return [*_signature(lines[node.lineno - 1 :]), *body]


def _signature(lines: list[str]) -> list[str]:
    """Return the lines of a signature with its trailing comment, without a body on that line."""
    depth = 0
    rest = iter(lines)
    for token in tokenize.generate_tokens(lambda: next(rest)):
        if token.type == tokenize.OP and token.string in "()[]{}":
            depth += 1 if token.string in "([{" else -1
        elif token.string == ":" and depth == 0:
            last, column = token.end
            behind = lines[last - 1][column:]
            if not behind.strip().startswith("#"):
                behind = "\n"
            return [*lines[: last - 1], lines[last - 1][:column] + behind]
    raise AssertionError("a parsed function has a colon")


def _keep_one_hint(lines: list[str], mark: ast.Call) -> None:
    """Remove all hints but the first from `@lab.exercise(…, hints=(…))`."""
    hints = next(word.value for word in mark.keywords if word.arg == "hints")
    assert isinstance(hints, ast.Tuple)
    first = hints.elts[0]
    before = lines[(first.end_lineno or 1) - 1].encode()[: first.end_col_offset].decode()
    after = lines[(hints.end_lineno or 1) - 1].encode()[hints.end_col_offset :].decode()
    one_line = hints.lineno == hints.end_lineno
    closing = ",)" if one_line else f",\n{' ' * _indentation(lines[hints.lineno - 1])})"
    lines[(first.end_lineno or 1) - 1 : hints.end_lineno] = [before + closing + after]


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
