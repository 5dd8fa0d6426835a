"""report.html: one file that needs no network, with prose, figures, numbers, verdicts and code.

`sections.py` orders it; `markdown.py`, `formulas.py` and `inline_svg.py` render its parts.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import classroom
from common.syllabus import Lesson
from labs.kit.records import PARTS, Check, Experiment, Figure, Measurement, Table, View
from labs.kit.report import facts, inline_svg, views
from labs.kit.report.code import highlight
from labs.kit.report.markdown import Markdown, link_to, plain, render_inline, unbroken
from labs.kit.report.sections import NotRun, sections

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent
# What a terminal takes as a command: colours, the window's title, other control characters.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[@-_]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


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
    markdown = Markdown()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters: dict[str, Any] = {"inline": render_inline, "python": highlight, "drawing": _drawing}
    filters |= {"markdown": markdown.render, "view": views.figure, "unbroken": unbroken}
    environment.filters.update(filters)
    for kind in (Check, Measurement, Table, Figure, View, NotRun):
        environment.tests[kind.__name__.lower()] = partial(_is_instance, kind)
    items = [item for experiment in experiments for item in experiment.items]
    kinds = {item.kind for item in items if isinstance(item, View)}
    styles = [_source("style.css"), _source("page.css"), *([views.style()] if kinds else [])]
    scripts = [_source("page.js"), *([views.script(kinds)] if kinds else [])]
    common: dict[str, Any] = {"lesson": lesson, "data": data, "experiments": experiments}
    main = environment.get_template("main.html.j2").render(
        **common,
        sections=sections(lesson.source, experiments, closing),
        heading=markdown.heading,
        level=partial(_experiment_level, markdown),
        link_to=link_to,
        locked=_locked(lesson),
    )
    page = environment.get_template("page.html.j2").render(
        **common,
        main=Markup(main),
        headings=[heading for heading in markdown.headings if heading.level == 2],
        verdicts=Counter(experiment.verdict for experiment in experiments),
        partial=_partial([one.name for one in experiments], data["not_run"]),
        checks=_checks_in_words(experiments),
        facts=list(facts.plain(data["environment"])),
        styles=styles,
        scripts=scripts,
        policy=_policy(scripts),
    )
    part = path.with_suffix(".part")
    part.write_text(_ESCAPES.sub("", page), encoding="utf-8")
    part.replace(path)


def _locked(lesson: Lesson) -> str:
    """Return what stands in place of locked solutions, or ""; a learner's own code isn't locked."""
    locked = lesson.yours is None and classroom.solutions_locked(lesson.name)
    return classroom.LATER if locked else ""


def _source(name: str) -> Markup:
    """Return one of our own style sheets or scripts."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def _policy(scripts: Sequence[str]) -> Markup:
    """Return a content security policy: no request leaves the page, and no other script runs."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return Markup(
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _experiment_level(markdown: Markdown) -> int:
    """Return the level of an experiment's heading: below the section that it is in."""
    in_section = any(heading.level == 2 for heading in markdown.headings)
    return 3 if in_section else 2


def _partial(ran: Sequence[str], not_run: Sequence[str]) -> str:
    """Say in words which experiments were run; empty if all were.

    Args:
        ran: the names of those that were run.
        not_run: the names of those that weren't.
    """
    names = [name for name in ran if name != PARTS]
    if not not_run:
        return ""
    if len(names) == 1:
        return f"Only `{names[0]}` was run."
    return f"{len(names) or 'None'} of {len(names) + len(not_run)} experiments were run."


def _checks_in_words(experiments: Sequence[Experiment]) -> str:
    checks = [check for experiment in experiments for check in experiment.checks]
    passed = sum(check.passed for check in checks)
    if len(checks) == 1:
        return f"1 check {checks[0].verdict}."
    return f"{passed} of {len(checks)} checks passed." if checks else "It has no checks."


def _is_instance(kind: type, value: Any) -> bool:
    return isinstance(value, kind)


def _drawing(figure: Figure, number: int) -> Markup:
    """Return a figure as an `<svg>` element; the number makes its ids unique."""
    alt = figure.alt or plain(render_inline(figure.caption))
    return inline_svg.inline(figure.path.read_text(encoding="utf-8"), f"f{number}", alt)
