"""The options of a lab as its source declares them are those that the lab parses."""

from importlib import import_module
from typing import Any

from common import lab_options
from common.cards import Card
from common.options import Settings
from common.syllabus import Lesson, lessons

import pytest


def name_of(lesson: Lesson) -> str:
    return lesson.name


@pytest.mark.parametrize("lesson", lessons(), ids=name_of)
def test_the_help_read_from_the_source_is_the_lab_s(lesson: Lesson) -> None:
    parser: Any = import_module(lesson.module).lab._parser
    read = lab_options.parser_of(lesson)
    assert read is not None
    assert read.format_help() == parser.format_help()


@pytest.mark.parametrize(
    ("words", "what", "why"),
    [
        (["--nodes", "2"], "LLM10 has no option --nodes.", "Its own options are --model, --corpus"),
        (["--corpsu=f"], "LLM10 has no option --corpsu.", "There is --corpus."),
        (["--steps", "0"], "--steps can't be '0'.", "--steps is a positive integer."),
        (["--merges"], "The options can't be parsed.", "expected one argument"),
    ],
)
def test_a_wrong_option_is_a_card(words: list[str], what: str, why: str) -> None:
    (lesson,) = [lesson for lesson in lessons() if lesson.name == "LLM10"]
    with pytest.raises(Card) as raised:
        lab_options.check([lesson], words, Settings())
    assert raised.value.what == what and why in raised.value.why
    assert raised.value.fix.startswith("invoke lab LLM10 -- --help")
