"""Options as data: a field of a dataclass declares type, default, help and place on a command line.

`Settings` declares the options that every lab has; a lab declares its own in its folder's
`__init__.py`, which common/lab_options.py reads. No torch: the launcher's host doesn't have it.
"""

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from common.cards import WRONG_USAGE, Card

SIZES = ("tiny", "small", "full")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OUTPUTS = Path("outputs")
LARGEST_SEED = 2**32 - 1  # numpy's limit
FILE = "file"  # the kind of an option that names a file or folder
SIMILAR = 0.75  # of two names, from 0 to 1
# Messages of argparse, and of the types below.
_UNKNOWN = re.compile(r"unrecognized arguments: (--\S+).*", re.DOTALL)
_NO_CHOICE = re.compile(
    r"argument (--[\w-]+): invalid choice: ('.*') \(choose from (.+)\)", re.DOTALL
)
_WRONG_VALUE = re.compile(r"argument (--[\w-]+): ('.*') is not (.+)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports errors as cards and names the command that shows help."""

    help_command = ""

    @property
    def flags(self) -> list[str]:
        """Return the names of the options."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise a card in place of argparse's usage message."""
        if unknown := _UNKNOWN.fullmatch(message):
            raise self._unknown_option(unknown[1].partition("=")[0])
        if wrong := _NO_CHOICE.fullmatch(message):
            raise self._wrong_value(wrong[1], wrong[2], _one_of(wrong[3]))
        if wrong := _WRONG_VALUE.fullmatch(message):
            raise self._wrong_value(*wrong.groups())
        raise Card("The options can't be parsed.", message, self.help_command, WRONG_USAGE)

    def _wrong_value(self, option: str, value: str, right: str) -> Card:
        what = f"{option} can't be {value}."
        return Card(what, f"{option} is {right}.", self.help_command, WRONG_USAGE)

    def _unknown_option(self, option: str) -> Card:
        what = f"{self.prog.rpartition(' ')[2]} has no option {option}."
        near = get_close_matches(option, self.flags, 1, SIMILAR)
        common = {"-h", "--help", *(f"--{shared.name}" for shared in SHARED)}
        own = [flag for flag in self.flags if flag not in common]
        why = f"Its own options are {', '.join(own)}." if own else "It has no options of its own."
        why = f"There is {near[0]}." if near else why
        return Card(what, why, f"{self.help_command} lists them", WRONG_USAGE)


def _one_of(choices: str) -> str:
    """Return argparse's list of choices as a phrase: tiny, small or full."""
    *first, last = (word.strip().strip("'") for word in choices.split(","))
    return f"{', '.join(first)} or {last}" if first else last


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of integers from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            message = f"{text!r} is not an integer from {low:,} to {high:,}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse


def option(
    text: str,
    default: Any = None,
    *,
    kind: str = "",
    changes_results: bool = True,
    **argparse_keywords: Any,
) -> Any:
    """Declare an option, as a field of a dataclass of options.

    Args:
        text: one line of help.
        default: its value if the user doesn't give one. False makes it a flag without a value.
        kind: FILE if it names a file or folder, which the launcher looks for before a lab starts.
        changes_results: whether a command that repeats a run must have it.
        argparse_keywords: more arguments of `ArgumentParser.add_argument`, such as `type`.
    """
    about = {"help": text, "kind": kind, "changes_results": changes_results}
    return field(default=default, metadata={**about, "argparse": argparse_keywords})


@dataclass(frozen=True)
class NoOptions:
    """The own options of a lab that has none."""


@dataclass(frozen=True)
class Settings:
    """How a lab is run: one field for each option that every lab has.

    Attributes:
        own: the options that this lab alone has.
    """

    size: str | None = option("default: tiny on a CPU, small on a GPU", choices=SIZES)
    precision: str = option("of training; default: auto", "auto", choices=PRECISIONS)
    seed: int = option("default: 0", 0, type=integer(0, LARGEST_SEED), metavar="N")
    processes: int = option("train as N processes; default: 1", 1, type=positive, metavar="N")
    only: str | None = option(
        "run one experiment; --list shows their names", changes_results=False, metavar="NAME"
    )
    resume: bool = option(
        "resume an interrupted run or stop; without it: resume if it fits",
        False,
        changes_results=False,
    )
    tensorboard: bool = option(
        "log training for TensorBoard, into outputs/", False, changes_results=False
    )
    online: bool = option("allow downloads from the Hugging Face hub", False)
    sheet: Path | None = option(
        "run with the exercises of this sheet", changes_results=False, type=Path, metavar="FILE"
    )
    outputs: Path = option(
        "where runs are written", OUTPUTS, changes_results=False, type=Path, metavar="DIR"
    )
    own: Any = field(default_factory=NoOptions)


SHARED = tuple(one for one in fields(Settings) if one.name != "own")


def flag_of(declared: Field[Any]) -> str:
    """Return an option as it is typed: --two-words for the field two_words."""
    return f"--{declared.name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser, declared: Iterable[Field[Any]]) -> None:
    """Add the options that fields of a dataclass declare to a parser."""
    for one in declared:
        keywords = {"help": one.metadata["help"], **one.metadata["argparse"]}
        if isinstance(one.default, bool):
            keywords["action"] = "store_true"
        else:
            keywords["default"] = one.default
        parser.add_argument(flag_of(one), **keywords)


def common_parser(
    prog: str, description: str = "", help_command: str = "invoke lab --help"
) -> Parser:
    """Return a parser for the options that every lab has."""
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.help_command = help_command
    add_options(parser, SHARED)
    return parser


def settings_from(parsed: argparse.Namespace, own: type = NoOptions) -> Settings:
    """Build the settings from a parsed command line.

    Args:
        parsed: the values of the options.
        own: the dataclass that declares the lab's own options.
    """
    values = {one.name: getattr(parsed, one.name) for one in SHARED}
    own_values = {one.name: getattr(parsed, one.name) for one in fields(own)}
    return Settings(**values, own=own(**own_values))


def namespace_of(settings: Settings) -> argparse.Namespace:
    """Return settings as a namespace, so that a lab's parser adds its own options to them."""
    return argparse.Namespace(**{one.name: getattr(settings, one.name) for one in SHARED})
