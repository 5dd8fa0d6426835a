"""report.html: one file that needs no network, with prose, figures, numbers, verdicts and code."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labs.course import source
from labs.course.syllabus import Lesson
from labs.kit.records import Check, Experiment, Figure, Measurement, Table, View
from labs.kit.report import views
from labs.kit.report.markdown import render, render_inline

import jinja2
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.python import PythonLexer

_FORMATTER: Any = HtmlFormatter(style="friendly", nowrap=True)


@dataclass(frozen=True)
class Section:
    """A part of the page: prose, code, or an experiment; one of them is set."""

    title: str = ""
    prose: str = ""
    code: str = ""
    experiment: Experiment | None = None


def write(
    lesson: Lesson,
    data: dict[str, Any],
    experiments: Sequence[Experiment],
    closing: str,
    path: Path,
) -> None:
    """Write the report of one run, in one step: a reader never sees an incomplete page.

    Args:
        lesson: the lab.
        data: the run as results.json has it.
        experiments: the experiments, in the order in which they ran.
        closing: the Markdown of the closing; empty if there is no closing.
        path: the file to write.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(markdown=render, inline=render_inline, python=_python, embed=_embed)
    environment.filters.update(view=views.figure)
    for kind in (Check, Measurement, Table, Figure, View):
        environment.tests[kind.__name__.lower()] = partial(_is_instance, kind)
    shown = [item for one in experiments for item in one.items if isinstance(item, View)]
    page = environment.get_template("page.html.j2").render(
        lesson=lesson,
        data=data,
        experiments=experiments,
        sections=_sections(lesson.source, experiments, closing),
        code_style=Markup(_FORMATTER.get_style_defs(".code")),
        view_style=views.style() if shown else "",
        view_script=views.script(view.kind for view in shown) if shown else "",
    )
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def _sections(text: str, experiments: Sequence[Experiment], closing: str) -> list[Section]:
    """Return the lab in its file's order, each experiment and the closing where it is defined.

    Experiments that the file doesn't define follow its first cell.
    """
    functions = source.functions(text)
    closing_line = functions[name].line if (name := source.closing(text)) in functions else 0
    sections: list[Section] = []
    for cell in source.split(text):
        if cell.prose:
            sections.append(Section(prose=cell.text))
            if len(sections) == 1:
                sections += [Section(experiment=e) for e in experiments if e.name not in functions]
            continue
        lines = range(cell.first_line, cell.first_line + cell.text.count("\n") + 2)
        here = [e for e in experiments if e.name in functions and functions[e.name].line in lines]
        here.sort(key=lambda experiment: functions[experiment.name].line)
        code = "" if cell.text.startswith("if __name__") else cell.text
        sections.append(Section(title=cell.title, code=code))
        sections += [Section(experiment=experiment) for experiment in here]
        if closing and closing_line in lines:
            sections.append(Section(prose=closing))
    return sections


def _is_instance(kind: type, value: Any) -> bool:
    return isinstance(value, kind)


def _python(code: str) -> Markup:
    return Markup(highlight(code, PythonLexer(), _FORMATTER))


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
