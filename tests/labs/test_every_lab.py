"""What holds for each lab's file: it opens as a notebook, and every part has its check."""

import ast
import builtins
import re
from pathlib import Path

from labs.course import source
from labs.course.syllabus import Lesson, lessons
from labs.kit.compare import check_of

import pytest

LABS = pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)


def is_experiment(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(one) == "lab.experiment" for one in node.decorator_list
    )


def defines(node: ast.stmt) -> set[str]:
    """The names that a top-level statement gives to what follows it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(one.asname or one.name).split(".")[0] for one in node.names}
    names = (one for one in ast.walk(node) if isinstance(one, ast.Name))
    return {one.id for one in names if isinstance(one.ctx, ast.Store)}


def functions(tree: ast.Module) -> dict[str, ast.stmt]:
    return {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def needs(node: ast.stmt, tree: ast.Module, seen: frozenset[str] = frozenset()) -> set[str]:
    """The module's names that a statement uses, by way of its functions too."""
    used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    for name in used & functions(tree).keys() - seen:
        used |= needs(functions(tree)[name], tree, seen | {name})
    return used


@LABS
def test_a_notebook_can_run_each_experiment_where_it_stands(lesson: Lesson) -> None:
    tree = ast.parse(lesson.path.read_text(encoding="utf-8"))
    everything = set().union(*(defines(node) for node in tree.body)) - set(dir(builtins))
    known: set[str] = set()
    for node in tree.body:
        known |= defines(node)
        if is_experiment(node):
            late = (needs(node, tree) & everything) - known
            assert not late, f"{node.name} runs before {', '.join(sorted(late))}"


@LABS
def test_every_exercise_has_three_hints_and_a_check(lesson: Lesson) -> None:
    module = __import__(lesson.module, fromlist=["lab"])
    assert 3 <= len(module.lab.exercises) <= 6
    for exercise in module.lab.exercises.values():
        assert len(exercise.hints) == 3, exercise.part
        assert exercise.level in (1, 2, 3)
        assert callable(check_of(lesson.name, exercise.part))


@LABS
def test_the_file_is_cells_of_prose_and_code(lesson: Lesson) -> None:
    found = source.split(Path(lesson.path).read_text(encoding="utf-8"))
    assert found[0].prose, "it opens with what the reader will be able to do"
    assert "You will be able to" in found[0].text
    assert sum(cell.prose for cell in found) >= 3


@LABS
def test_no_line_of_prose_is_a_list_or_a_quotation_by_accident(lesson: Lesson) -> None:
    """Where a formula is broken before its +, Markdown begins a list; lists here have dashes."""
    for cell in source.split(Path(lesson.path).read_text(encoding="utf-8")):
        marked = re.findall(r"^(?:[+*>]|\d+[.)]) .*", cell.text, re.MULTILINE) if cell.prose else []
        assert not marked
