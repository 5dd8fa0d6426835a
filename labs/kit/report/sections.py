"""Order the page: the lab's prose and code, with each finding where it is taught."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field

from common import sheets, source
from labs.kit.records import PARTS, Check, Experiment


@dataclass(frozen=True)
class NotRun:
    """An experiment of the lab that this run left out.

    Attributes:
        name: the name of its function.
        claim: the first paragraph of its docstring.
    """

    name: str
    claim: str


@dataclass(frozen=True)
class Code:
    """Python of a cell; `solves` names the exercise if it is the body of one."""

    text: str
    solves: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: prose, code with the checks of its exercises, or an experiment.

    Attributes:
        prose: Markdown.
        title: the title of the code's cell.
        code: Python, cut at the bodies of exercises.
        parts: the checks of the exercises that the code defines.
        experiment: what one experiment found, or an experiment that wasn't run.
    """

    prose: str = ""
    title: str = ""
    code: list[Code] = field(default_factory=list[Code])
    parts: list[Check] = field(default_factory=list[Check])
    experiment: Experiment | NotRun | None = None


def sections(text: str, experiments: Sequence[Experiment], closing: str) -> list[Section]:
    """Return the lab in its file's order, each finding and the closing where it is defined.

    Experiments that the file doesn't define follow its first cell.

    Args:
        text: the lab's source.
        experiments: what the run found.
        closing: the Markdown of the closing; empty without one.
    """
    lines = definitions(text)
    parts = [check for one in experiments if one.name == PARTS for check in one.checks]
    found = [one for one in experiments if one.name != PARTS or one.crash]
    shown = [*found, *_not_run(text, experiments)]
    elsewhere = [Section(experiment=one) for one in shown if one.name not in lines]
    ordered: list[Section] = []
    for cell in source.split(text):
        if cell.prose:
            ordered.append(Section(prose=cell.text))
            ordered += elsewhere
            elsewhere = []
            continue
        inside = range(cell.first_line, cell.first_line + cell.text.count("\n") + 2)
        here = {name for name, line in lines.items() if line in inside}
        code = [] if cell.text.startswith("if __name__") else _pieces(cell.text)
        proved = [check for check in parts if _exercise(check) in here]
        ordered.append(Section(title=cell.title, code=code, parts=proved))
        taught = [one for one in shown if one.name in here]
        taught.sort(key=lambda experiment: lines[experiment.name])
        ordered += [Section(experiment=experiment) for experiment in taught]
        if closing and source.closing(text) in here:
            ordered.append(Section(prose=closing))
    return ordered + elsewhere


def _pieces(code: str) -> list[Code]:
    """Cut code at the bodies of its exercises, which the page folds."""
    lines = code.splitlines()
    cut: list[Code] = []
    done = 0
    for part, exercise in sheets.exercises(code).items():
        node = exercise.node
        documented = ast.get_docstring(node) is not None
        start = (node.body[0].end_lineno or 0) if documented else exercise.first_line - 1
        end = node.end_lineno or start
        cut += [_joined(lines[done:start]), _joined(lines[start:end], part)]
        done = end
    return [piece for piece in [*cut, _joined(lines[done:])] if piece.text]


def _joined(lines: list[str], solves: str = "") -> Code:
    return Code("\n".join(lines).strip("\n"), solves)


def _not_run(text: str, experiments: Sequence[Experiment]) -> list[NotRun]:
    ran = {experiment.name for experiment in experiments}
    claims = source.experiments(text)
    return [NotRun(name, claim) for name, claim in claims.items() if name not in ran]


def definitions(text: str) -> dict[str, int]:
    """Return the first line of every top-level function and every method ("Class.method")."""
    found: dict[str, int] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node.lineno
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            found |= {f"{node.name}.{method.name}": method.lineno for method in methods}
    return found


def _exercise(check: Check) -> str:
    """Return the name of the exercise that a check proves; a remark may follow it in brackets."""
    return check.name.partition(" (")[0]
