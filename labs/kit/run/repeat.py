"""The command that repeats one experiment of a run, with the options that change its results."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from typing import Any

from common.options import SHARED, Settings, flag_of


def command(lab: str, experiment: str, settings: Settings) -> str:
    """Return the command that repeats one experiment of a run of a lab."""
    own = list(_differing(settings.own, fields(settings.own)))
    words = ["invoke", "lab", lab, "--only", experiment, *_differing(settings, SHARED)]
    return shlex.join([*words, *(["--", *own] if own else [])])


def _differing(values: Any, declared: Iterable[Field[Any]]) -> Iterator[str]:
    """Yield the words of each option that changes results and doesn't have its default."""
    for one in declared:
        value = getattr(values, one.name)
        if value == one.default or not one.metadata["changes_results"]:
            continue
        yield flag_of(one)
        if isinstance(value, tuple):
            words: tuple[Any, ...] = value  # such as LLM08's --columns ticket,reply
            yield ",".join(map(str, words))
        elif not isinstance(value, bool):
            yield str(value)
