"""The words of a command: find an option of a lab before --, where Invoke refuses it."""

import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import islice

from launcher.cards import WRONG_USAGE, Card

SIMILAR = 0.75  # of two names, from 0 to 1; none of the labs' options is as similar to a task's


def typed_command(words: Sequence[str]) -> str:
    """Return the command with these words, as a user types it."""
    return shlex.join(["invoke", *words])


def typed_with(words: Sequence[str], *more: str) -> str:
    """Return the command with further options, which stand before --."""
    end = words.index("--") if "--" in words else len(words)
    return typed_command([*words[:end], *more, *words[end:]])


def misplaced_option(words: Sequence[str], flags: Mapping[str, bool]) -> Card | None:
    """Return the card for an option that the task doesn't have; None if it has them all.

    Args:
        words: The words of the command, from the first one on.
        flags: The options of the task and of Invoke, and whether each takes a value.
    """
    end = words.index("--") if "--" in words else len(words)
    known, unknown = _split(words[:end], flags)
    if not unknown:
        return None
    option = unknown[0].partition("=")[0]
    what = f"invoke doesn't know the option {option} here."
    near = get_close_matches(option, [flag for flag in flags if flag[:2] == "--"], 1, SIMILAR)
    if near:
        corrected = [near[0] + unknown[0].removeprefix(option), *unknown[1:], *words[end:]]
        why = f"There is {near[0]}."
        return Card(what, why, typed_command([*known, *corrected]), WRONG_USAGE)
    own = [*unknown, *words[end + 1 :]]
    why = "The options that one lab alone has stand behind --."
    return Card(what, why, typed_command([*known, "--", *own]), WRONG_USAGE)


def _split(words: Sequence[str], flags: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Return the words that the task knows, and from the first unknown option on the others."""
    known: list[str] = []
    unknown: list[str] = []
    remaining = iter(words)
    names = 0
    for word in remaining:
        flag, equals, _ = word.partition("=")
        if flag in flags:
            known.append(word)
            if flags[flag] and not equals:
                known += islice(remaining, 1)  # its value, if there is one
        elif unknown or word.startswith("--"):
            unknown.append(word)
        else:
            names += 1
            known.append(word)
            if names > 2:  # the task, its lab, and another task with other options
                return [], []
    return known, unknown
