"""The command that repeats one experiment of a run, with the options that change its results."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from common.options import SHARED, Settings

# --resume, --tensorboard and --outputs change no result; a sheet has `invoke check`.
CHANGE_RESULTS = ("size", "precision", "seed", "processes", "online")


def command(lab: str, experiment: str, settings: Settings, defaults: Mapping[str, Any]) -> str:
    """Return the command that repeats one experiment of a run.

    Args:
        lab: the name of the lab.
        experiment: the name of the experiment.
        settings: the options of the run.
        defaults: the default of each option that this lab alone has.
    """
    shared = {option.name: option.default for option in SHARED if option.name in CHANGE_RESULTS}
    words = ["invoke", "lab", lab, "--only", experiment, *_differing(settings, shared)]
    own = list(_differing(settings.own, defaults))
    return shlex.join([*words, *(["--", *own] if own else [])])


def _differing(values: argparse.Namespace | Settings, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of each option that doesn't have its default."""
    for name, default in defaults.items():
        value = getattr(values, name)
        if value == default:
            continue
        yield f"--{name.replace('_', '-')}"
        if isinstance(value, tuple):
            words: tuple[Any, ...] = value  # such as LLM08's --columns ticket,reply
            yield ",".join(map(str, words))
        elif not isinstance(value, bool):
            yield str(value)
