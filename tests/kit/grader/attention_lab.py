"""A small lab, LLM92, whose parts call each other and have tensors as arguments and results."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import labs
from common import syllabus
from common.syllabus import Lesson

HERE = Path(__file__).resolve().parent


def add_to_the_course(set_attribute: Callable[[Any, str, Any], None] = setattr) -> Lesson:
    """Make LLM92 the only lab of the course in this process, and return it."""
    set_attribute(labs, "__path__", [*labs.__path__, str(HERE)])
    set_attribute(syllabus, "lessons", partial(syllabus.lessons, HERE))
    return syllabus.lessons()[0]
