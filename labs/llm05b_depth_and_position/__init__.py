"""LLM05b: its options. No later lab imports from it."""

from dataclasses import dataclass

from common.options import option


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM05b alone."""

    tune: bool = option("search the rates of section 8 at tiny, too", False)
