"""What holds for every sitting: it opens as a notebook, and its exercises are complete."""

import ast
import builtins
import re
from importlib import import_module

from common import sheets, source
from common.syllabus import Lesson, lessons

import pytest

LABS = pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
LESSONS = pytest.mark.parametrize(
    "lesson", [one for one in lessons() if not one.deeper], ids=lambda lesson: lesson.name
)


def is_experiment(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator) == "lab.experiment" for decorator in node.decorator_list
    )


def defines(node: ast.stmt) -> set[str]:
    """Return the names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    names = (name for name in ast.walk(node) if isinstance(name, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def functions(tree: ast.Module) -> dict[str, ast.stmt]:
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def needs(node: ast.stmt, tree: ast.Module, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the names that a statement uses, directly or through the module's functions."""
    used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    for name in used & functions(tree).keys() - seen:
        used |= needs(functions(tree)[name], tree, seen | {name})
    return used


@LABS
def test_a_notebook_can_run_each_experiment_where_it_is_defined(lesson: Lesson) -> None:
    tree = ast.parse(lesson.source)
    everything = set().union(*(defines(node) for node in tree.body)) - set(dir(builtins))
    known: set[str] = set()
    for node in tree.body:
        known |= defines(node)
        if is_experiment(node):
            late = (needs(node, tree) & everything) - known
            assert not late, f"{node.name} runs before {', '.join(sorted(late))}"


@LABS
def test_every_exercise_has_three_hints_and_a_level(lesson: Lesson) -> None:
    exercises = sheets.exercises(lesson.source)
    assert list(exercises) == list(import_module(lesson.module).lab.exercises)
    for part, exercise in exercises.items():
        assert len(exercise.hints) == 3, part
        assert exercise.level in (1, 2, 3), part
        assert exercise.task, part


@LESSONS
def test_a_lab_has_three_to_ten_exercises(lesson: Lesson) -> None:
    sittings = [sitting for sitting in lessons() if sitting.folder == lesson.folder]
    exercises = sum(len(sheets.exercises(sitting.source)) for sitting in sittings)
    assert 3 <= exercises <= 10, "a lab of the course has three to ten exercises"


@LABS
def test_the_experiments_in_the_source_are_those_that_the_lab_registers(lesson: Lesson) -> None:
    module = import_module(lesson.module)
    assert list(source.experiments(lesson.source)) == list(module.lab.experiments)


@LABS
def test_the_file_is_cells_of_prose_and_code(lesson: Lesson) -> None:
    cells = source.split(lesson.source)
    assert cells[0].prose, "it opens with what the reader will be able to do"
    assert "You will be able to" in cells[0].text
    assert sum(cell.prose for cell in cells) >= 3


@LABS
def test_no_line_of_prose_is_a_list_or_a_quotation_by_accident(lesson: Lesson) -> None:
    """A line of prose that begins with + would begin a list; lists in the labs have dashes."""
    for cell in source.split(lesson.source):
        marked = re.findall(r"^(?:[+*>]|\d+[.)]) .*", cell.text, re.MULTILINE) if cell.prose else []
        assert not marked


@LABS
def test_every_line_of_a_cell_of_prose_is_a_comment(lesson: Lesson) -> None:
    """JupyterLab makes an empty line a comment when it saves a sheet, which changes its bytes."""
    cells = re.findall(r"^# %% \[markdown\]\n(.*?)(?=^# %%|\Z)", lesson.source, re.M | re.S)
    assert cells
    for cell in cells:
        assert all(line.startswith("#") for line in cell.rstrip("\n").split("\n")), cell
