"""The words of a command: find those that Invoke refuses in its own words, and the right ones."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice

from common.cards import WRONG_USAGE, Card

SIMILAR = 0.75  # of two names, from 0 to 1; none of the labs' options is as similar to a task's
_WITH_OWN_OPTIONS = ("lab", "manifest")  # a lab's own options follow -- in these tasks
_OF_SLURM = {"--ntasks": "--processes"}  # options of sbatch that have another name here
_Flags = Mapping[str, bool]  # the options of a task and of Invoke, and whether each needs a value
OwnFlags = Callable[[str], Collection[str] | None]


@dataclass(frozen=True)
class KnownTask:
    """What a task can be given: its options and Invoke's, and how many words besides them."""

    flags: _Flags
    places: int = 0


@dataclass
class _Words:
    """The words before `--`: those that the task knows, and from the first unknown option on."""

    known: list[str] = field(default_factory=list[str])
    unknown: list[str] = field(default_factory=list[str])
    name_places: list[int] = field(default_factory=list[int])  # of the known ones, in `known`

    @property
    def names(self) -> list[str]:
        """Return the known words that belong to no option: the task and its lab."""
        return [self.known[place] for place in self.name_places]

    @property
    def option(self) -> str:
        """Return the unknown option."""
        return self.unknown[0].partition("=")[0]


def typed_command(words: Sequence[str]) -> str:
    """Return the command with these words, as a user types it."""
    return shlex.join(["invoke", *words])


def typed_with(words: Sequence[str], *more: str) -> str:
    """Return the command with further options, which stand before --."""
    end = words.index("--") if "--" in words else len(words)
    return typed_command([*words[:end], *more, *words[end:]])


def wrong_words(
    words: Sequence[str], tasks: Mapping[str, KnownTask], own_flags: OwnFlags
) -> Card | None:
    """Return the card for words that Invoke can't parse; None if there are none.

    Args:
        words: The words of the command, from the task on.
        tasks: The tasks by name.
        own_flags: Returns the options that a lab parses, or None if they aren't known.
    """
    task = words[0]
    if task not in tasks:
        near = get_close_matches(task, tasks, 1)
        why = f"There is {near[0]}." if near else "invoke --list lists the tasks."
        fix = typed_command([near[0], *words[1:]] if near else ["--list"])
        return Card(f"invoke has no task {task!r}.", why, fix, WRONG_USAGE)
    end = words.index("--") if "--" in words else len(words)
    split = _split(words[:end], tasks)
    flags = tasks[task].flags
    if split.unknown:
        return _unknown_option(split, flags, words[end + 1 :], own_flags)
    wrong_value = _wrong_value(split.known, flags, words[end:])
    return wrong_value or _surplus_word(split, tasks[task], words[end:])


def _split(words: Sequence[str], tasks: Mapping[str, KnownTask]) -> _Words:
    """Split the words of a task; those of a second task count as neither."""
    split = _Words()
    flags = tasks[words[0]].flags
    remaining = iter(words)
    for word in remaining:
        flag, equals, _ = word.partition("=")
        if flag in flags:
            split.known.append(word)
            if flags[flag] and not equals:
                split.known += islice(remaining, 1)  # its value, if there is one
        elif split.unknown or word.startswith("--"):
            split.unknown.append(word)
        elif split.name_places and word in tasks:
            return split
        else:
            split.name_places.append(len(split.known))
            split.known.append(word)
    return split


def _wrong_value(known: Sequence[str], flags: _Flags, after: Sequence[str]) -> Card | None:
    """Return the card for an option with two values or without one.

    Args:
        known: The words before `--`.
        flags: The options, and whether each needs a value.
        after: The words from `--` on.
    """
    seen: dict[str, slice] = {}
    place = 0
    while place < len(known):
        flag, equals, _ = known[place].partition("=")
        width = 2 if flags.get(flag) and not equals else 1
        if place + width > len(known):
            fix = f"invoke {known[0]} --help"
            return Card(f"{flag} needs a value.", "No word follows it.", fix, WRONG_USAGE)
        if flags.get(flag) and flag in seen:
            once = list(known)
            del once[seen[flag]]
            why = "An option has one value."
            fix = typed_command([*once, *after])
            return Card(f"{flag} stands there twice.", why, fix, WRONG_USAGE)
        seen[flag] = slice(place, place + width)
        place += width
    return None


