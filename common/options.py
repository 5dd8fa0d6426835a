"""The options that every lab has. No torch: the launcher's host doesn't have it.

A field of `Settings` declares an option once: its type, its default and its place on the command
line. An option of one lab is declared by that lab, with `lab.argument`.
"""

import argparse
import re
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from common.cards import WRONG_USAGE, Card

SIZES = ("tiny", "small", "full")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OUTPUTS = Path("outputs")
LARGEST_SEED = 2**32 - 1  # numpy's limit
SIMILAR = 0.75  # of two names, from 0 to 1
# Messages of argparse, and of the types below.
_UNKNOWN = re.compile(r"unrecognized arguments: (--\S+).*", re.DOTALL)
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
        if wrong := _WRONG_VALUE.fullmatch(message):
            why = f"{wrong[1]} is {wrong[3]}."
            raise Card(f"{wrong[1]} can't be {wrong[2]}.", why, self.help_command, WRONG_USAGE)
        raise Card("The options can't be parsed.", message, self.help_command, WRONG_USAGE)

    def _unknown_option(self, option: str) -> Card:
        what = f"{self.prog.rpartition(' ')[2]} has no option {option}."
        near = get_close_matches(option, self.flags, 1, SIMILAR)
        common = {"-h", "--help", *(f"--{shared.name}" for shared in SHARED)}
        own = [flag for flag in self.flags if flag not in common]
        why = f"Its own options are {', '.join(own)}." if own else "It has no options of its own."
        why = f"There is {near[0]}." if near else why
        return Card(what, why, f"{self.help_command} lists them", WRONG_USAGE)


def seed(text: str) -> int:
    """Parse a seed that torch, numpy and Python accept."""
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to {LARGEST_SEED}")
    return int(text)


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _help(text: str, **argparse_keywords: Any) -> dict[str, Any]:
    """Describe an option's place on the command line, as the metadata of its field."""
    return {"help": text, **argparse_keywords}


@dataclass(frozen=True)
class Settings:
    """How a lab is run: one field for each option that every lab has.

    Attributes:
        own: the options that this lab alone has.
    """

    size: str | None = field(
        default=None, metadata=_help("default: tiny on a CPU, small on a GPU", choices=SIZES)
    )
    precision: str = field(
        default="auto", metadata=_help("of training; default: auto", choices=PRECISIONS)
    )
    seed: int = field(default=0, metadata=_help("default: 0", type=seed, metavar="N"))
    processes: int = field(
        default=1, metadata=_help("train as N processes; default: 1", type=positive, metavar="N")
    )
    only: str | None = field(
        default=None,
        metadata=_help("run one experiment; --list shows their names", metavar="NAME"),
    )
    resume: bool = field(
        default=False,
        metadata=_help("resume an interrupted run or stop; without it: resume if it fits"),
    )
    tensorboard: bool = field(
        default=False, metadata=_help("log training for TensorBoard, into outputs/")
    )
    online: bool = field(default=False, metadata=_help("allow downloads from the Hugging Face hub"))
    sheet: Path | None = field(
        default=None,
        metadata=_help("run with the exercises of this sheet", type=Path, metavar="FILE"),
    )
    outputs: Path = field(
        default=OUTPUTS, metadata=_help("where runs are written", type=Path, metavar="DIR")
    )
    own: argparse.Namespace = field(default_factory=argparse.Namespace)


SHARED = tuple(option for option in fields(Settings) if option.name != "own")


def common_parser(
    prog: str, description: str = "", help_command: str = "invoke lab --help"
) -> Parser:
    """Return a parser for the options that every lab has."""
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.help_command = help_command
    for option in SHARED:
        keywords = dict(option.metadata)
        if isinstance(option.default, bool):
            keywords["action"] = "store_true"
        else:
            keywords["default"] = option.default
        parser.add_argument(f"--{option.name}", **keywords)
    return parser


def settings_from(parsed: argparse.Namespace) -> Settings:
    """Build the settings from a parsed command line; what no field declares is the lab's own."""
    values = dict(vars(parsed))
    shared = {option.name: values.pop(option.name) for option in SHARED}
    return Settings(**shared, own=argparse.Namespace(**values))


def namespace_of(settings: Settings) -> argparse.Namespace:
    """Return settings as a namespace, so that a lab's parser adds its own options to them."""
    return argparse.Namespace(**{option.name: getattr(settings, option.name) for option in SHARED})
