"""The options of one lab, read from its source: the launcher's host can't import a lesson.

A lab declares them by calls of `lab.argument` in its file, or in a function of another file that
its file calls as `declare_options(lab)` or `module.declare_options(lab)`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.options import Parser, Settings, common_parser, namespace_of, positive
from common.syllabus import LABS, Lesson

# The types of values that need none of the labs' packages. Only the lab itself parses the others.
_TYPES = {"int": int, "float": float, "positive": positive}
_LITERALS = ("action", "choices", "default", "help", "metavar", "nargs")


def parser_of_every_lab(lesson: Lesson) -> Parser:
    """Return a lab's parser without the options of this lab alone."""
    help_command = f"invoke lab {lesson.name} -- --help"
    return common_parser(f"python -m labs {lesson.name}", lesson.blurb, help_command)


def check(chosen: list[Lesson], words: list[str], common: Settings) -> None:
    """Check words of the command line that the labs parse; print the help if it is among them.

    Raises:
        Card: if a lab doesn't have an option, or not with this value.
        SystemExit: after the help.
    """
    for lesson in chosen:
        parser = parser_of(lesson)
        if parser is not None and words:
            parser.parse_args(words, namespace_of(common))


def flags_of(lesson: Lesson) -> list[str] | None:
    """Return every option that a lab parses; None if they can't be read."""
    parser = parser_of(lesson)
    return None if parser is None else [flag for flag in parser.flags if flag.startswith("--")]


def parser_of(lesson: Lesson) -> Parser | None:
    """Return a lab's parser; None if its file doesn't make a `Lab`."""
    tree = ast.parse(lesson.source)
    if not any(_makes_lab(node) for node in tree.body):
        return None
    parser = parser_of_every_lab(lesson)
    for call in _declarations(tree):
        names = [ast.literal_eval(word) for word in call.args]
        parser.add_argument(*names, **_keywords(call))
    return parser


def _makes_lab(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node).startswith("lab = Lab(")


def _declarations(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield the calls of `lab.argument`, in order."""
    for call in _calls(tree.body):
        function = ast.unparse(call.func)
        if function == "lab.argument":
            yield call
        elif [ast.unparse(word) for word in call.args] == ["lab"]:
            yield from _calls(_body_of(function, tree))


def _calls(body: list[ast.stmt]) -> Iterator[ast.Call]:
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node.value


def _body_of(function: str, tree: ast.Module) -> list[ast.stmt]:
    """Return the calls of `lab.argument` in a function that another file of the labs defines."""
    imported, _, attribute = function.partition(".")
    file = _file_of(imported, tree)
    if file is None:
        return []
    name = attribute or imported
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return [one for one in node.body if ast.unparse(one).startswith("lab.argument(")]
    return []


def _file_of(name: str, tree: ast.Module) -> Path | None:
    """Return the file of the labs that an imported name stands for, or comes from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            folder = LABS.parent.joinpath(*(node.module or "").split("."))
            files = (folder / f"{name}.py", folder.with_suffix(".py"))
            return next((file for file in files if file.is_file()), None)
    return None


def _keywords(call: ast.Call) -> dict[str, Any]:
    """Return the keywords of `add_argument` that can be read."""
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg in _LITERALS and isinstance(keyword.value, ast.Constant | ast.Tuple):
            found[keyword.arg] = ast.literal_eval(keyword.value)
        elif keyword.arg == "type" and (known := _TYPES.get(ast.unparse(keyword.value))):
            found["type"] = known
    return found
