"""Fill a learner's sheet: unwritten exercises get the reference implementation."""

import ast
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from common import sheets, workbook
from common.cards import WRONG_USAGE, Card
from common.sheets import functions
from common.syllabus import Lesson


def fill(sheet: ast.Module, lab: ast.Module, parts: list[str]) -> ast.Module:
    """Put the lab's `parts` into `sheet`; append those that the sheet lacks.

    The learner's own lines keep their numbers, so that a traceback points into the sheet.
    """
    reference = dict(functions(lab))
    mine = dict(functions(sheet))
    for part in parts:
        if part in mine:
            mine[part].args = reference[part].args
            mine[part].body = reference[part].body
        else:
            _append(sheet, lab, part, reference[part])
    return sheet


def _append(sheet: ast.Module, lab: ast.Module, part: str, function: ast.FunctionDef) -> None:
    owner, _, method = part.partition(".")
    classes = {node.name: node for node in sheet.body if isinstance(node, ast.ClassDef)}
    if not method:
        sheet.body.append(function)
    elif owner in classes:
        classes[owner].body.append(function)
    else:
        classes = {node.name: node for node in lab.body if isinstance(node, ast.ClassDef)}
        sheet.body.append(classes[owner])


def open_sheet(lesson: Lesson, path: Path) -> Any:
    """Return the `Lab` of a sheet: the learner's parts, and for the rest the reference.

    Raises:
        Card: if the sheet can't be read, isn't valid Python, or belongs to another lab.
    """
    text = workbook.read(path)
    source = lesson.source
    yours = written_parts(lesson, path, text)
    others = [part for part in sheets.exercises(source) if part not in yours]
    tree = fill(ast.parse(text), ast.parse(source), others)
    lab = load_module(path, tree, f"{path.stem}_sheet").lab
    if lab.lesson.name != lesson.name:
        what = f"{path} is not a sheet of {lesson.name}."
        fix = f"invoke lab {lab.lesson.name} -- --sheet {path}"
        raise Card(what, f"It is a sheet of {lab.lesson.name}.", fix, WRONG_USAGE)
    lab.lesson = replace(lesson, sheet=path, text=text, yours=yours)
    return lab


def written_parts(lesson: Lesson, path: Path, text: str) -> tuple[str, ...]:
    """Return the exercises that the learner has written in a sheet.

    Raises:
        Card: if the sheet isn't valid Python.
    """
    exercises = sheets.exercises(lesson.source)
    states = sheets.written(text, path, exercises)
    return tuple(part for part in exercises if states.get(part))


def load_module(path: Path, tree: ast.Module, name: str) -> ModuleType:
    """Run a sheet as a module; errors in it are raised as they are."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(tree, str(path), "exec"), vars(module))
    return module
