"""report.html: one file that needs no network. Prose, claim, figures, numbers, verdicts, code."""

import base64
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labs.kit import cells
from labs.kit.records import Check, Experiment, Figure, Measurement, Table
from labs.kit.syllabus import Lesson

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.python import PythonLexer

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_FORMATTER: Any = HtmlFormatter(style="friendly", nowrap=True)


@dataclass(frozen=True)
class Section:
    """A part of the report: prose, code, or an experiment with its code; one of them is set."""

    title: str = ""
    prose: str = ""
    code: str = ""
    experiment: Experiment | None = None


def write(lesson: Lesson, data: dict[str, Any], found: list[Experiment], path: Path) -> None:
    """Write the report of one run to `path`, in one step."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(markdown=_markdown, inline=_inline, python=_python, embed=_embed)
    for kind in (Check, Measurement, Table, Figure):
        environment.tests[kind.__name__.lower()] = partial(_is, kind)
    page = environment.get_template("report.html.j2").render(
        lesson=lesson,
        data=data,
        experiments=found,
        sections=_sections(lesson.source, found),
        code_style=Markup(_FORMATTER.get_style_defs(".code")),
    )
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def _sections(source: str, found: list[Experiment]) -> list[Section]:
    """The lab in its file's order, each experiment where it is defined; the rest comes first."""
    defined = cells.functions(source)
    elsewhere = [one for one in found if one.name not in defined]
    sections: list[Section] = []
    for cell in cells.split(source):
        if cell.prose:
            sections.append(Section(prose=cell.text))
            if len(sections) == 1:
                sections += [Section(experiment=one) for one in elsewhere]
            continue
        last_line = cell.first_line + cell.text.count("\n") + 1
        here = [
            one
            for one in found
            if one.name in defined and cell.first_line <= defined[one.name].line <= last_line
        ]
        here.sort(key=lambda one: defined[one.name].line)
        code = "" if cell.text.startswith("if __name__") else cell.text
        sections.append(Section(title=cell.title, code=code))
        sections += [Section(experiment=one) for one in here]
    return sections


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind)


def _markdown(text: str) -> Markup:
    return Markup(_MARKDOWN.render(text))


def _inline(text: str) -> Markup:
    return Markup(_MARKDOWN.renderInline(text))


def _python(code: str) -> Markup:
    return Markup(highlight(code, PythonLexer(), _FORMATTER))


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
