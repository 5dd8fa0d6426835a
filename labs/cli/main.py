"""`python -m labs`: run one lab, or several one after the other, and end in one table."""

import argparse
import sys
from importlib import import_module

from common.cards import INTERRUPTED, Card
from common.lab_options import require_one_lab
from common.options import Parser, common_parser, settings_from
from common.source import experiments
from common.syllabus import Lesson, find, lessons
from common.terminal import leaving_reader, screen
from labs.cli import run_several

from rich.table import Table
from rich.text import Text

DESCRIPTION = (
    "Run labs. A lab's own options follow the options of every lab, or stand behind --; "
    "`python -m labs LLM06 -- --help` shows them."
)
# The other verbs; each parses its own options.
VERBS = {
    "chat": "labs.cli.chat",
    "check": "labs.cli.check",
    "learn": "labs.cli.learn",
    "progress": "labs.cli.progress",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 passed, 1 a check failed, 2 wrong usage, 3 wrong environment, 130
        interrupted.
    """
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except Card as card:
        card.show()
        return card.code
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in VERBS:
        return import_module(VERBS[arguments[0]]).main(arguments[1:])
    parsed, own_words = _parse(arguments)
    settings = settings_from(parsed)
    chosen = find(parsed.labs) if parsed.labs else []
    if parsed.list or not chosen:
        with leaving_reader():
            if chosen:
                print_experiments(chosen)
            else:
                print_syllabus()
        return 0
    require_one_lab(chosen, settings.only)
    if len(chosen) > 1:
        return run_several.run(chosen, settings, own_words)
    return run_several.load(chosen[0]).run(own_words, settings)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the options of every lab; return them, and the words that are a lab's own options."""
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    parsed, unknown = _parser().parse_known_args(arguments[:separator])
    return parsed, [*unknown, *arguments[separator + 1 :]]


def _parser() -> Parser:
    parser = common_parser("python -m labs", DESCRIPTION)
    parser.add_argument("labs", nargs="?", help="LLM06, 6, LLM06+, a comma list, all or all+")
    parser.add_argument(
        "--list", action="store_true", help="list the labs; with a lab: list its experiments"
    )
    return parser


def print_syllabus() -> None:
    """Print every lab: name, title and one line on its content."""
    table = Table(box=None, padding=(0, 2))
    for column in ("lab", "title", ""):
        table.add_column(column, no_wrap=column == "lab")
    for lesson in lessons():
        table.add_row(lesson.name, lesson.title, lesson.blurb)
    screen().print(table)


def print_experiments(chosen: list[Lesson]) -> None:
    """Print the name and the claim of every experiment of some labs."""
    for lesson in chosen:
        table = Table(box=None, padding=(0, 2))
        table.add_column(lesson.name, no_wrap=True)
        table.add_column("claim")
        for name, claim in experiments(lesson.source).items():
            table.add_row(name, Text(claim))
        screen().print(table)