def _surplus_word(split: _Words, known: KnownTask, after: Sequence[str]) -> Card | None:
    """Return the card for a word more than the task can be given, such as a second lab.

    Args:
        split: The words before `--`.
        known: What the task can be given.
        after: The words from `--` on.
    """
    # A word behind an option may be its value: `--hint attention`.
    places = [n for n in split.name_places[1:] if split.known[n - 1] not in known.flags]
    surplus = places[known.places :]
    if not surplus:
        return None
    task = split.known[0]
    what = f"invoke {task} can't be given {split.known[surplus[0]]!r}."
    words = [word for n, word in enumerate(split.known) if n not in surplus]
    option = f"--{split.known[surplus[0]]}"
    if option in known.flags:
        words = [option if n == surplus[0] else word for n, word in enumerate(split.known)]
        is_complete = len(surplus) == 1 and not known.flags[option]
        fix = typed_command([*words, *after] if is_complete else [task, "--help"])
        return Card(what, f"There is {option}.", fix, WRONG_USAGE)
    if task == "lab":
        words[places[0]] = ",".join(split.known[n] for n in places)
        why = "Commas join labs."
    else:
        count = {0: "no word", 1: "one word"}.get(known.places, f"{known.places} words")
        why = f"It takes {count} besides its options."
    return Card(what, why, typed_command([*words, *after]), WRONG_USAGE)


def _unknown_option(
    split: _Words, flags: _Flags, after: Sequence[str], own_flags: OwnFlags
) -> Card:
    """Return the card for an option that the task doesn't have.

    Args:
        split: The words before `--`.
        flags: The options of the task.
        after: The words after `--`.
        own_flags: Returns the options that a lab parses, or None if they aren't known.
    """
    task, *labs = split.names
    option = split.option
    what = f"invoke {task} has no option {option}."
    own = own_flags(labs[0]) if labs and task in _WITH_OWN_OPTIONS else None
    if near := _nearest(option, flags):
        words = [*split.known, *_renamed(split.unknown, near), *(["--"] if after else []), *after]
        return Card(what, f"There is {near}.", typed_command(words), WRONG_USAGE)
    if task not in _WITH_OWN_OPTIONS:
        help_ = f"invoke {task} --help"
        return Card(what, f"{help_} lists its options.", help_, WRONG_USAGE)
    if own is None or option in own:
        why = "The options that one lab alone has stand behind --."
        words = [*split.known, "--", *split.unknown, *after]
        return Card(what, why, typed_command(words), WRONG_USAGE)
    what = f"Neither invoke {task} nor {labs[0]} has an option {option}."
    if near := _nearest(option, own):
        words = [*split.known, "--", *_renamed(split.unknown, near), *after]
        return Card(what, f"{labs[0]} has {near}.", typed_command(words), WRONG_USAGE)
    return Card(what, *_instead(split, after), WRONG_USAGE)


def _instead(split: _Words, after: Sequence[str]) -> tuple[str, str]:
    """Return why nobody has an option, and what to do."""
    task, lab = split.names[:2]
    rest = ["--", *after] if after else []
    same = _OF_SLURM.get(split.option, "") if task == "lab" else ""
    if same:
        words = [*split.known, *_renamed(split.unknown, same), *rest]
        return f"Slurm's {split.option} is {same} here.", typed_command(words)
    lists = f"invoke {task} --help and invoke lab {lab} -- --help list their options"
    if "slurm" in split.known and "--slurm-options" not in split.known:
        passed = ["--slurm-options", shlex.join(split.unknown)]
        words = [*split.known, *passed, *rest]
        return f"{lists}.", f"if it is one of sbatch: {typed_command(words)}"
    return "Options of one lab stand behind --, and it doesn't have this one.", lists


def _nearest(option: str, flags: Collection[str]) -> str:
    """Return the most similar option, or ""."""
    near = get_close_matches(option, [flag for flag in flags if flag[:2] == "--"], 1, SIMILAR)
    return near[0] if near else ""


def _renamed(words: Sequence[str], option: str) -> list[str]:
    """Return the words with another name for the option that they start with."""
    return [option + words[0].removeprefix(words[0].partition("=")[0]), *words[1:]]
