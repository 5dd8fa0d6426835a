"""A sheet made whole: what is not written yet, or not to be trusted, is the lab's own."""

import ast
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from labs.kit import sheets, work
from labs.kit.cards import WRONG_USAGE, Card
from labs.kit.sheets import functions
from labs.kit.syllabus import Lesson


def graft(sheet: ast.Module, lab: ast.Module, parts: list[str]) -> ast.Module:
    """`sheet` with these parts as they are in the lab; what it lacks is added at its end.

    The learner's own lines keep their numbers, so that a traceback points into the sheet.
    """
    theirs = dict(functions(lab))
    mine = dict(functions(sheet))
    for part in parts:
        if part in mine:
            mine[part].args, mine[part].body = theirs[part].args, theirs[part].body
        else:
            _add(sheet, lab, part, theirs[part])
    return sheet


def _add(sheet: ast.Module, lab: ast.Module, part: str, function: ast.FunctionDef) -> None:
    owner, _, method = part.partition(".")
    classes = {one.name: one for one in sheet.body if isinstance(one, ast.ClassDef)}
    if not method:
        sheet.body.append(function)
    elif owner in classes:
        classes[owner].body.append(function)
    else:
        whole = next(one for one in lab.body if isinstance(one, ast.ClassDef) and one.name == owner)
        sheet.body.append(whole)


def lab_of(lesson: Lesson, path: Path) -> Any:
    """The lab of a sheet: what its learner wrote, and for the rest the lab's own.

    Raises:
        Card: where the sheet can't be read, not as Python either, or is another lab's.
    """
    text, source = work.read(path), lesson.source
    exercises = sheets.exercises(source)
    states = sheets.written(text, path, exercises)
    yours = tuple(part for part in exercises if states.get(part))
    others = [part for part in exercises if part not in yours]
    tree = graft(ast.parse(text), ast.parse(source), others)
    lab = load(path, tree, f"{path.stem}_sheet").lab
    if lab.lesson.name != lesson.name:
        what, why = (
            f"{path} is no sheet of {lesson.name}.",
            f"It says that it is {lab.lesson.name}.",
        )
        raise Card(what, why, f"invoke lab {lab.lesson.name} -- --sheet {path}", WRONG_USAGE)
    lab.lesson = replace(lesson, path=path, text=text, yours=yours)
    return lab


def load(path: Path, tree: ast.Module, name: str) -> ModuleType:
    """Run a sheet's module; errors are the sheet's own."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(tree, str(path), "exec"), vars(module))
    return module


def implementation(module: ModuleType, part: str) -> Any:
    """What labs/checks is given: the function, or for a method its class."""
    return getattr(module, part.partition(".")[0])
