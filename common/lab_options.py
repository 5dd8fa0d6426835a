"""The options of one lab: its folder's `__init__.py` declares them, and needs no torch.

The class `LessonOptions` has those of the lesson, `DeeperOptions` those of the deeper part.
"""

from collections.abc import Iterable
from dataclasses import fields
from importlib import import_module

from common.cards import WRONG_USAGE, Card
from common.options import (
    FILE,
    NoOptions,
    Parser,
    Settings,
    add_options,
    common_parser,
    flag_of,
    namespace_of,
)
from common.source import require_experiment
from common.syllabus import Lesson


def options_of(lesson: Lesson) -> type:
    """Return the dataclass that declares a lab's own options."""
    name = "DeeperOptions" if lesson.deeper else "LessonOptions"
    return vars(import_module(f"labs.{lesson.folder}")).get(name, NoOptions)


def parser_of(lesson: Lesson) -> Parser:
    """Return the parser of a lab's command line: the options of every lab, then its own."""
    help_command = f"invoke lab {lesson.name} -- --help"
    parser = common_parser(f"python -m labs {lesson.name}", lesson.blurb, help_command)
    add_options(parser, fields(options_of(lesson)))
    return parser


def check(chosen: Iterable[Lesson], words: list[str], common: Settings) -> None:
    """Check words of the command line that the labs parse; print the help if it is among them.

    Raises:
        Card: if a lab doesn't have an option, or not with this value.
        SystemExit: after the help.
    """
    if words:
        for lesson in chosen:
            parser_of(lesson).parse_args(words, namespace_of(common))


def file_flags(chosen: Iterable[Lesson]) -> set[str]:
    """Return the options of some labs that name a file or folder."""
    declared = (one for lesson in chosen for one in fields(options_of(lesson)))
    return {flag_of(one) for one in declared if one.metadata["kind"] == FILE}


def require_one_lab(chosen: list[Lesson], only: str | None) -> None:
    """Check that --only, if it is given, names an experiment of the one lab that was chosen.

    Raises:
        Card: if it doesn't.
    """
    if only is None:
        return
    if len(chosen) > 1:
        why = f"{len(chosen)} labs were named, and --only runs one experiment of one lab."
        fix = f"invoke lab {chosen[0].name} --only {only}"
        raise Card("--only needs one lab.", why, fix, WRONG_USAGE)
    require_experiment(chosen[0].name, chosen[0].source, only)
